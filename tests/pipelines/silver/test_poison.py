"""Poison: the search finds exactly the records that fail, with few probes; the stream lives on without them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from pipelines.bronze.schema import TABLE
from pipelines.lake.errors import PoisonBatchError, own_error
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.tables import BRONZE, DLQ, SILVER
from pipelines.runtime import delta
from pipelines.runtime.flags import job_parser
from pipelines.silver import transforms, writer
from pipelines.silver.facts import Longs
from pipelines.silver.poison import NotPoisonError, find_poison
from pipelines.silver.replay import replay

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]


class Probe:
    """Fails for runs that hold a poison record, and counts how often it was asked."""

    def __init__(self, poison: set[int]) -> None:
        self.poison = poison
        self.asked = 0

    def __call__(self, run: Longs) -> bool:
        self.asked += 1
        return bool(self.poison & set(run.tolist()))


@given(records=st.sets(st.integers(0, 10_000), min_size=1, max_size=300), data=st.data())
@hypothesis_settings(deadline=None)
def test_search_finds_exactly_the_poison_within_its_bound(records: set[int], data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.sampled_from(sorted(records)), min_size=1, max_size=5))
    probe = Probe(poison)

    found = find_poison(np.array(sorted(records), dtype=np.int64), probe, 5)

    assert found.tolist() == sorted(poison)
    assert probe.asked <= 2 + len(poison) * (math.ceil(math.log2(len(records))) + 2)


def test_more_poison_than_allowed_is_a_named_error() -> None:
    with pytest.raises(PoisonBatchError, match=r"More than 2 records .*max_poison_records.*playbooks/poison-flood\.md"):
        find_poison(np.arange(100, dtype=np.int64), Probe({3, 50, 99}), 2)


@pytest.mark.parametrize(
    "fails",
    [
        lambda run: True,  # even nothing fails: the cause is elsewhere
        lambda run: False,  # it does not happen again
        lambda run: len(run) > 3,  # too many together: memory, not a record
    ],
)
def test_failure_that_is_no_records_condemns_none(fails: Callable[[Longs], bool]) -> None:
    with pytest.raises(NotPoisonError):
        find_poison(np.arange(8, dtype=np.int64), fails, 5)


def _land(lake: Lake, *records: Row) -> None:
    """Add one commit to Bronze with Spark: the writer of the other tests knows no year 294247."""
    delta.ensure_table(lake.spark, TABLE, lake.path(BRONZE))
    rows = [(row["_kafka_offset"], row["_raw_value"], row["_kafka_timestamp"]) for row in records]
    times = [us if isinstance(us, int) else int(us.timestamp()) * 1_000_000 for _, _, us in rows]
    flat = [(offset, raw, us) for (offset, raw, _), us in zip(rows, times, strict=True)]
    at, nothing = F.timestamp_micros("us"), F.lit(None)
    columns = {
        "_kafka_topic": F.lit("api-usage-events"),
        "_kafka_partition": F.lit(0),
        "_kafka_offset": F.col("o"),
        "_kafka_timestamp": at,
        "_kafka_timestamp_type": F.lit(0),
        "_kafka_key": nothing.cast("binary"),
        "_kafka_headers": nothing.cast("array<struct<key:string,value:binary>>"),
        "_raw_value": F.col("v"),
        "_raw_size": F.length("v"),
        "_ingested_at": F.current_timestamp(),
        "_event_date": F.to_date(at),
    }
    frame = lake.spark.createDataFrame(flat, "o long, v binary, us long")
    frame.select(*(column.alias(name) for name, column in columns.items())).coalesce(1).write.format("delta").mode("append").save(
        lake.path(BRONZE)
    )


def _poison(make_event: Callable[..., Row], make_record: Callable[..., Row], offset: int) -> Row:
    """A record whose every field is valid, and on which the code with the `defect` throws an arithmetic error in a task."""
    return make_record(make_event(event_id=f"p{offset}"), offset)


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in the code that makes Silver's rows: the values that records may have stop no code that is right."""
    whole = transforms.build_silver_rows

    def build(parsed: DataFrame, *args: Any, **options: Any) -> DataFrame:
        name = F.col("event.event_id")
        failing = F.when(name.rlike("^p[0-9]+$"), (F.lit(1) / (F.length(name) * 0)).cast("string"))
        return whole(parsed.withColumn("_kafka_topic", F.coalesce(failing, "_kafka_topic")), *args, **options)

    monkeypatch.setattr(writer, "build_silver_rows", build)


def _letters(lake: Lake) -> dict[int, Row]:
    """Dead letters by offset, read with Spark: Rust's calendar ends before year 294247."""
    rows = (
        lake.spark.read.format("delta")
        .load(lake.path(DLQ))
        .select("_kafka_offset", "_quality_flags", "_raw_value", "_error_message")
    )
    return {row["_kafka_offset"]: row.asDict() for row in rows.collect()}


