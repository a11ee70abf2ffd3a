"""The SQL verification checks: one SELECT a file in `sql/checks`, which returns offenders."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import files_in

CHECKS = PROJECT / "sql" / "checks"

FIRST = 5
"""Offenders shown of each check."""
COUNTED = 1000
"""Offenders are counted up to here; how many more there are changes nothing."""
_AT_ONCE = 4
"""Checks run side by side: much of each is Spark's fixed cost for a query, not work."""

Severity = Literal["error", "warning", "info"]
Outcome = Literal["passed", "offenders", "skipped", "failed"]

_HEADERS = ("id", "title", "severity", "grain", "parameters", "playbook", "description")
_TABLE = re.compile(r"\b(?:bronze|silver|gold|ops)\.\w+\b")


@dataclass(frozen=True)
class Check:
    """A check as its file has it; `parameters` are names that stand as `${name}` in `sql`."""

    id: str
    title: str
    severity: Severity
    grain: str
    parameters: str
    playbook: str
    description: str
    sql: str

    @property
    def tables(self) -> frozenset[str]:
        """Tables that the check reads."""
        return frozenset(_TABLE.findall(re.sub(r"--.*|'[^']*'|\"[^\"]*\"", "", self.sql)))


@dataclass(frozen=True)
class CheckResult:
    """What a check found: `count` offenders (at most COUNTED + 1: more than COUNTED), and the first of them."""

    check: Check
    outcome: Outcome
    count: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    reason: str | None = None

    @property
    def is_red(self) -> bool:
        """Whether the result is to fail a run: offenders of severity error, or a check that could not run."""
        return self.outcome == "failed" or (self.outcome == "offenders" and self.check.severity == "error")

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, but for timestamps and dates."""
        return {
            "id": self.check.id,
            "title": self.check.title,
            "severity": self.check.severity,
            "playbook": self.check.playbook,
            "outcome": self.outcome,
            "count": self.count,
            "more": self.count > COUNTED,
            "first": self.first,
            "seconds": round(self.seconds, 2),
            "reason": self.reason,
        }


def load_checks(folder: Path = CHECKS) -> list[Check]:
    """Read the checks, by severity and id; raises LakehouseError where a header is incomplete."""
    checks = [parse_check(path.read_text(encoding="utf-8"), path.name) for path in files_in(folder, "*.sql")]
    return sorted(checks, key=lambda check: (get_args(Severity).index(check.severity), check.id))


def parse_check(text: str, name: str) -> Check:
    """Split a file into its header (`-- key: value`, continued by indented comments) and its SELECT."""
    headers: dict[str, str] = {}
    key = ""
    body = text
    for line in text.splitlines(keepends=True):
        if not line.startswith("--"):
            break
        body = body[len(line) :]
        match = re.match(r"-- (\w+): (.*)", line)
        if match:
            key = match[1]
            headers[key] = match[2].strip()
        elif key:
            headers[key] += " " + line.removeprefix("--").strip()
    severity = headers.get("severity")
    if set(headers) != set(_HEADERS) or severity not in get_args(Severity) or f"{headers['id']}.sql" != name:
        msg = f"The check {name} has no complete header; it needs {', '.join(_HEADERS)}, the id being the file's name."
        raise LakehouseError(msg)
    return Check(**headers, sql=body.strip().rstrip(";"))  # type: ignore[arg-type]  # severity was looked at


def choose_checks(checks: Iterable[Check], ids: Sequence[str]) -> list[Check]:
    """Give the checks called `ids`, or all; raises UsageError for an unknown id."""
    by_id = {check.id: check for check in checks}
    for name in ids:
        if name not in by_id:
            msg = f"There is no check `{name}`; the checks are {', '.join(sorted(by_id))}."
            raise UsageError(msg)
    return [by_id[name] for name in dict.fromkeys(ids)] or list(by_id.values())


def check_parameters(settings: Settings, day: date | None) -> dict[str, str]:
    """Values of the checks' parameters from the settings and the day asked for (None: all days)."""
    values = {
        "late_after_seconds": str(settings.silver.late_after_seconds),
        "skew_after_seconds": str(settings.silver.skew_after_seconds),
        "grace_hours": str(settings.reconcile.grace_hours),
    }
    return values if day is None else {**values, "date": day.isoformat()}


def run_checks(
    spark: SparkSession, checks: Sequence[Check], day: date | None = None, parameters: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """Run `checks` on the tables that the session knows as `layer.table`; results are in the order of `checks`.

    `parameters` (see `check_parameters`) stand for `${name}`; those not given have the defaults written in the SQL.
    A check whose tables are not all there is skipped; one that Spark refuses has failed.
    """
    values = dict(parameters or {})
    if day is not None:
        values["date"] = day.isoformat()
    known = {f"{layer}.{row.tableName}" for layer in _layers(spark) for row in spark.sql(f"SHOW TABLES IN {layer}").collect()}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda check: _run(spark, check, values, known), checks))


def _layers(spark: SparkSession) -> list[str]:
    return [row.namespace for row in spark.sql("SHOW DATABASES").collect() if row.namespace != "default"]


def _run(spark: SparkSession, check: Check, values: Mapping[str, str], known: set[str]) -> CheckResult:
    missing = sorted(check.tables - known)
    if missing:
        return CheckResult(check, "skipped", reason=f"there is no table {', '.join(missing)} yet")
    sql = check.sql
    for name, value in values.items():
        sql = sql.replace("${" + name + "}", value)
    started = time.monotonic()
    try:
        rows = [row.asDict(recursive=True) for row in spark.sql(sql).limit(COUNTED + 1).collect()]
    except (PySparkException, Py4JJavaError) as error:
        return CheckResult(check, "failed", seconds=time.monotonic() - started, reason=first_sentence(error))
    outcome: Outcome = "offenders" if rows else "passed"
    return CheckResult(check, outcome, len(rows), rows[:FIRST], time.monotonic() - started)


def first_sentence(error: PySparkException | Py4JJavaError) -> str:
    """What a Spark error says first, without its plan and stack trace."""
    # An error that pyspark does not know comes as Java's own text, whose second line names the class.
    message = str(getattr(error, "java_exception", None) or error)
    line = next((line.strip() for line in message.splitlines() if line.strip()), "Spark gave no reason.")
    line = re.sub(r"^(?:[\w$]+\.)+[\w$]*(?:Exception|Error): ", "", line)
    sentence = re.match(r".+?[^.\d]\.(?=\s|$)", line)
    return sentence[0] if sentence else line
