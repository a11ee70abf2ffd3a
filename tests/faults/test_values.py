"""Values from the whole range of each type go through every layer, every reader and every command: none stops, none lies."""

from __future__ import annotations

import io
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.commands import cli
from lakehouse.operations.rebuild.plan import plan_rebuild
from lakehouse.operations.rebuild.rebuild import build, compare
from lakehouse.operations.streams import run_to_end
from pipelines.archive.archiving import archive, plan_archive
from pipelines.archive.restoring import plan_restore, restore
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.tables import LEDGER, TableName
from tests.faults.by_hand import send
from tests.faults.conftest import DAY, LakeCase
from tests.faults.evidence import Evidence
from tests.faults.values import PARTITIONS, Values

_COMMANDS = (
    "status",
    "doctor --json",
    "verify --json",
    "dlq list --limit 100000",
    "dlq list --limit 100000 --json",
    "dlq stats",
    "breaker show",
    "checkpoint list",
    "checkpoint verify bronze",
    "archive list",
    "archive verify",
)
"""Readers that need no JVM; each with the lake's settings."""
_SOUND = {"doctor": (0, 1)}
"""Exit codes that are right: the doctor warns of dead letters."""


@dataclass(frozen=True)
class Through:
    """What it takes to bring records through the lake and to look at it in every way."""

    spark: SparkSession
    case: LakeCase

    def run(self, *names: str) -> None:
        run_to_end(self.spark, self.case.settings, names or ("bronze", "silver", "gold"), threading.Event())

    def rows(self, table: TableName) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = DeltaTable(table.path(self.case.settings)).to_pyarrow_table().to_pylist()
        return rows

    def command(self, words: str) -> str:
        """What a command says; it must end as it does on any sound lake."""
        said = io.StringIO()
        with pytest.raises(SystemExit) as ended, redirect_stdout(said), redirect_stderr(said):
            cli.main([*words.split(), "--config", str(self.case.config)])
        assert ended.value.code in _SOUND.get(words.split(maxsplit=1)[0], (0,)), (words, said.getvalue())
        return said.getvalue()

    def close(self, *days: date) -> None:
        """Reconcile days, long after they have ended; without the gate, which refuses values that no day has."""
        paths = Paths.of(self.case.settings)
        for day in days:
            outcome = reconcile(self.spark, self.case.settings, paths, day, datetime.now(UTC), suites=[])
            assert outcome.events_off == 0, outcome

    def archive_and_restore(self) -> None:
        """Move every day to the archive, long after all of them, and put one of them back."""
        now = datetime(2200, 6, 1, tzinfo=UTC)
        moved = archive(self.case.settings, plan_archive(self.case.settings, None, now), "run1", now, lambda _: None)
        assert not moved.changed
        assert sum(moved.removed.values()) == sum(moved.copied.values()) > 0
        restored = restore(self.case.settings, plan_restore(self.case.settings, DAY.date(), DAY.date()), "run2")
        assert restored == moved.removed[DAY.date()]


def _everything(through: Through, seed: int, records: int) -> None:
    values, settings = Values(seed), through.case.settings
    for far in (False, True, False):
        send(through.case, values.draw(records // 3, far=far))
        through.run()
    through.close(date(1970, 1, 1), DAY.date(), date(2199, 12, 31))
    # What comes after the bills are issued is adjusted; it is read by new checkpoints, which begin at the beginning.
    send(through.case, values.draw(records // 10, far=True))
    through.run()
    through.close(date(1970, 1, 1), DAY.date())

    for words in _COMMANDS:
        through.command(words)
    plan = plan_rebuild(settings, "silver", str(through.case.folder / "rebuild"), swap=False)
    build(through.spark, settings, plan, lambda _: None, threading.Event())
    assert all(found.is_none for found in compare(through.spark, settings, plan, lambda _: None))
    through.archive_and_restore()
    for words in ("verify --json", "archive verify", "status"):
        through.command(words)


def _show(through: Through, evidence: Evidence) -> None:
    counts = Counter({name: sum(row[name] for row in through.rows(LEDGER) if row["job"] == "silver") for name in _FATES})
    evidence.fired(", ".join(f"{count} {name}" for name, count in counts.items()))
    evidence.holds(through.case.verdicts())


_FATES = ("inserted", "replaced", "duplicate", "dead_lettered", "tombstone")


@pytest.mark.case("V1", "V2")
def test_values_of_every_range_go_through(
    spark: SparkSession, lake_case: Callable[..., LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    through = Through(spark, lake_case(0, partitions=PARTITIONS, breaker={"enabled": False}))

    _everything(through, fault_seed, 450)

    _show(through, evidence)


@pytest.mark.faults
@pytest.mark.case("V1", "V2")
@pytest.mark.timeout(1800)
def test_ten_thousand_values_go_through(
    spark: SparkSession, lake_case: Callable[..., LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    some = {"bronze": {"max_offsets_per_trigger": 3000}, "silver": {"max_bytes_per_trigger": "1m"}}
    through = Through(spark, lake_case(0, partitions=PARTITIONS, breaker={"enabled": False}, **some))

    _everything(through, fault_seed, 10_000)

    _show(through, evidence)
