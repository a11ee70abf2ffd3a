"""A model of the lake and the lake itself, driven by the same random steps: produce, copy, crash, restart, replay, reconcile."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from batch.reconcile_gold import Paths, reconcile
from pipelines.common import failpoints, jobs
from pipelines.common.tables import ADJUSTMENTS, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, RECONCILIATION, SILVER
from pipelines.silver import replay as silver_replay
from tests.pipelines.conftest import T0, Lake, Row, event, record

_POINTS = [point for point in failpoints.POINTS if point.startswith(("silver.", "gold.")) and "dead" not in point]
_EVENTS = st.integers(0, 30)
_MINUTES = st.integers(0, 600)


class Crash(Exception):
    """Stands for a driver that dies here: what it has written stays, what it knew is gone."""


class LakeMachine(RuleBasedStateMachine):
    """Steps on a lake whose Bronze is written by hand; at the end the tables have to say what the model says."""

    spark: ClassVar[SparkSession]

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory(prefix="lake-machine-")
        self.lake = Lake(self.spark, Path(self.folder.name))
        self.sent: list[Row] = []
        self.generation = 1
        self.replays = 0
        self.has_gold = False
        self._send(self._event(0, 0))

    def _event(self, number: int, minute: int, *, late: bool = False) -> tuple[Row, datetime]:
        # The same id has the same event_timestamp in all its copies: then they are found however far apart they come.
        at = T0 - timedelta(days=3 if number % 7 == 0 and late else number % 2, minutes=number)
        return event(event_id=f"e{number}", event_timestamp=f"{at:%FT%TZ}"), T0 + timedelta(minutes=minute)

    def _send(self, *values: tuple[Any, datetime]) -> None:
        rows = [
            record(value, len(self.sent) + position, partition=(len(self.sent) + position) % 2, at=at)
            for position, (value, at) in enumerate(values)
        ]
        self.sent += rows
        self.lake.append(*rows)

    @rule(numbers=st.lists(st.tuples(_EVENTS, _MINUTES), min_size=1, max_size=6))
    def produce(self, numbers: list[tuple[int, int]]) -> None:
        """New events and copies, in any order of Kafka time."""
        self._send(*(self._event(number, minute) for number, minute in numbers))

    @rule(minute=_MINUTES)
    def poison_and_tombstone(self, minute: int) -> None:
        at = T0 + timedelta(minutes=minute)
        self._send((b"{", at), (None, at))

    @rule()
    def run_silver(self) -> None:
        self.lake.run_silver(f"g{self.generation}")

    @rule()
    @precondition(lambda self: self._has_silver())
    def run_gold(self) -> None:
        self.lake.run_gold(f"g{self.generation}")
        self.has_gold = True

    @rule(point=st.sampled_from(_POINTS))
    def crash(self, point: str) -> None:
        """The job dies at the point, if its batch comes there."""
        if point.startswith("gold.") and not self._has_silver():
            return
        run: Callable[[str], None] = self.lake.run_silver if point.startswith("silver.") else self.lake.run_gold
        original = failpoints.reach

        target = point

        def reach(point: str) -> None:
            if point == target:
                raise Crash

        failpoints.reach = reach
        try:
            run(f"g{self.generation}")
        except PySparkException:
            pass
        finally:
            failpoints.reach = original

    @rule()
    def lose_checkpoints(self) -> None:
        """All streams begin anew: everything is read again."""
        self.generation += 1

    @rule(first=st.integers(0, 20), length=st.integers(1, 20))
    def replay(self, first: int, length: int) -> None:
        ends = {
            part: max((row["_kafka_offset"] + 1 for row in self.sent if row["_kafka_partition"] == part), default=0)
            for part in (0, 1)
        }
        part = first % 2
        low = min((row["_kafka_offset"] for row in self.sent if row["_kafka_partition"] == part), default=None)
        if low is None:
            return
        start, end = max(first, low), min(max(first, low) + length, ends[part])
        if not any(row["_kafka_partition"] == part and start <= row["_kafka_offset"] < end for row in self.sent):
            return
        self.replays += 1
        flags = ["--starting-offsets", f'{{"{part}":{start}}}', "--ending-offsets", f'{{"{part}":{end}}}']
        args = jobs.job_parser("").parse_args([*flags, "--checkpoint-path", f"{self.folder.name}/replay-{self.replays}"])
        silver_replay.replay(self.spark, self.lake.settings, args, threading.Event())

    @rule(back=st.integers(0, 3))
    @precondition(lambda self: self.has_gold)
    def reconcile(self, back: int) -> None:
        names = (SILVER, GOLD_HOURLY, GOLD_DAILY, RECONCILIATION, ADJUSTMENTS)
        paths = Paths(*(name.path(self.lake.settings) for name in names))
        day: date = (T0 - timedelta(days=back)).date()
        reconcile(self.spark, self.lake.settings, paths, day, datetime.now(UTC), may_close=False)

    def _has_silver(self) -> bool:
        return Path(self.lake.path(SILVER)).exists()

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            self.lake.run_silver(f"g{self.generation}")
            self.lake.run_gold(f"g{self.generation}")
            self._compare()
        finally:
            self.folder.cleanup()

    def _compare(self) -> None:
        """Silver, dead letters, the ledger's sums and Gold are what the records say."""
        first: dict[str, tuple[Any, ...]] = {}
        for row in self.sent:
            raw = row["_raw_value"]
            if raw in (None, b"{"):
                continue
            name = raw.decode().split('"event_id": "')[1].split('"')[0]
            place = (row["_kafka_timestamp"], row["_kafka_partition"], row["_kafka_offset"])
            first[name] = min(first.get(name, place), place)
        found = self.lake.rows(SILVER, "event_id", "_kafka_timestamp", "_kafka_partition", "_kafka_offset", "event_timestamp")
        assert {
            row["event_id"]: (row["_kafka_timestamp"], row["_kafka_partition"], row["_kafka_offset"]) for row in found
        } == first
        assert len(found) == len(first)
        poison = sorted(row["_kafka_offset"] for row in self.sent if row["_raw_value"] == b"{")
        assert sorted(row["_kafka_offset"] for row in self.lake.rows(DLQ, "_kafka_offset")) == poison

        ledger = [row for row in self.lake.rows(LEDGER) if row["job"] == "silver"]
        sums = {name: sum(row[name] for row in ledger) for name in ("duplicate", "replaced", "dead_lettered", "tombstone")}
        assert sums["tombstone"] == sum(row["_raw_value"] is None for row in self.sent)
        assert sums["dead_lettered"] == len(poison)
        copies = len(self.sent) - len(first) - len(poison) - sums["tombstone"]
        assert sums["duplicate"] + sums["replaced"] == copies

        hours = Counter(row["event_timestamp"].replace(minute=0, second=0) for row in found)
        gold: Counter[datetime] = Counter()
        for row in self.lake.rows(GOLD_HOURLY, "hour", "event_count"):
            gold[row["hour"]] += row["event_count"]
        assert gold == hours


@pytest.fixture
def machine(spark: SparkSession) -> type[LakeMachine]:
    LakeMachine.spark = spark
    return LakeMachine


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_lake_says_what_the_model_says(machine: type[LakeMachine]) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(max_examples=12, stateful_step_count=10, deadline=None, suppress_health_check=checks, print_blob=True)
    run_state_machine_as_test(machine, settings=chosen)
