"""Dead letters from an unknown schema version to Gold: replayed once, however often it is tried and wherever it dies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import DeltaTable

from lakehouse.operations.dead_letters.decide import discard
from lakehouse.operations.dead_letters.filters import LetterFilter
from lakehouse.operations.dead_letters.run_replay import run_replay
from lakehouse.proof.checks import choose_checks, load_checks, run_checks
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.archive import records as archived
from pipelines.lake.errors import UsageError
from pipelines.lake.ledger.ledger import BatchRow, Ledger
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import DLQ, LEDGER, SILVER
from pipelines.runtime import delta
from pipelines.silver import writer
from pipelines.silver.dead_letters import letter_replay

if TYPE_CHECKING:
    from tests.conftest import Copy
    from tests.pipelines.conftest import Lake

Row = dict[str, Any]
Make = Callable[..., Row]
T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
FIRST: Row = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
CACHED = {"name": "cached", "type": "boolean", "required": False, "doc": "Served from a cache."}
CHECKS = (
    "conservation two_fates orphan_dead_letters dead_letter_duplicates ledger_totals ledger_equation silver_duplicates "
    "silver_without_bronze late_flag gold_hourly_vs_silver gold_daily_vs_silver gold_daily_vs_hourly"
).split()
WHEN = ("_processed_at", "_dead_lettered_at", "_last_attempt_at", "_closed_at", "_replay_id")
ALL = LetterFilter()


def _schemas(folder: Path, *versions: str) -> str:
    folder.mkdir(exist_ok=True)
    for version in versions:
        fields = FIRST["fields"] if version == "1.0" else [*FIRST["fields"], CACHED]
        text = json.dumps({**FIRST, "version": version, "fields": fields})
        (folder / f"{version}.json").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture
def old(lake: Lake, made_once: Copy, make_event: Make, make_record: Make) -> Lake:
    """A lake that has read events of versions 1.1 and 1.2, but knows 1.0 only: seven dead letters."""

    def make(folder: Path) -> None:
        _make(type(lake)(lake.spark, folder, {"schemas_dir": _schemas(folder / "schemas", "1.0")}), make_event, make_record)

    made_once(lake.folder, make)
    lake.changes = {"schemas_dir": str(lake.folder / "schemas")}
    return lake


def _make(lake: Lake, make_event: Make, make_record: Make) -> None:
    new: Row = {"schema_version": "1.1", "cached": True}
    early, late = T0 + timedelta(seconds=30), T0 + timedelta(minutes=5)
    records = [
        make_record(make_event(), 0),
        make_record(make_event(event_id="e2", **new), 1),
        make_record(make_event(event_id="e3", customer_id="cust-3", **new), 2),
        make_record(make_event(event_id="e2", **new), 3, at=late),
        make_record(b"{", 4),
        # A copy of e1 that came to Kafka before it: its row is to be taken over.
        make_record(make_event(**new), 5, at=early),
        make_record(make_event(event_id="e6", schema_version="1.2"), 6),
        make_record(None, 7),
        make_record(make_event(event_id="e8", status_code=99, **new), 8),
    ]
    lake.append(*records)
    Ledger(lake.settings).record(BatchRow("bronze", "b", 0, {"0": [0, 9]}, rows_read=9, inserted=9))
    lake.run_silver()
    lake.run_gold()


@pytest.fixture
def new(old: Lake) -> Lake:
    """The same lake after the file of version 1.1 was added, in a session that has read it."""
    session = old.spark.newSession()
    changed = type(old)(session, old.folder, {"schemas_dir": _schemas(old.folder / "schemas", "1.0", "1.1")})
    from pipelines.lake.event_schema import read_schemas  # noqa: PLC0415

    schemas = read_schemas(changed.settings.schemas_dir)
    session.conf.set("spark.sql.catalog.events.fields", schemas.ddl())
    session.conf.set("spark.sql.catalog.events.schemas", schemas.rules())
    return changed


def _replay(lake: Lake, chosen: LetterFilter = ALL, *, force: bool = False, dry_run: bool = False) -> Row:
    return run_replay(lake.settings, chosen, force=force, dry_run=dry_run, say=lambda _: None, spark=lake.spark)


def _letters(lake: Lake) -> dict[int, tuple[str, int]]:
    return {row["_kafka_offset"]: (row["_status"], row["_attempts"]) for row in lake.rows(DLQ)}


def _events(lake: Lake) -> dict[str, tuple[int, bool | None]]:
    return {row["event_id"]: (row["_kafka_offset"], row.get("cached")) for row in lake.rows(SILVER)}


def _content(lake: Lake) -> list[Any]:
    return [lake.rows(SILVER, without=WHEN), lake.rows(DLQ, without=WHEN)]


def _violated(lake: Lake) -> dict[str, Any]:
    """Everything that verify finds wrong."""
    return {one.id: one.findings for one in verify(lake.settings, VerifyOptions()) if one.findings}


def _red(lake: Lake) -> dict[str, Any]:
    """Everything that verify and the SQL checks find wrong."""
    found = _violated(lake)
    spark = lake.spark
    archived.ensure(lake.settings)  # as Bronze's job does
    try:
        delta.register_tables(spark, lake.settings)
        results = run_checks(spark, choose_checks(load_checks(), CHECKS))
    finally:
        for layer in ("bronze", "silver", "gold", "ops"):
            spark.sql(f"DROP DATABASE IF EXISTS {layer} CASCADE")
    return {**found, **{one.check.id: one.first or one.reason for one in results if one.outcome != "passed"}}


AFTER = {
    1: ("replayed", 2),
    2: ("replayed", 2),
    3: ("replayed", 2),
    4: ("open", 2),
    5: ("replayed", 2),
    6: ("open", 2),
    8: ("open", 2),
}
EVENTS = {"e1": (5, True), "e2": (1, True), "e3": (2, True)}
COUNTS = {
    "rows_read": 16,
    "inserted": 3,
    "replaced": 1,
    "duplicate": 1,
    "conflict": 1,  # e1 in version 1.1 says that it was cached
    "already_present": 3,
    "dead_lettered": 7,
    "tombstone": 1,
}


def test_new_schema_file_and_a_replay_make_events_of_dead_letters(old: Lake, new: Lake) -> None:
    assert _letters(old) == dict.fromkeys((1, 2, 3, 4, 5, 6, 8), ("open", 1))
    versions = [new.version(table) for table in (SILVER, DLQ, LEDGER)]

    trial = _replay(new, LetterFilter(rules=("SLV-005",)), dry_run=True)

    assert (trial["selected"], trial["would_pass"]) == (6, 4)
    assert [new.version(table) for table in (SILVER, DLQ, LEDGER)] == versions

    done = _replay(new)
    new.run_gold()

    assert (done["replayed"], done["left_open"]) == (4, 3)
    assert _letters(new) == AFTER
    assert _events(new) == EVENTS
    rows = {row["_kafka_offset"]: row for row in new.rows(DLQ)}
    assert rows[8]["_quality_flags"] == ["SLV-008"]
    assert "schema_not_found" not in rows[8]["_error_message"]
    assert rows[1]["_quality_flags"] == ["SLV-005"]
    assert rows[1]["_closed_at"] is not None
    assert {row["_replay_id"] for row in rows.values()} == {done["replay_id"]}
    assert all(row["_raw_value"] for row in rows.values())
    assert new.counts() == COUNTS
    assert _red(new) == {}


def test_second_replay_and_a_fresh_checkpoint_change_nothing(new: Lake) -> None:
    _replay(new)
    silver, content = new.version(SILVER), new.rows(SILVER)
    again = _replay(new)

    assert (again["selected"], again["replayed"], again["left_open"]) == (3, 0, 3)
    assert (new.version(SILVER), new.rows(SILVER)) == (silver, content)
    letters = new.rows(DLQ)
    new.run_silver("g2")
    new.run_gold()

    assert (new.version(SILVER), new.rows(SILVER), new.rows(DLQ)) == (silver, content, letters)
    assert _violated(new) == {}


class _Killed(BaseException):
    """No error that can be handled: the power went out."""


_LONG = [pytest.param(step, marks=pytest.mark.faults) for step in ("claimed", "recorded", "closed")]


@pytest.fixture(params=["written", *_LONG])
def dying(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes the next replay die after one of its durable steps; the call brings the power back."""

    def die(*_args: Any, **_options: Any) -> None:
        raise _Killed

    target: tuple[Any, str] = {
        "claimed": (writer.SilverWriter, "write"),
        "written": (Ledger, "record"),
        "recorded": (writer, "close_replayed"),
        "closed": (letter_replay, "leave_open"),
    }[request.param]
    with monkeypatch.context() as patched:
        patched.setattr(*target, die)
        yield patched.undo


