"""Batches of Silver's sink that come again, under other rules or as other records: none is skipped, no record has two fates."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.lake.checkpoint.identity import Checkpoint
from pipelines.lake.errors import CheckpointError, DataLossError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.ledger import attempts
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import BRONZE, DLQ, LEDGER, SILVER, TableName
from pipelines.runtime.kafka_columns import with_kafka_ms
from pipelines.silver import assembly, sink, writer

if TYPE_CHECKING:
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
Make = Callable[..., Row]
FIRST: Row = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))


class _Killed(BaseException):
    """No error that can be handled: the power went out."""


def _die(*_args: Any, **_options: Any) -> None:
    raise _Killed


@pytest.fixture
def know(lake: Lake) -> Callable[..., Lake]:
    """Gives the lake in a session whose rules know the named schema versions."""
    folder = lake.folder / "schemas"

    def know(*versions: str) -> Lake:
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        for version in versions:
            (folder / f"{version}.json").write_text(json.dumps({**FIRST, "version": version}), encoding="utf-8")
        session, schemas = lake.spark.newSession(), read_schemas(folder)
        session.conf.set("spark.sql.catalog.events.fields", schemas.ddl())
        session.conf.set("spark.sql.catalog.events.schemas", schemas.rules())
        return type(lake)(session, lake.folder, {"schemas_dir": str(folder)})

    return know


@pytest.fixture
def few_commits(monkeypatch: pytest.MonkeyPatch) -> Callable[[Lake], None]:
    """Puts what was written behind other commits than those that a start looks at."""

    def bury(lake: Lake) -> None:
        monkeypatch.setattr(attempts, "_NEWEST", 1)
        for name in (SILVER, DLQ):
            lake.spark.sql(f"ALTER TABLE delta.`{lake.path(name)}` SET TBLPROPERTIES ('lakehouse.note' = 'buried')")

    return bury


def _sink(lake: Lake, generation: str = "g") -> sink.SilverSink:
    """The sink of a checkpoint, as a start makes it."""
    checkpoint = Checkpoint(
        path="checkpoints/x", generation=generation, job="silver", source="s", target="t", starting="", is_new=False
    )
    schemas = read_schemas(lake.settings.schemas_dir)
    assembly.ensure_written(lake.spark, lake.settings, schemas, run="start")
    versions = {str(name): lake.version(name) for name in (SILVER, DLQ)}
    tables = assembly.Tables(lake.path(BRONZE), lake.path(SILVER), lake.path(DLQ), schemas, versions)
    return assembly.make_sink(lake.settings, tables, checkpoint)


def _run(lake: Lake, batch: int, first: int, end: int, *, generation: str = "g", into: sink.SilverSink | None = None) -> None:
    """Give the records [first, end) to the sink, by default to one that has just started."""
    rows = lake.spark.read.format("delta").load(lake.path(BRONZE)).where(F.col("_kafka_offset").between(first, end - 1))
    (into or _sink(lake, generation))(with_kafka_ms(rows).select(*assembly.RECORD), batch)


def _state(lake: Lake) -> list[int]:
    return [lake.version(name) for name in (SILVER, DLQ, LEDGER)]


def _violated(lake: Lake) -> set[str]:
    return {one.id for one in verify(lake.settings, VerifyOptions()) if one.findings}


def _letters(lake: Lake) -> dict[int, str]:
    return {row["_kafka_offset"]: row["_status"] for row in lake.rows(DLQ)}


def _offsets(lake: Lake) -> list[int]:
    return sorted(row["_kafka_offset"] for row in lake.rows(SILVER))


@pytest.mark.parametrize("again", [pytest.param((1, 2, 9), marks=pytest.mark.faults), (1, 6, 7)])
def test_old_copy_of_a_checkpoint_is_refused_however_long_ago(
    again: tuple[int, int, int], know: Any, few_commits: Any, make_event: Make, make_record: Make
) -> None:
    lake = know("1.0")
    names = ["e0", "e1", "e2", "e3", "e4", "e5", "e0", "e7", "e8"]
    lake.append(*(make_record(make_event(event_id=name), n) for n, name in enumerate(names)))
    for number in range(3):
        _run(lake, number, 2 * number, 2 * number + 2)
    few_commits(lake)
    before = _state(lake)

    with pytest.raises(DataLossError, match=r"old copy.*new checkpoint path"):
        _run(lake, *again)

    assert _state(lake) == before


def test_last_batch_with_other_records_is_refused_however_long_ago(
    know: Any, few_commits: Any, make_event: Make, make_record: Make
) -> None:
    lake = know("1.0")
    lake.append(*(make_record(make_event(event_id=f"e{n}"), n) for n in range(3)))
    _run(lake, 0, 0, 1)
    _run(lake, 1, 1, 2)
    few_commits(lake)
    before = _state(lake)

    with pytest.raises(DataLossError, match=r"Batch 1 .* 1 rows more now: .* an old copy; .* start with a new checkpoint path"):
        _run(lake, 1, 1, 3)

    assert _state(lake) == before


def test_batch_that_runs_again_unchanged_is_lawful_however_long_ago(
    know: Any, few_commits: Any, make_event: Make, make_record: Make
) -> None:
    lake = know("1.0")
    lake.append(make_record(make_event(), 0), make_record(make_event(), 1), make_record(b"{", 2), make_record(None, 3))
    _run(lake, 0, 0, 4)
    few_commits(lake)
    before, counts = _state(lake), lake.counts()
    _run(lake, 0, 0, 4)

    assert (_state(lake), lake.counts()) == (before, counts)


def test_rows_that_delta_would_skip_in_a_later_batch_are_an_error(know: Any, make_event: Make, make_record: Make) -> None:
    lake = know("1.0")
    lake.append(*(make_record(make_event(event_id=f"e{n}"), n) for n in range(3)))
    running = _sink(lake)
    _run(lake, 0, 0, 1, into=running)
    _run(lake, 1, 1, 2)  # somebody else with the same checkpoint, which no lock kept out

    with pytest.raises(DataLossError, match=r"was written to silver\.api_usage_events before, yet it has 1 rows more now"):
        _run(lake, 1, 2, 3, into=running)
    assert _offsets(lake) == [0, 1]


def test_dead_letters_that_a_lost_schema_file_adds_to_a_died_batch_are_not_skipped(
    know: Any, make_event: Make, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = know("1.0", "1.1")
    lake.append(
        make_record(make_event(event_id="e0"), 0),
        make_record(make_event(event_id="e1", schema_version="1.1"), 1),
        make_record(b"{", 2),
    )
    with monkeypatch.context() as patch:
        patch.setattr(writer, "build_silver_rows", _die)
        with pytest.raises(_Killed):
            _run(lake, 0, 0, 3)
    assert (_letters(lake), _offsets(lake)) == ({2: "open"}, [])

    stricter = know("1.0")
    with pytest.raises(DataLossError, match=r"was written to bronze\.api_usage_events_dlq before, yet it has 1 rows more now"):
        _run(stricter, 0, 0, 3)
    assert (_letters(lake), _offsets(lake)) == ({2: "open"}, [])
    _run(know("1.0", "1.1"), 0, 0, 3)

    assert (_letters(lake), _offsets(lake)) == ({2: "open"}, [0, 1])
    assert lake.counts() == {"rows_read": 3, "inserted": 2, "dead_lettered": 1}


def test_letter_that_passes_now_stays_open_where_delta_would_skip_its_row(
    know: Any, few_commits: Any, make_event: Make, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = know("1.0")
    lake.append(make_record(make_event(event_id="e0"), 0), make_record(make_event(event_id="e1", schema_version="1.1"), 1))
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", _die)
        with pytest.raises(_Killed):
            _run(lake, 0, 0, 2, generation="replay")
    few_commits(lake)

    with pytest.raises(DataLossError, match=r"put files and settings back until .* or start with a new"):
        _run(know("1.0", "1.1"), 0, 0, 2, generation="replay")

    assert (_letters(lake), _offsets(lake)) == ({1: "open"}, [0])


def _read_with_both_versions(lake: Lake, make_event: Make, make_record: Make) -> None:
    new = make_event(event_id="e1", schema_version="1.1")
    lake.append(
        make_record(make_event(event_id="e0"), 0),
        make_record(new, 1),
        make_record(new, 2),
        make_record(b"{", 3),
        make_record(None, 4),
    )
    Ledger(lake.settings).record(BatchRow("bronze", "b", 0, {"0": [0, 5]}, rows_read=5, inserted=5))


def test_replay_under_stricter_rules_gives_no_second_fate(know: Any, make_event: Make, make_record: Make) -> None:
    lake = know("1.0", "1.1")
    _read_with_both_versions(lake, make_event, make_record)
    _run(lake, 0, 0, 5)
    before, counts = [lake.version(name) for name in (SILVER, DLQ)], lake.counts()
    assert counts == {"rows_read": 5, "inserted": 2, "duplicate": 1, "dead_lettered": 1, "tombstone": 1}

    stricter = know("1.0")
    _run(stricter, 0, 0, 5, generation="r1")
    stricter.run_gold()

    assert [lake.version(name) for name in (SILVER, DLQ)] == before
    assert lake.counts() == {**counts, "rows_read": 10, "already_present": 5}
    # By the stricter rules these rows should be no rows, and that is all; it is over when the schema file is back.
    assert _violated(stricter) == {"I13"}
    assert _violated(know("1.0", "1.1")) == set()
    stricter = know("1.0")
    # A letter that was lost is no reason: its record gets it again.
    DeltaTable(lake.path(DLQ)).delete()
    _run(stricter, 0, 0, 5, generation="r2")
    assert _letters(lake) == {3: "open"}


def test_row_of_a_batch_that_died_gets_no_dead_letter_under_stricter_rules(
    know: Any, make_event: Make, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = know("1.0", "1.1")
    _read_with_both_versions(lake, make_event, make_record)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", _die)
        with pytest.raises(_Killed):
            _run(lake, 0, 0, 5)
    _run(know("1.0"), 0, 0, 2, generation="other")

    assert (_letters(lake), _offsets(lake)) == ({3: "open"}, [0, 1])


@pytest.mark.parametrize(
    ("begun", "name"),
    [
        pytest.param(True, SILVER, id="running: silver"),
        pytest.param(True, DLQ, id="running: dead letters", marks=pytest.mark.faults),
        pytest.param(False, SILVER, id="before its first batch: silver", marks=pytest.mark.faults),
        pytest.param(False, DLQ, id="before its first batch: dead letters"),
    ],
)
def test_restore_beside_a_run_stops_it(begun: bool, name: TableName, know: Any, make_event: Make, make_record: Make) -> None:
    lake = know("1.0")
    records = [(make_record(make_event(event_id=f"e{n}"), 2 * n), make_record(b"{", 2 * n + 1)) for n in range(4)]
    lake.append(*(record for pair in records for record in pair))
    _run(lake, 0, 0, 2)
    running = _sink(lake)
    if begun:
        for number in (1, 2):
            _run(lake, number, 2 * number, 2 * number + 2, into=running)
    table = DeltaTable(lake.path(name))
    table.restore(table.version() - 1)
    before = _state(lake)

    with pytest.raises(CheckpointError, match=f"The table {name} was restored to an older version"):
        _run(lake, 3, 6, 8, into=running)

    assert _state(lake) == before
