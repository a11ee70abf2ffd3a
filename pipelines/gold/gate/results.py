"""Keeps what audits found in `ops.quality_results`: read and written without a JVM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import write_deltalake

from pipelines.gold.gate.suites import BLOCKS
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.delta_log.marks import marked
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.places import make_folder
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import told_apart
from pipelines.lake.tables import QUALITY_RESULTS, Column, TableDef


class Gate(StrEnum):
    """What a run's audit led to."""

    PASSED = "passed"
    """Nothing that blocks failed: the day is published."""
    REFUSED = "refused"
    """Something that blocks failed: nothing is published, and the candidate is kept."""
    OVERRIDDEN = "overridden"
    """Something that blocks failed, and an operator had the day published all the same."""
    SETTLED = "settled"
    """A closed day whose candidate lay there still, and nothing of it is left to bill: it does not wait any more."""
    AUDITED = "audited"
    """Nothing was to be published: `lakehouse quality run`."""


TABLE = TableDef(
    name=QUALITY_RESULTS,
    comment="What audits of days found, before they were billed: a row for each expectation of a run. Rows are only added.",
    columns=(
        Column("run_id", "string", "The run, as in ops.reconciliation; of `lakehouse quality run` its own.", nullable=False),
        Column("day", "date", "The audited day.", nullable=False),
        Column("audited_at", "timestamp", "When the audit ended.", nullable=False),
        Column(
            "gate",
            "string",
            "passed, refused, overridden or settled: of a run that publishes; audited: of one that does not.",
            nullable=False,
        ),
        Column("suite", "string", "The file in `quality.suites`, without its ending.", nullable=False),
        Column("expectation", "string", "Id of the expectation.", nullable=False),
        Column("severity", "string", "blocks or warns.", nullable=False),
        Column("success", "boolean", "Whether it holds; NULL where it could not be evaluated, which counts as a failure."),
        Column(
            "observed", "string", "What was found: a figure, or how many of how many rows are otherwise. Never a row's values."
        ),
        Column("expected", "string", "What was expected."),
        Column("says", "string", "What the expectation is for, as its suite says."),
        Column("playbook", "string", "What to do where it fails."),
        Column("silver_version", "bigint", "Version of Silver that was audited."),
        Column("gold_version", "bigint", "Version of gold.billing_candidates that was audited; NULL where nothing was written."),
        Column("overridden_by", "string", "User who had the day published against the audit."),
        Column("override_reason", "string", "Why, in that user's words."),
        Column("docs", "string", "Page of the audit (Data Docs)."),
    ),
    keys=("run_id", "suite", "expectation"),
    stamps=("audited_at",),
    writer="the daily batch, and `lakehouse quality run`",
)
SCHEMA = arrow_schema(TABLE)


@dataclass(frozen=True)
class Result:
    """What came of one expectation; `success` is None where it could not be evaluated."""

    suite: str
    expectation: str
    severity: str
    success: bool | None
    observed: str
    expected: str
    says: str
    playbook: str

    @property
    def failed(self) -> bool:
        """Whether it does not hold, or nobody knows."""
        return self.success is not True

    @property
    def blocks(self) -> bool:
        """Whether the day must not be billed for it."""
        return self.failed and self.severity == BLOCKS

    def __str__(self) -> str:
        found = "could not be evaluated" if self.success is None else self.observed
        return f"{self.expectation}: {found}, expected {self.expected} (playbooks/{self.playbook}.md)"


@dataclass(frozen=True)
class Override:
    """An operator's word that a day be published whatever the audit says: who, and why."""

    by: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """A run's audit of one day: its results, what it led to, and the versions that it looked at."""

    run_id: str
    day: date
    audited_at: datetime
    gate: Gate
    results: tuple[Result, ...]
    silver_version: int | None
    gold_version: int | None = None
    override: Override | None = None
    """What the run was given; it is recorded where it was needed."""
    docs: str | None = None

    @property
    def failures(self) -> list[Result]:
        """What does not hold, what blocks first."""
        return sorted((one for one in self.results if one.failed), key=lambda one: not one.blocks)

    @property
    def blocking(self) -> list[Result]:
        """What the day must not be billed for."""
        return [one for one in self.results if one.blocks]

    @property
    def in_words(self) -> str:
        """What came of it, in a few words."""
        return f"{self.gate}: {len(self.failures)} of {len(self.results)} expectations fail, {len(self.blocking)} block"

    def rows(self) -> list[dict[str, Any]]:
        """The audit by the table's columns, a row for each expectation."""
        used = self.override if self.gate is Gate.OVERRIDDEN else None
        shared = {
            **{name: getattr(self, name) for name in ("run_id", "day", "audited_at", "silver_version", "gold_version", "docs")},
            "gate": str(self.gate),
            "overridden_by": used.by if used else None,
            "override_reason": used.reason if used else None,
        }
        return [{**shared, **{one.name: getattr(result, one.name) for one in fields(Result)}} for result in self.results]


class QualityStore:
    """Reads and appends audits."""

    def __init__(self, settings: Settings) -> None:
        self.path = QUALITY_RESULTS.path(settings)

    def record(self, audit: Audit) -> None:
        """Append an audit's results, in one commit."""
        make_folder(self.path)
        rows = pa.Table.from_pylist(audit.rows(), SCHEMA)
        write_deltalake(self.path, rows, mode="append", commit_properties=marked("gate"))

    def audits(self, day: date | None = None) -> list[Audit]:
        """The audits of `day`, or of all days, the newest first; none where the lake has none yet."""
        table = open_table(self.path)
        if table is None:
            return []
        bounds = {} if day is None else {"day": (day, day)}
        with told_apart(self.path):
            found = rows_dataset(table, bounds, SCHEMA).to_table(filter=None if day is None else ds.field("day") == day)
        return sorted(_audits(found.to_pylist()), key=lambda audit: audit.audited_at, reverse=True)


def waiting(audits: Sequence[Audit]) -> dict[date, Audit]:
    """Days that wait, with the audit that refused them: those whose last audit of a run that publishes was a refusal.

    `audits`: the newest first.
    """
    last: dict[date, Audit] = {}
    for audit in audits:
        if audit.gate is not Gate.AUDITED:
            last.setdefault(audit.day, audit)
    return {day: audit for day, audit in sorted(last.items()) if audit.gate is Gate.REFUSED}


def _audits(rows: Iterable[Mapping[str, Any]]) -> Iterable[Audit]:
    by_run: dict[tuple[str, datetime], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_run.setdefault((row["run_id"], row["audited_at"]), []).append(row)
    for (run_id, audited_at), group in by_run.items():
        first = group[0]
        overridden = first["gate"] == Gate.OVERRIDDEN
        yield Audit(
            run_id=run_id,
            day=first["day"],
            audited_at=audited_at,
            gate=Gate(first["gate"]),
            results=tuple(Result(**{one.name: row[one.name] for one in fields(Result)}) for row in group),
            silver_version=first["silver_version"],
            gold_version=first["gold_version"],
            override=Override(first["overridden_by"] or "", first["override_reason"] or "") if overridden else None,
            docs=first["docs"],
        )