def test_replay_that_died_is_completed_by_the_next(new: Lake, dying: Callable[[], None]) -> None:
    with suppress(_Killed):
        _replay(new)
        pytest.fail("the replay did not die")
    with pytest.raises(UsageError, match="belong to a replay that has not finished"):
        _discard(new, LetterFilter(offsets=(4, 4)))
    dying()
    _replay(new)
    new.run_gold()

    assert _letters(new) == AFTER
    assert _events(new) == EVENTS
    assert new.counts() == COUNTS
    assert _violated(new) == {}


def test_replay_that_fails_lets_its_letters_go(new: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise ArithmeticError

    silver, counts = new.rows(SILVER, "event_id"), new.counts()
    with monkeypatch.context() as patched:
        patched.setattr(writer, "build_silver_rows", fail)
        with pytest.raises(ArithmeticError):
            _replay(new)

    assert _letters(new) == dict.fromkeys(_letters(new), ("open", 2))
    # Not its version: the new schema's columns are added before anything is tried.
    assert (new.rows(SILVER, "event_id"), new.counts()) == (silver, counts)
    assert _discard(new, LetterFilter(offsets=(4, 4))) == 1
    assert _replay(new)["replayed"] == 4
    assert _events(new) == EVENTS


def _discard(lake: Lake, chosen: LetterFilter) -> int:
    from lakehouse.operations.dead_letters.decide import select_for_discard  # noqa: PLC0415

    table = DeltaTable(lake.path(DLQ))
    select_for_discard(table, chosen)
    return discard(table, chosen, "the producer's test run; it's not billed")


@pytest.mark.faults
def test_fresh_checkpoint_takes_open_letters_that_pass_and_leaves_discarded_ones(new: Lake) -> None:
    assert _discard(new, LetterFilter(offsets=(2, 2))) == 1
    new.run_silver("g2")
    new.run_gold()

    assert _events(new) == {"e1": (5, True), "e2": (1, True)}
    assert _letters(new) == {
        1: ("replayed", 2),
        2: ("discarded", 1),
        3: ("replayed", 2),
        4: ("open", 1),
        5: ("replayed", 2),
        6: ("open", 1),
        8: ("open", 1),
    }
    assert _red(new) == {}
    content = _content(new)
    new.run_silver("g3")
    assert _content(new) == content
    assert _violated(new) == {}


def test_replay_takes_what_was_asked_for_and_not_tried_too_often(new: Lake) -> None:
    assert _discard(new, LetterFilter(rules=("SLV-004",))) == 1
    with pytest.raises(UsageError, match="are discarded and cannot be replayed"):
        _replay(new, LetterFilter(offsets=(4, 4)))
    with pytest.raises(UsageError, match="status discarded were asked for"):
        _replay(new, LetterFilter(status="discarded"))
    new.changes["dlq.max_attempts"] = 2
    assert _replay(new, LetterFilter(offsets=(2, 6)))["replayed"] == 3
    nothing = _replay(new, LetterFilter(offsets=(2, 6)))
    assert (nothing["selected"], nothing["left_out"]) == (0, 1)
    assert "replay_id" not in nothing
    assert _replay(new, LetterFilter(offsets=(2, 6)), force=True)["left_open"] == 1
    assert _letters(new)[6] == ("open", 3)


@pytest.mark.faults
def test_many_letters_are_several_batches_of_one_replay(new: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_replay, "LETTERS_IN_ONE_BATCH", 3)
    done = _replay(new)
    new.run_gold()

    assert (done["replayed"], done["left_open"]) == (4, 3)
    generations = {row["generation"] for row in new.rows(LEDGER, "generation") if row["generation"].startswith("replay-")}
    assert generations == {f"{done['replay_id']}.{number}" for number in range(3)}
    assert _letters(new) == AFTER
    assert _events(new) == EVENTS
    assert _violated(new) == {}


@pytest.mark.faults
def test_letter_marked_replayed_that_is_nowhere_is_found(new: Lake) -> None:
    _replay(new)
    new.run_gold()
    DeltaTable(new.path(DLQ)).update(updates={"_status": "'replayed'"}, predicate="_kafka_offset = 8")

    assert {"I3", "I13", "conservation"} & set(_red(new)) == {"I3", "I13", "conservation"}


def test_table_of_an_earlier_version_gets_its_columns(new: Lake) -> None:
    names = [name for name in DeltaTable(new.path(DLQ)).to_pyarrow_table().column_names if name not in WHEN[2:4]]
    rows = DeltaTable(new.path(DLQ)).to_pyarrow_table(columns=[name for name in names if name != "_reason"])
    from deltalake import write_deltalake  # noqa: PLC0415

    write_deltalake(new.path(DLQ), rows, mode="overwrite", schema_mode="overwrite")

    assert _replay(new)["replayed"] == 4
    assert _letters(new) == AFTER
