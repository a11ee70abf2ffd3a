"""Others write while the streams run: the daily batch, maintenance, somebody who changes a table's columns."""

from __future__ import annotations

import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from batch.reconcile_gold import EXIT_WAS_OFF
from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.local.producer import produce_events
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.errors import StreamFailedError
from pipelines.lake.ledger.ledger import Ledger, LedgerRow
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, SILVER, TableName
from tests.faults.conftest import DAY, PATIENCE, LakeCase, make_case
from tests.faults.evidence import Evidence
from tests.faults.live import Driver, await_no_lag, load, produce, read_so_far, rows_of

pytestmark = pytest.mark.faults

Row = dict[str, Any]
CHANGED = (BRONZE, SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY)


def _sql_name(case: LakeCase, table: TableName) -> str:
    return f"delta.`{table.path(case.settings)}`"


def _rows(case: LakeCase, table: TableName) -> list[Row]:
    rows: list[Row] = DeltaTable(table.path(case.settings)).to_pyarrow_table().to_pylist()
    return sorted(rows, key=repr)


def _hours_of(day: datetime) -> str:
    return f"(hour >= '{day:%F}T00:00:00Z' AND hour < '{day + timedelta(days=1):%F}T00:00:00Z')"


@dataclass(frozen=True)
class Busy:
    """A lake whose streams ran, and may run again while somebody else writes."""

    spark: SparkSession
    case: LakeCase
    seed: int

    @contextmanager
    def streams(self, name: str) -> Iterator[Driver]:
        """Streams under load for the block; then they have caught up."""
        seed = zlib.crc32(f"{self.seed}{name}".encode())
        with load(self.case, seed, rate=100) as events, Driver(self.spark, self.case.settings) as driver:
            before = read_so_far(self.case.settings, "silver")
            driver.until(lambda: read_so_far(self.case.settings, "silver") > before, 90)
            yield driver
            events.end()
            await_no_lag(self.case.settings)
            assert driver.is_running, driver.error

    def batches(self, job: str) -> list[LedgerRow]:
        return Ledger(self.case.settings).batches(job)


@pytest.fixture(scope="module")
def busy(spark: SparkSession, broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory, fault_seed: int) -> Busy:
    folder = tmp_path_factory.mktemp("busy")
    # Batches that the streams can follow while the machine is busy with all the others.
    case = make_case(
        folder,
        broker.bootstrap_servers,
        events=900,
        seed=fault_seed,
        bronze={"max_offsets_per_trigger": 5000},
        silver={"max_bytes_per_trigger": "10m"},
        gold={"trigger": "1 second"},
    )
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    return Busy(spark, case, fault_seed)


@pytest.mark.case("C1")
def test_stream_and_daily_batch_on_the_same_day(busy: Busy, evidence: Evidence) -> None:
    case, paths = busy.case, Paths.of(busy.case.settings)
    # The load's events are stamped now: this is the day that Gold's stream writes.
    today = datetime.now(UTC).date()
    spans: list[tuple[datetime, datetime]] = []

    def beside() -> Outcome:
        began = datetime.now(UTC)
        outcome = reconcile(busy.spark, case.settings, paths, today, datetime.now(UTC))
        spans.append((began, datetime.now(UTC)))
        return outcome

    def between() -> int:
        return sum(spans[0][0] < row.committed_at < spans[-1][1] for row in busy.batches("gold"))

    with busy.streams("C1"), ThreadPoolExecutor(1) as pool:
        # One from another process, as it is scheduled, and others in this one.
        child = pool.submit(case.run, "batch/reconcile_gold.py", "--date", f"{today:%F}")
        while not child.done() or len(spans) < 3 or between() < 2:
            beside()
        assert child.result().returncode in (0, EXIT_WAS_OFF), child.result().stderr

    assert between() > 1
    evidence.fired(f"{len(spans)} runs of the daily batch, and one in a process of its own, among {between()} Gold batches")
    evidence.holds(busy.case.verdicts_of_replay())


