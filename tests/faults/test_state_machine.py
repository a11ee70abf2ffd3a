"""A model of the lake and the lake itself, driven by the same random steps.

Steps: produce, copy, late, poison, crash at a point, restart, lose checkpoints, rewind, replay, reconcile, add a column.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from lakehouse.operations.checkpoints.copying import write_copy
from lakehouse.operations.checkpoints.rewind import plan_rewind
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake import failpoints
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.lease.checkpoints import checkpoint_holder
from pipelines.lake.resources import PROJECT
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import DLQ, GOLD_HOURLY, LEDGER, SILVER
from pipelines.runtime.flags import job_parser
from pipelines.silver import replay as silver_replay
from tests.pipelines.conftest import T0, Lake, Row, event, record
from tests.random_steps import run_random_steps

EXAMPLES, STEPS = 8, 10
"""Runs, and the most steps of each: some three minutes on two cores."""
_SCHEMA = PROJECT / "conf" / "schemas" / "api_usage_events" / "1.0.json"
_POINTS = [point for point in failpoints.POINTS if point.startswith(("silver.", "gold."))]
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
        self.schemas = Path(self.folder.name) / "schemas"
        self.schemas.mkdir()
        (self.schemas / "1.0.json").write_text(_SCHEMA.read_text(encoding="utf-8"))
        self.lake = Lake(self.spark, Path(self.folder.name), {"schemas_dir": str(self.schemas)})
        self.sent: list[Row] = []
        self.generations = {"silver": 1, "gold": 1}
        self.replays = 0
        self.has_gold = False
        self._send(self._event(0, 0))

    def _event(self, number: int, minute: int) -> tuple[Row, datetime]:
        # The same id has the same event_timestamp in all its copies: then they are found however far apart they come.
        # Those of odd numbers are late, and a seventh of all are of days before.
        at = T0 - timedelta(days=3 if number % 7 == 0 else number % 2, minutes=number)
        version = max(path.stem for path in self.schemas.glob("*.json"))
        more = {} if version == "1.0" else {"cached": f"c{number}"}
        fields = event(event_id=f"e{number}", event_timestamp=f"{at:%FT%TZ}", schema_version=version, **more)
        return fields, T0 + timedelta(minutes=minute)

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
        self._run("silver")

    @rule()
    @precondition(lambda self: self._has_silver())
    def run_gold(self) -> None:
        self._run("gold")
        self.has_gold = True

    def _run(self, job: str) -> None:
        run: dict[str, Callable[[str], None]] = {"silver": self.lake.run_silver, "gold": self.lake.run_gold}
        try:
            run[job](f"g{self.generations[job]}")
        finally:
            # The checkpoint is given back a moment after its stream has ended.
            deadline = time.monotonic() + 10
            while checkpoint_holder(str(self._checkpoint(job))) is not None and time.monotonic() < deadline:
                time.sleep(0.01)

    def _checkpoint(self, job: str) -> Path:
        return Path(self.folder.name) / "checkpoints" / job / f"g{self.generations[job]}"

    @rule()
    def add_column(self) -> None:
        """Producers begin with a version of the schema that has a field more; the jobs are started anew with its file."""
        tree = json.loads(_SCHEMA.read_text(encoding="utf-8"))
        added = {"name": "cached", "type": "string", "required": False, "doc": "Whether a cache answered."}
        (self.schemas / "1.1.json").write_text(json.dumps({**tree, "version": "1.1", "fields": [*tree["fields"], added]}))
        known, session = read_schemas(self.schemas), self.spark.newSession()
        session.conf.set("spark.sql.catalog.events.fields", known.ddl())
        session.conf.set("spark.sql.catalog.events.schemas", known.rules())
        self.lake = replace(self.lake, spark=session)

    @rule(point=st.sampled_from(_POINTS))
    def crash(self, point: str) -> None:
        """The job dies at the point, if its batch comes there."""
        if point.startswith("gold.") and not self._has_silver():
            return
        original = failpoints.reach

        target = point

        def reach(point: str) -> None:
            if point == target:
                raise Crash

        failpoints.reach = reach
        try:
            self._run(point.partition(".")[0])
        except PySparkException:
            pass
        finally:
            failpoints.reach = original

    @rule()
    def lose_checkpoints(self) -> None:
        """All streams begin anew: everything is read again."""
        self.generations = {job: generation + 1 for job, generation in self.generations.items()}

    @rule(job=st.sampled_from(["silver", "gold"]), back=st.integers(0, 3))
    def rewind(self, job: str, back: int) -> None:
        """The checkpoint as it was some batches ago, under a new generation."""
        old = self._checkpoint(job)
        commits = sorted(int(path.name) for path in (old / "commits").glob("[0-9]*"))
        if not commits:
            return
        new = old.with_name(f"g{self.generations[job] + 1}")
        plan = plan_rewind(
            self.lake.settings, open_storage(str(old)), open_storage(str(new)), commits[-1 - min(back, len(commits) - 1)]
        )
        write_copy(plan.copy)
        self.generations[job] += 1

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
        args = job_parser("").parse_args([*flags, "--checkpoint-path", f"{self.folder.name}/replay-{self.replays}"])
        silver_replay.replay(self.lake.spark, self.lake.settings, args, threading.Event())

    @rule(back=st.integers(0, 3))
    @precondition(lambda self: self.has_gold)
    def reconcile(self, back: int) -> None:
        day: date = (T0 - timedelta(days=back)).date()
        reconcile(self.lake.spark, self.lake.settings, Paths.of(self.lake.settings), day, datetime.now(UTC), may_close=False)

    def _has_silver(self) -> bool:
        return Path(self.lake.path(SILVER)).exists()

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            self._run("silver")
            self._run("gold")
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
            fields = json.loads(raw)
            place = (row["_kafka_timestamp"], row["_kafka_partition"], row["_kafka_offset"], fields.get("cached"))
            first[fields["event_id"]] = min(first.get(fields["event_id"], place), place)
        found = self.lake.rows(SILVER)
        places = ("_kafka_timestamp", "_kafka_partition", "_kafka_offset", "cached")
        assert {row["event_id"]: tuple(row.get(name) for name in places) for row in found} == first
        assert len(found) == len(first)
        poison = sorted(row["_kafka_offset"] for row in self.sent if row["_raw_value"] == b"{")
        assert sorted(row["_kafka_offset"] for row in self.lake.rows(DLQ, "_kafka_offset")) == poison

        ledger = [row for row in self.lake.rows(LEDGER) if row["job"] == "silver"]
        names = ("inserted", "duplicate", "replaced", "dead_lettered", "tombstone")
        sums = {name: sum(row[name] for row in ledger) for name in names}
        assert sums["inserted"] == len(first)
        assert sums["tombstone"] == sum(row["_raw_value"] is None for row in self.sent)
        assert sums["dead_lettered"] == len(poison)
        copies = len(self.sent) - len(first) - len(poison) - sums["tombstone"]
        assert sums["duplicate"] + sums["replaced"] == copies

        hours = Counter(row["event_timestamp"].replace(minute=0, second=0) for row in found)
        gold: Counter[datetime] = Counter()
        for row in self.lake.rows(GOLD_HOURLY, "hour", "event_count"):
            gold[row["hour"]] += row["event_count"]
        assert gold == hours


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_lake_says_what_the_model_says(spark: SparkSession, fault_seed: int) -> None:
    LakeMachine.spark = spark
    run_random_steps(LakeMachine, fault_seed, runs=EXAMPLES, steps=STEPS)
