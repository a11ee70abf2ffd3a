"""Audits a day's candidate and says whether it may be billed: measure, evaluate, write the pages, record."""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from pyspark.sql import DataFrame

from pipelines.gold.gate.audited import CUSTOMERS, DAY, GOLD_ROWS, SILVER_ROWS, audited_columns
from pipelines.gold.gate.customers import measure_customers
from pipelines.gold.gate.figures import day_frame, measure_day
from pipelines.gold.gate.results import Audit, Gate, Override, QualityStore, Result
from pipelines.gold.gate.sources import Sources
from pipelines.gold.gate.suites import Suite, read_suites
from pipelines.lake.errors import UsageError
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings

_LOG = Log("gate")
_LONGEST_REASON = 1000


@dataclass(frozen=True)
class AuditedRun:
    """The run whose candidate is audited; `gold_version`: of the candidate's table, None where nothing was written.

    `publishes`: whether the day is published where the audit lets it; `is_due`: whether anything is left to publish; `override`:
    publish it whatever the audit says.
    """

    run_id: str
    gold_version: int | None
    publishes: bool
    is_due: bool = True
    override: Override | None = None


def open_suites(settings: Settings) -> list[Suite]:
    """Read the suites and check them against the audited columns; raises SettingsError with one sentence."""
    columns = {name: [column.name for column in known] for name, known in audited_columns(settings).items()}
    return read_suites(settings.quality.suites, columns)


def check_suites(suites: Sequence[Suite]) -> None:
    """Check types and arguments against Great Expectations; raises SettingsError with one sentence. Takes seconds."""
    great, _ = _library()
    great.check_expectations(suites)


def read_override(reason: str | None) -> Override | None:
    """The override that an operator asks for with a reason; None without one. Raises UsageError where the reason is blank."""
    if reason is None:
        return None
    if not reason.strip():
        msg = "--override is empty, expected why the day is billed against its audit; give it in a few words."
        raise UsageError(msg)
    return Override(_user(), " ".join(reason.split())[:_LONGEST_REASON])


def audit_day(sources: Sources, suites: Sequence[Suite], run: AuditedRun) -> Audit:
    """Evaluate the suites on the day, write the pages, and add the results to `ops.quality_results`; nothing else is written.

    Without a suite nothing is asked, and nothing written.
    Pages that cannot be written are said in a log line and stop nothing; results that cannot be recorded end the run.
    """
    if not suites:
        return _audit(sources, run, [])
    great, pages = _library()
    results, validations = great.evaluate(suites, *_measure(sources))
    audit = _audit(sources, run, results)
    try:
        audit = pages.write_pages(sources.settings, audit, validations)
    except Exception as error:
        _LOG.warning("pages of the audit cannot be written", error=type(error).__name__)
    QualityStore(sources.settings).record(audit)
    _log(audit)
    return audit


def _audit(sources: Sources, run: AuditedRun, results: Sequence[Result]) -> Audit:
    return Audit(
        run_id=run.run_id,
        day=sources.day,
        audited_at=datetime.now(UTC),
        gate=_gate(results, run),
        results=tuple(results),
        silver_version=sources.silver_version,
        gold_version=run.gold_version,
        override=run.override,
    )


def _measure(sources: Sources) -> tuple[dict[str, DataFrame], dict[str, Mapping[str, Any]]]:
    """The audited rows by their names, and the figures of those that are one row."""
    closed, bills = sources.history()
    # A row for each customer, kept on the executors: each query of an expectation would plan all of what they come from anew.
    candidate = sources.candidate.localCheckpoint()
    customers = measure_customers(sources, closed, bills).localCheckpoint()
    figures = measure_day(sources, candidate, customers, closed=closed, bills=bills)
    frames = {
        SILVER_ROWS: sources.silver_rows(),
        GOLD_ROWS: candidate,
        CUSTOMERS: customers,
        DAY: day_frame(sources.spark, figures),
    }
    return frames, {DAY: figures}


def _gate(results: Sequence[Result], run: AuditedRun) -> Gate:
    if not run.publishes:
        return Gate.AUDITED
    if not run.is_due:
        return Gate.SETTLED
    if not any(one.blocks for one in results):
        return Gate.PASSED
    return Gate.OVERRIDDEN if run.override else Gate.REFUSED


def _log(audit: Audit) -> None:
    for one in audit.failures:
        _LOG.warning(
            "expectation failed", day=audit.day, expectation=one.expectation, severity=one.severity, observed=one.observed
        )
    _LOG.info("day audited", day=audit.day, gate=str(audit.gate), expectations=len(audit.results), failed=len(audit.failures))


def _library() -> tuple[ModuleType, ModuleType]:
    """Import what needs Great Expectations, which takes seconds: for runs that audit.

    The library tries to import Spark Connect, which is not installed. Where the process has no main file (a test's worker),
    PySpark takes that try for a run of its own tests and ends the process.
    """
    connect = "pyspark.sql.connect"
    hidden = connect not in sys.modules
    if hidden:
        sys.modules[connect] = None  # type: ignore[assignment]  # an import of it is an ImportError then
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It imports modules of Python that are on their way out.
            from pipelines.gold.gate import great, pages  # noqa: PLC0415
    finally:
        if hidden:
            del sys.modules[connect]
    return great, pages


def _user() -> str:
    """Who runs this process, as the system knows; a number where a container has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