@pytest.mark.case("C2")
def test_optimize_and_vacuum_during_merge(busy: Busy, evidence: Evidence) -> None:
    case, spark, lost = busy.case, busy.spark, 0
    # A MERGE leaves Gold in a file or two, with nothing to compact; sorting writes them anew each time.
    sort = " ZORDER BY (customer_id)"
    tables = {GOLD_HOURLY: sort, GOLD_DAILY: sort, SILVER: "", BRONZE: ""}
    hourly = DeltaTable(GOLD_HOURLY.path(case.settings))
    snapshot = sorted(hourly.to_pyarrow_table().to_pylist(), key=repr)

    def optimize(table: TableName) -> bool:
        """False where maintenance lost the race: it is simply done again."""
        try:
            spark.sql(f"OPTIMIZE {_sql_name(case, table)}{tables[table]}").collect()
        except PySparkException as error:
            if "CONCURRENT" not in str(error).upper():
                raise
            return False
        return True

    with busy.streams("C2") as driver:
        deadline, rounds = time.monotonic() + 90 * PATIENCE, 0
        while (rounds < 5 or not lost + len(driver.restarts)) and time.monotonic() < deadline:
            lost += sum(not optimize(table) for table in tables)
            rounds += 1
        for table in tables:
            spark.sql(f"VACUUM {_sql_name(case, table)}").collect()
        # A reader that opened the table before goes on with what it saw.
        assert sorted(hourly.to_pyarrow_table().to_pylist(), key=repr) == snapshot

    assert lost + len(driver.restarts) > 0
    evidence.fired(
        f"OPTIMIZE of 4 tables {rounds} times among MERGEs: it lost {lost} races, a stream {len(driver.restarts)}; then VACUUM"
    )
    evidence.holds(busy.case.verdicts_of_replay())


@pytest.mark.case("C3")
def test_daily_batch_twice_for_an_open_day_and_a_week_back(busy: Busy, evidence: Evidence) -> None:
    case, spark, paths = busy.case, busy.spark, Paths.of(busy.case.settings)
    week_ago, next_day = DAY - timedelta(days=7), DAY + timedelta(days=1)
    for number, start in enumerate((week_ago, next_day)):
        plan = ProducePlan(count=300, seed=busy.seed + number, start_time=start, span_seconds=7200.0, mix=Mix.clean())
        produce_events(case.settings, plan, case.folder / "op_ledger")
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    changed = DeltaTable(GOLD_HOURLY.path(case.settings)).update(
        {"event_count": "event_count + 7"}, predicate=" OR ".join(_hours_of(day) for day in (week_ago, DAY))
    )
    assert changed["num_updated_rows"]
    assert case.verdicts()["I5"] == "violated"

    def run(day: datetime, now: datetime) -> Outcome:
        # Without the gate, which refuses a day whose Gold somebody changed.
        return reconcile(spark, case.settings, paths, day.date(), now, suites=[])

    def on(table: TableName, day: datetime) -> list[Row]:
        column = {GOLD_HOURLY: "hour", GOLD_DAILY: "day"}[table]
        return [row for row in _rows(case, table) if f"{row[column]:%F}" == f"{day:%F}"]

    others = [on(table, day) for table in (GOLD_HOURLY, GOLD_DAILY) for day in (DAY, next_day)]
    first = run(week_ago, week_ago + timedelta(hours=3))
    after = [on(table, week_ago) for table in (GOLD_HOURLY, GOLD_DAILY)]
    second = run(week_ago, week_ago + timedelta(hours=4))
    assert (first.events_off > 0, first.status) == (True, "provisional")
    assert (second.events_off, second.differences) == (0, {})
    # The day a week back is right, still open, the second run wrote nothing, and no other day was touched.
    assert [on(table, week_ago) for table in (GOLD_HOURLY, GOLD_DAILY)] == after
    assert [on(table, day) for table in (GOLD_HOURLY, GOLD_DAILY) for day in (DAY, next_day)] == others
    for _ in range(2):
        last = run(DAY, DAY + timedelta(days=2))
    assert (last.events_off, last.differences, last.status) == (0, {}, "final")
    evidence.fired(f"{first.events_off} events too many a week back: repaired by the first run, nothing for the second to do")
    evidence.holds(busy.case.verdicts_of_replay())


