"""A range that is read again a hundred times, and a replay that is killed while it has something to write."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.event_plan import Mix, ProducePlan
from lakehouse.local.producer import produce_events
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.bronze import bronze_ingestion
from pipelines.gold import gold_aggregation
from pipelines.lake.kafka.topic import wait_for_topic
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, SILVER
from pipelines.runtime.flags import job_parser
from pipelines.silver import replay as silver_replay
from tests.faults.conftest import DAY, LakeCase
from tests.faults.evidence import Evidence

REPLAYS = 100
_OTHERS = 5
"""Every so many replays of Silver there is one of Bronze and one of Gold: they take three times as long."""
TABLES = (BRONZE, SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY)


def _contents(case: LakeCase) -> dict[str, tuple[list[str], int, str]]:
    """Data files, rows and SHA-256 of each table's rows, stamps of when they were written included.

    Not the version: a replay of Bronze commits its transaction id, with no file.
    """
    found = {}
    for name in TABLES:
        table = DeltaTable(name.path(case.settings))
        rows = sorted(map(repr, table.to_pyarrow_table().to_pylist()))
        digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
        found[str(name)] = (sorted(table.file_uris()), len(rows), digest)
    return found


def _some_range(case: LakeCase, chance: random.Random) -> tuple[str, str]:
    """Somewhere within each partition, as the flags `--starting-offsets` and `--ending-offsets` take it."""
    ends = wait_for_topic(case.settings).end
    cuts = {partition: sorted(chance.sample(range(end), 2)) for partition, end in ends.items()}
    first, last = ({str(partition): cut[side] for partition, cut in cuts.items()} for side in (0, 1))
    return json.dumps(first), json.dumps(last)


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.control("one range read again a hundred times")
def test_hundred_replays_of_one_range_leave_every_table_as_it_was(
    spark: SparkSession,
    lake_case: Callable[[int], LakeCase],
    fault_seed: int,
    evidence: Evidence,
) -> None:
    case = lake_case(3000)
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    first, last = _some_range(case, random.Random(fault_seed))
    before, batches = _contents(case), len(Ledger(case.settings).batches("silver"))

    for number in range(REPLAYS):

        def parse(job: str, *words: str, number: int = number) -> argparse.Namespace:
            path = str(case.folder / "replays" / job / str(number))
            return job_parser("").parse_args([*words, "--checkpoint-path", path])

        offsets, day = (
            ("--starting-offsets", first, "--ending-offsets", last),
            ("--from-date", f"{DAY:%F}", "--to-date", f"{DAY:%F}"),
        )
        silver_replay.replay(spark, case.settings, parse("silver", *offsets), threading.Event())
        if number % _OTHERS == 0:
            bronze_ingestion.replay(spark, case.settings, parse("bronze", *offsets), threading.Event())
            gold_aggregation.replay(spark, case.settings, parse("gold", *day), threading.Event())

    after = _contents(case)
    assert after == before
    same = (f"{name}: {rows:,} rows in {len(files)} files, SHA-256 {digest}" for name, (files, rows, digest) in after.items())
    evidence.fired(f"offsets {first} to {last}; before and after alike: {'; '.join(same)}")
    assert len(Ledger(case.settings).batches("silver")) == batches + REPLAYS  # they did run
    evidence.holds(case.verdicts())


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.case("D5")
def test_replay_that_is_killed_is_gone_on_with_by_the_same_command(
    spark: SparkSession, lake_case: Callable[..., LakeCase], fault_seed: int, evidence: Evidence, tmp_path: Path
) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(PROJECT / "conf/schemas/api_usage_events", schemas)
    case = lake_case(0, schemas_dir=str(schemas))
    # Among the broken records are events of version 99.0, which no file describes yet.
    plan = ProducePlan(count=4000, seed=fault_seed, start_time=DAY, span_seconds=3600.0, mix=Mix(malformed=0.3))
    produce_events(case.settings, plan, case.folder / "op_ledger")
    run_to_end(spark, case.settings, list(STREAMS), threading.Event())
    described = json.loads((schemas / "1.0.json").read_text(encoding="utf-8"))
    (schemas / "99.0.json").write_text(json.dumps({**described, "version": "99.0"}), encoding="utf-8")
    silver = DeltaTable(SILVER.path(case.settings)).to_pyarrow_table(columns=["event_id"]).num_rows

    command = ("pipelines/silver/silver_processing.py", "--from-date", f"{DAY:%F}", "--checkpoint-path", str(tmp_path / "replay"))
    for point in ("silver.before_append", "silver.after_append", "silver.after_ledger"):
        killed = case.run(*command, fail_at=f"{point}:1")
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    evidence.fired("SIGKILL in a replay before its append, after it, after its ledger row, one after the other")
    with evidence.recovery():
        done = case.run(*command)
    assert done.returncode == 0, done.stderr
    run_to_end(spark, case.settings, ["gold"], threading.Event())

    after = _contents(case)
    assert after[str(SILVER)][1] > silver + 5
    states = DeltaTable(DLQ.path(case.settings)).to_pyarrow_table(columns=["_status"]).column("_status").to_pylist()
    assert states.count("replayed") == after[str(SILVER)][1] - silver
    evidence.holds(case.verdicts())
    again = case.run(*command)
    assert again.returncode == 0, again.stderr
    assert _contents(case) == after