@pytest.mark.usefixtures("defect")
def test_poison_record_becomes_a_dead_letter_and_the_rest_is_processed(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    records = [make_record(make_event(event_id=f"e{n}"), n) for n in range(20)]
    records[4], records[9], records[17] = make_record(b"{", 4), make_record(None, 9), make_record(make_event(event_id="e1"), 17)
    _land(lake, *records[:13], _poison(make_event, make_record, 13), *records[14:])
    lake.run_silver()

    letters = _letters(lake)
    assert {offset: row["_quality_flags"] for offset, row in letters.items()} == {4: ["SLV-004"], 13: ["SLV-009"]}
    assert b"p13" in letters[13]["_raw_value"]
    assert "p13" not in letters[13]["_error_message"]
    assert {row["_kafka_offset"] for row in lake.rows(SILVER, "_kafka_offset")} == set(range(20)) - {4, 9, 13, 17}
    counts = {"rows_read": 20, "inserted": 16, "duplicate": 1, "dead_lettered": 2, "tombstone": 1}
    assert lake.counts() == counts

    _land(lake, make_record(make_event(event_id="after"), 20, at=datetime(2026, 1, 28, 11, tzinfo=UTC)))
    lake.run_silver()
    assert "after" in {row["event_id"] for row in lake.rows(SILVER, "event_id")}
    versions = [lake.version(table) for table in (SILVER, DLQ)]
    lake.run_silver("g2")  # everything again from a new checkpoint

    assert [lake.version(table) for table in (SILVER, DLQ)] == versions
    assert lake.counts()["dead_lettered"] == 2


@pytest.mark.faults
@pytest.mark.usefixtures("defect")
def test_bounded_replay_sets_the_poison_of_its_range_aside_too(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], tmp_path: Path
) -> None:
    _land(lake, make_record(make_event(), 0), _poison(make_event, make_record, 1), make_record(make_event(event_id="e2"), 2))
    lake.run_silver()
    DeltaTable(lake.path(SILVER)).delete("event_id = 'e2'")
    args = job_parser("").parse_args(["--ending-offsets", '{"0":3}', "--checkpoint-path", str(tmp_path / "r")])

    replay(lake.spark, lake.settings, args, threading.Event())

    assert {row["event_id"] for row in lake.rows(SILVER, "event_id")} == {"e1", "e2"}
    assert {offset: row["_quality_flags"] for offset, row in _letters(lake).items()} == {1: ["SLV-009"]}
    assert lake.counts()["dead_lettered"] == 1


class _Killed(RuntimeError):  # not an error of ours: the power went out
    pass


@pytest.mark.parametrize("dies", [pytest.param(False, marks=pytest.mark.faults), True])
def test_poison_that_shows_after_a_part_was_written_is_counted_once(
    dies: bool, lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, record = transforms.build_silver_rows, Ledger.record
    power: list[bool] = []

    def build(parsed: DataFrame, *args: Any, **options: Any) -> DataFrame:
        topic = F.col("_kafka_topic")
        failing = F.when(F.col("_kafka_offset") == 2, F.raise_error("x")).otherwise(topic)
        return whole(parsed.withColumn("_kafka_topic", failing), *args, **options)

    def cut(ledger: Ledger, row: BatchRow) -> None:
        if dies and not power:
            power.append(False)
            raise _Killed
        record(ledger, row)

    monkeypatch.setattr(writer, "build_silver_rows", build)
    monkeypatch.setattr(Ledger, "record", cut)
    records = [make_record(make_event(event_id=f"e{n}"), n) for n in range(4)]
    _land(lake, *records, make_record(b"{", 4), make_record(None, 5))
    if dies:
        with pytest.raises(StreamingQueryException):
            lake.run_silver()
    lake.run_silver()

    assert sorted(row["_kafka_offset"] for row in lake.rows(SILVER, "_kafka_offset")) == [0, 1, 3]
    assert {offset: row["_quality_flags"] for offset, row in _letters(lake).items()} == {2: ["SLV-009"], 4: ["SLV-004"]}
    assert lake.counts() == {"rows_read": 6, "inserted": 3, "dead_lettered": 2, "tombstone": 1}


@pytest.mark.usefixtures("defect")
def test_too_much_poison_stops_the_stream_and_writes_nothing(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    lake.changes["retries.max_poison_records"] = 1
    good = [make_record(make_event(event_id=f"e{n}"), n) for n in range(4)]
    _land(lake, *good, *(_poison(make_event, make_record, offset) for offset in (4, 5)))

    with pytest.raises(StreamingQueryException) as caught:
        lake.run_silver()

    named = own_error(str(caught.value))
    assert isinstance(named, PoisonBatchError)
    assert (lake.rows(SILVER), _letters(lake)) == ([], {})
    assert not [path for path in Path(lake.settings.lake.checkpoints).glob("silver/g1/commits/*") if path.name.isdigit()]