@pytest.mark.case("C4")
def test_columns_added_while_running(busy: Busy, evidence: Evidence) -> None:
    case = busy.case
    with busy.streams("C4") as driver:
        for table in CHANGED:
            busy.spark.sql(f"ALTER TABLE {_sql_name(case, table)} ADD COLUMNS (noted_by string)")
        with evidence.recovery():
            before, rows = {job: read_so_far(case.settings, job) for job in ("bronze", "silver")}, rows_of(case.settings)
            gold = len(busy.batches("gold"))
            driver.until(lambda: all(read_so_far(case.settings, job) > done for job, done in before.items()), 120)
            driver.until(lambda: len(busy.batches("gold")) > gold and rows_of(case.settings) > rows, 120)
        assert driver.is_running, driver.error

    for table in CHANGED:
        assert "noted_by" in {field.name for field in DeltaTable(table.path(case.settings)).schema().fields}
    evidence.fired(f"ADD COLUMN on {len(CHANGED)} tables under running streams, which went on")
    evidence.holds(case.verdicts())


_BREAKS: dict[str, tuple[str, ...]] = {
    "drop": ("SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')", "DROP COLUMN customer_id"),
    "rename": ("SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')", "RENAME COLUMN customer_id TO customer"),
    "widen": ("SET TBLPROPERTIES ('delta.enableTypeWidening' = 'true')", "ALTER COLUMN status_code TYPE bigint"),
}


def _copy_of(case: LakeCase, folder: Path) -> LakeCase:
    """The lake with its checkpoints, once more, on the same topic."""
    folder.mkdir()
    for name in ("lake", "checkpoints", "op_ledger"):
        shutil.copytree(case.folder / name, folder / name)
    config = folder / "settings.yaml"
    config.write_text(case.config.read_text().replace(str(case.folder), str(folder)))
    return LakeCase(folder, config, load_settings(config, environ={}))


@pytest.mark.case("C4")
def test_columns_dropped_renamed_widened_are_refused(
    spark: SparkSession, lake_case: Callable[[int], LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    case = lake_case(300)
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    silver = _sql_name(case, SILVER)
    version = DeltaTable(SILVER.path(case.settings)).version()
    for _, change in _BREAKS.values():
        with pytest.raises(PySparkException, match="DELTA_UNSUPPORTED"):
            spark.sql(f"ALTER TABLE {silver} {change}")
    assert DeltaTable(SILVER.path(case.settings)).version() == version
    copies = {name: _copy_of(case, case.folder / name) for name in _BREAKS}
    produce(case, fault_seed, 90)
    said = {}
    for name, (switch, change) in _BREAKS.items():
        broken = copies[name]
        # Somebody insists.
        for statement in (switch, change):
            spark.sql(f"ALTER TABLE {_sql_name(broken, SILVER)} {statement}")
        hourly = DeltaTable(GOLD_HOURLY.path(broken.settings)).version()
        with pytest.raises(StreamFailedError, match=r"Stream (silver|gold) failed.*see playbooks/") as caught:
            run_to_end(spark, broken.settings, list(STREAMS), threading.Event())
        assert caught.value.exit_code == 1
        assert DeltaTable(GOLD_HOURLY.path(broken.settings)).version() == hourly
        said[name] = str(caught.value)
    evidence.loud("drop, rename, widen of a Silver column: refused by Delta; forced, the streams end by name and Gold stays")
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    evidence.holds(case.verdicts())
