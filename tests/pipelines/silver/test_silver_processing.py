"""The Silver job on real Delta tables without Kafka: each Bronze record ends with one fate, however batches are cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.errors import StreamingQueryException

from pipelines.lake import failpoints
from pipelines.lake.errors import CheckpointError, TransientError, UsageError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.lease.leases import lease_of
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.tables import BRONZE, DLQ, LEDGER, SILVER
from pipelines.runtime import delta
from pipelines.silver import assembly, replacing, silver_processing, transforms, writer
from pipelines.silver.schema import silver_table

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
WHEN = ("_processed_at", "_dead_lettered_at", "_last_attempt_at")


def _minute(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _survivors(lake: Lake) -> dict[str, tuple[int, int]]:
    rows = lake.rows(SILVER, "event_id", "_kafka_partition", "_kafka_offset")
    assert len({row["event_id"] for row in rows}) == len(rows)
    return {row["event_id"]: (row["_kafka_partition"], row["_kafka_offset"]) for row in rows}


def _content(lake: Lake) -> list[list[Row]]:
    return [lake.rows(table, without=WHEN) for table in (SILVER, DLQ)]


def test_every_record_has_one_fate_and_a_replay_changes_nothing(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    lake.append(
        make_record(make_event(), 0),
        make_record(make_event(), 1),
        make_record(None, 2),
        make_record(b"{", 3),
        make_record(make_event(event_id="e2", event_timestamp=_instant(T0 - timedelta(days=40))), 4),
    )
    lake.run_silver()
    lake.append(
        make_record(make_event(), 5, at=_minute(2)),
        make_record(make_event(status_code=500), 6, at=_minute(2)),
        make_record(b"{", 7, at=_minute(2)),
        make_record(make_event(event_id="e2", event_timestamp=_instant(T0 - timedelta(days=40))), 8, at=_minute(2)),
        make_record(make_event(event_id="e3"), 0, partition=1, at=_minute(2)),
    )
    lake.run_silver()

    assert _survivors(lake) == {"e1": (0, 0), "e2": (0, 4), "e3": (1, 0)}
    assert sorted(row["_kafka_offset"] for row in lake.rows(DLQ)) == [3, 7]
    late = {"rows_read": 10, "inserted": 3, "duplicate": 4, "conflict": 1, "dead_lettered": 2, "tombstone": 1, "late": 1}
    assert lake.counts() == late

    content, versions = _content(lake), [lake.version(table) for table in (SILVER, DLQ)]
    lake.run_silver("g2")

    assert _content(lake) == content
    assert [lake.version(table) for table in (SILVER, DLQ)] == versions
    assert lake.counts() == {**late, "rows_read": 20, "already_present": 10}


@pytest.mark.parametrize("few", [replacing.FEW, pytest.param(0, marks=pytest.mark.faults)], ids=["here", "by Spark"])
def test_earlier_copy_that_comes_later_takes_the_place_once(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(replacing, "FEW", few)
    lake.append(
        make_record(make_event(status_code=500), 5, at=_minute(5)),
        make_record(make_event(event_id="e2"), 6, at=_minute(5)),
    )
    lake.run_silver()
    # A column that somebody added is in nobody's way.
    lake.spark.sql(f"ALTER TABLE delta.`{lake.path(SILVER)}` ADD COLUMNS (noted_by string)")
    lake.append(
        make_record(make_event(), 1, partition=1, at=_minute(1)),
        make_record(make_event(event_id="e2"), 2, partition=1, at=_minute(6)),
        make_record(make_event(), 3, partition=1, at=_minute(3)),
    )
    lake.run_silver()

    assert _survivors(lake) == {"e1": (1, 1), "e2": (0, 6)}
    assert {row["event_id"]: row["status_code"] for row in lake.rows(SILVER)} == {"e1": 200, "e2": 200}
    assert lake.counts() == {"rows_read": 5, "inserted": 2, "replaced": 1, "duplicate": 2, "conflict": 1}
    version, content = lake.version(SILVER), _content(lake)
    lake.run_silver("g2")

    assert _content(lake) == content
    assert lake.version(SILVER) == version


def test_late_event_behind_the_watermark_is_kept_and_flagged(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    day = timedelta(days=1)
    for offset in range(3):
        at = T0 + offset * day
        lake.append(make_record(make_event(event_id=f"now-{offset}", event_timestamp=_instant(at)), 2 * offset, at=at))
        lake.run_silver()
    lake.append(make_record(make_event(event_id="late", event_timestamp=_instant(T0 - 3 * day)), 6, at=T0 + 2 * day))
    lake.run_silver()

    assert {row["event_id"]: row["_is_late_arriving"] for row in lake.rows(SILVER)} == {
        "now-0": False,
        "now-1": False,
        "now-2": False,
        "late": True,
    }


def test_new_schema_version_adds_its_column_and_keeps_old_rows(
    lake: Lake, tmp_path: Path, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    lake.append(make_record(make_event(), 0))
    lake.run_silver()
    first = json.loads((Path("conf/schemas/api_usage_events/1.0.json")).read_text(encoding="utf-8"))
    second = {**first, "version": "1.1", "fields": [*first["fields"]]}
    second["fields"].append({"name": "cached", "type": "boolean", "required": False, "doc": "Served from a cache."})
    folder = tmp_path / "schemas"
    folder.mkdir()
    for schema in (first, second):
        (folder / f"{schema['version']}.json").write_text(json.dumps(schema), encoding="utf-8")
    before = lake.rows(SILVER)
    delta.ensure_columns(lake.spark, silver_table(read_schemas(folder)), lake.path(SILVER))
    table = lake.spark.read.format("delta").load(lake.path(SILVER))

    assert table.dtypes[-1] == ("cached", "boolean")
    assert [row["cached"] for row in table.collect()] == [None]
    assert lake.rows(SILVER, *before[0]) == before
    version = lake.version(SILVER)
    delta.ensure_columns(lake.spark, silver_table(read_schemas(folder)), lake.path(SILVER))
    assert lake.version(SILVER) == version


class _Killed(RuntimeError):  # not an error of ours: the power went out
    pass


class _DiesOnce(Ledger):
    """A ledger whose first record never comes: the process died after the tables were written."""

    died = False

    def record(self, row: BatchRow) -> None:
        if not type(self).died:
            type(self).died = True
            raise _Killed
        super().record(row)


def test_batch_that_died_before_its_ledger_row_keeps_its_counts(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append(
        make_record(make_event(), 0),
        make_record(make_event(), 1),
        make_record(b"{", 2),
        make_record(None, 3),
        make_record(make_event(event_id="e2"), 4),
    )
    monkeypatch.setattr(_DiesOnce, "died", False)
    monkeypatch.setattr(assembly, "Ledger", _DiesOnce)
    with pytest.raises(StreamingQueryException):
        lake.run_silver()
    assert not Path(lake.path(LEDGER)).exists()
    content, versions = _content(lake), [lake.version(table) for table in (SILVER, DLQ)]
    lake.run_silver()

    assert _content(lake) == content
    assert [lake.version(table) for table in (SILVER, DLQ)] == versions
    assert lake.counts() == {"rows_read": 5, "inserted": 2, "duplicate": 1, "dead_lettered": 1, "tombstone": 1}
    lake.run_silver()

    assert len(lake.rows(LEDGER)) == 1
    assert [lake.version(table) for table in (SILVER, DLQ)] == versions


def test_batch_that_died_between_its_tables_writes_the_rest(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append(make_record(make_event(), 0), make_record(b"{", 1), make_record(make_event(), 2))
    whole = transforms.build_dead_letters

    def die(*_args: Any, **_options: Any) -> None:
        raise _Killed

    monkeypatch.setattr(writer, "build_dead_letters", die)
    with pytest.raises(StreamingQueryException):
        lake.run_silver()
    assert (len(lake.rows(SILVER)), len(lake.rows(DLQ))) == (1, 0)
    monkeypatch.setattr(writer, "build_dead_letters", whole)
    lake.run_silver()

    assert (len(lake.rows(SILVER)), len(lake.rows(DLQ))) == (1, 1)
    assert lake.counts() == {"rows_read": 3, "inserted": 1, "duplicate": 1, "dead_lettered": 1}


def test_what_a_batch_left_that_died_is_counted_once_whoever_comes_after_it(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append(make_record(make_event(), 0), make_record(make_event(), 1), make_record(b"{", 2), make_record(None, 3))
    monkeypatch.setattr(_DiesOnce, "died", False)
    monkeypatch.setattr(assembly, "Ledger", _DiesOnce)
    with pytest.raises(StreamingQueryException):
        lake.run_silver("lost")
    content = _content(lake)
    counts = {"inserted": 1, "duplicate": 1, "dead_lettered": 1, "tombstone": 1}

    lake.run_silver("new")
    assert lake.counts() == {**counts, "rows_read": 2 + 4, "already_present": 2}
    lake.run_silver("lost")  # was not lost after all: its batch is read again as well

    assert lake.counts() == {**counts, "rows_read": 2 + 4 + 4, "already_present": 2 + 4}
    assert _content(lake) == content


@pytest.mark.parametrize("after", ["g1", pytest.param("g2", marks=pytest.mark.faults)])
def test_replacement_of_a_batch_that_died_before_its_append_is_counted(
    after: str, lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.append(make_record(make_event(), 5, at=_minute(5)))
    lake.run_silver()
    lake.append(make_record(make_event(), 1, partition=1), make_record(make_event(event_id="e2"), 2, partition=1))

    def die(point: str) -> None:
        if point == "silver.after_replace":
            raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "reach", die)
        with pytest.raises(StreamingQueryException):
            lake.run_silver()
    assert _survivors(lake) == {"e1": (1, 1)}
    lake.run_silver(after)

    assert _survivors(lake) == {"e1": (1, 1), "e2": (1, 2)}
    counts = lake.counts()
    assert (counts["inserted"], counts["replaced"]) == (2, 1)
    assert "duplicate" not in counts


@pytest.mark.faults
def test_order_and_cut_of_batches_do_not_change_silver(
    lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row], tmp_path: Path
) -> None:
    records = [make_record(make_event(event_id=f"e{n % 3}", status_code=200 + n), n, at=_minute(9 - n)) for n in range(6)]
    records += [make_record(make_event(event_id=f"e{n}"), n, partition=1, at=_minute(5)) for n in range(2)]
    other = type(lake)(lake.spark, tmp_path / "other")
    lake.append(*records)
    lake.run_silver()
    other.append(*records[4:])
    other.run_silver()
    other.append(*records[:4])
    other.run_silver()

    assert _content(other) == _content(lake)
    assert _survivors(lake) == {"e0": (1, 0), "e1": (0, 4), "e2": (0, 5)}


def test_missing_bronze_is_one_sentence_and_writes_nothing(lake: Lake) -> None:
    with pytest.raises(UsageError, match=r"No Delta table lies at .*, expected the Bronze table"):
        lake.run_silver()

    assert not Path(lake.settings.lake.root).exists()
    assert not Path(lake.settings.lake.checkpoints).exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"0": 999999999999}', r"gives offset 999999999999 for partition 0, but Bronze holds 1 to 3"),
        ('{"0": 0}', r"gives offset 0 for partition 0, but Bronze holds 1 to 3"),
        ('{"99": 5}', r"names partition 99, but Bronze has 0 only"),
        ('{"bronze_version": 1000000000}', r"gives version 1000000000, but Bronze is at version 1"),
        ('{"bronze_version": true}', r"not understood"),
        ('{"bronze_version": 1, "0": 2}', r"not understood"),
    ],
)
def test_start_that_bronze_does_not_have_is_one_sentence_and_nothing_is_made(
    text: str, sentence: str, lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    for offset in (1, 2):
        lake.append(make_record(make_event(event_id=f"e{offset}"), offset))

    with pytest.raises(UsageError, match=sentence) as caught:
        silver_processing.run(lake.spark, lake.settings, trigger="available-now", starting_offsets=text)

    assert caught.value.exit_code == 2
    assert not Path(lake.path(SILVER)).exists()
    assert not Path(lake.settings.lake.checkpoints).exists()


def test_start_where_there_is_no_bronze_is_one_sentence(lake: Lake) -> None:
    with pytest.raises(UsageError, match="expected the Bronze table"):
        silver_processing.run(lake.spark, lake.settings, starting_offsets='{"0": 0}')
    assert not Path(lake.settings.lake.root).exists()


@pytest.mark.parametrize(("text", "found"), [('{"0": 2}', {"e2"}), ('{"0": 3}', set()), ('{"bronze_version": 1}', {"e2"})])
def test_start_that_bronze_has_is_where_the_stream_begins(
    text: str, found: set[str], lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]
) -> None:
    for offset in (1, 2):
        lake.append(make_record(make_event(event_id=f"e{offset}"), offset))
    query = silver_processing.run(lake.spark, lake.settings, trigger="available-now", starting_offsets=text)
    query.awaitTermination()

    assert set(_survivors(lake)) == found


def test_tables_are_changed_under_the_lease_and_left_alone_without_it(lake: Lake) -> None:
    assembly.ensure_written(lake.spark, lake.settings, read_schemas(lake.settings.schemas_dir), run="start")
    lake.changes["leases.wait_seconds"] = 0.2
    with lease_of(lake.settings, "silver", job="other", run="r").hold():
        assembly.ensure_written(lake.spark, lake.settings, read_schemas(lake.settings.schemas_dir), run="start")
        lake.spark.sql(f"ALTER TABLE delta.`{lake.path(DLQ)}` SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
        lake.spark.sql(f"ALTER TABLE delta.`{lake.path(DLQ)}` DROP COLUMN _reason")
        version = lake.version(DLQ)
        with pytest.raises(TransientError, match="was not free"):
            assembly.ensure_written(lake.spark, lake.settings, read_schemas(lake.settings.schemas_dir), run="start")
    assert lake.version(DLQ) == version
    assembly.ensure_written(lake.spark, lake.settings, read_schemas(lake.settings.schemas_dir), run="start")
    assert lake.version(DLQ) == version + 1


def test_checkpoint_of_gold_is_refused(lake: Lake, make_event: Callable[..., Row], make_record: Callable[..., Row]) -> None:
    lake.append(make_record(make_event(), 0))
    lake.run_silver()
    lake.run_gold()
    gold = f"{lake.settings.lake.checkpoints}/gold/g1"

    with pytest.raises(CheckpointError, match="belongs to job gold, expected silver"):
        silver_processing.run(lake.spark, lake.settings, checkpoint_path=gold, trigger="available-now")
    assert lake.version(BRONZE) == 0
