"""The judge and the ledger row against a model in plain Python: each record gets one fate and is counted once, without Spark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.lake.ledger.attempts import BatchCommit
from pipelines.lake.ledger.ledger import BatchRow
from pipelines.silver.accounting import ledger_row, recovered_row
from pipelines.silver.attempts import Attempt
from pipelines.silver.batch import Batch
from pipelines.silver.facts import REJECTED, TOMBSTONE, VALID, Coverage, Facts, Flags
from pipelines.silver.judge import History, Judged, Known, KnownRejected, LetterStates, judge, sort_batch

settings.register_profile("no-clock", deadline=None, derandomize=True)  # a busy machine is no failure
settings.load_profile("no-clock")

STARTED = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
NOBODY = History(Coverage({}), Coverage({}))
NAMES = tuple(Facts.__dataclass_fields__)


@dataclass(frozen=True)
class Record:
    """A record, or a row of Silver; `letter` is the state of the dead letter at its coordinate, "" where there is none."""

    offset: int
    partition: int = 0
    kafka_ms: int = 1_000_000_000_000
    verdict: int = VALID
    key: int = 1
    payload: int = 0
    letter: str = ""
    event_us: int = 0
    key2: int = 0


def _facts(records: list[Record]) -> Facts:
    return Facts(**{name: np.array([getattr(one, name) for one in records], dtype=np.int64) for name in NAMES})


def _at(records: list[Record]) -> list[tuple[int, int]]:
    return [(one.partition, one.offset) for one in records]


def _places(facts: Facts) -> list[tuple[int, int]]:
    return list(zip(facts.partition.tolist(), facts.offset.tolist(), strict=True))


def _flags(values: list[bool]) -> Flags:
    return np.array(values, dtype=bool)


@dataclass(frozen=True)
class Tables:
    """What the tables and the ledger hold; `rows` at most one for a key, dead letters stand in the records."""

    rows: tuple[Record, ...] = ()
    history: History = NOBODY
    taken_back: Coverage = Coverage({})  # noqa: RUF009  # frozen, and empty

    def known(self, records: list[Record]) -> Known:
        """As `read_known` reads it."""
        valid, rejected = ([one for one in records if one.verdict == verdict] for verdict in (VALID, REJECTED))
        states = LetterStates(*(_flags([one.letter == state for one in valid]) for state in ("open", "discarded")))
        batch = sort_batch(_facts(records), states)
        own, keys = set(_at(list(self.rows))), {one.key for one in rejected}
        return Known(
            batch,
            _facts([row for row in self.rows if row.key in batch.survivors.first.key.tolist()]),
            KnownRejected(
                _flags([bool(one.letter) for one in rejected]),
                _flags([(one.partition, one.offset) in own for one in rejected]),
                _facts([row for row in self.rows if row.key in keys]),
                self.taken_back,
            ),
        )

    def judge(self, records: list[Record], *, corrects: bool = False) -> Judged:
        return judge(self.known(records), self.history, corrects=corrects)

    def count(self, records: list[Record], *, late_after_seconds: int = 60) -> BatchRow:
        batch = Batch(3, STARTED, np.zeros(0, dtype=np.int64))
        return ledger_row(self.judge(records), self.history.covered, batch, "g", late_after_seconds=late_after_seconds)


# Wide, so that records with each mark lie inside and outside.
_RANGE = st.tuples(st.integers(0, 5), st.integers(5, 13))
_RANGES = st.dictionaries(st.integers(0, 1), st.lists(_RANGE, max_size=2).map(tuple), max_size=2)
_RECORD = st.builds(
    Record,
    offset=st.integers(0, 12),
    partition=st.integers(0, 1),
    kafka_ms=st.integers(1_000_000_000_000, 1_000_000_000_002),
    verdict=st.sampled_from([VALID, REJECTED, TOMBSTONE]),
    key=st.integers(0, 4),
    payload=st.integers(0, 1),
    letter=st.sampled_from(["", "", "open", "discarded"]),
)
_RECORDS = st.lists(_RECORD, max_size=25, unique_by=lambda one: (one.partition, one.offset))
_ROWS = st.lists(_RECORD, max_size=4, unique_by=lambda one: one.key).map(tuple)


@st.composite
def _tables(draw: st.DrawFn) -> Tables:
    covered, more = draw(_RANGES), draw(_RANGES)
    tried = {part: [*covered.get(part, ()), *more.get(part, ())] for part in covered.keys() | more.keys()}
    return Tables(draw(_ROWS), History(Coverage(covered), Coverage(tried)), Coverage(draw(_RANGES)))


def _lies_in(coverage: Coverage, one: Record) -> bool:
    return any(start <= one.offset < end for start, end in coverage.ranges.get(one.partition, ()))


@given(records=_RECORDS, tables=_tables(), corrects=st.booleans())
def test_each_record_has_one_fate(records: list[Record], tables: Tables, corrects: bool) -> None:
    judged = tables.judge(records, corrects=corrects)

    fates, batch = judged.fates, judged.batch
    discarded = [one for one in records if one.verdict == VALID and one.letter == "discarded"]
    fated = [
        *(_places(rows) for rows in (fates.insert, fates.replace, fates.copies.records, batch.survivors.copies.records)),
        *(_places(rows) for rows in (batch.rejected, batch.tombstones)),
        _at(discarded),
    ]
    own = {row.key: (row.partition, row.offset) for row in tables.rows}
    present = [
        place
        for place, key in zip(_places(batch.survivors.first), batch.survivors.first.key.tolist(), strict=True)
        if own.get(key) == place
    ]
    assert sorted([place for places in fated for place in places] + present) == sorted(_at(records))
    assert fates.already_present == len(present)
    assert batch.discarded == len(discarded)
    assert _places(batch.reopened) == _at([one for one in records if one.verdict == VALID and one.letter == "open"])


@given(records=_RECORDS, tables=_tables())
def test_rejected_record_becomes_a_dead_letter_unless_it_had_its_fate(records: list[Record], tables: Tables) -> None:
    rows, keys = set(_at(list(tables.rows))), {row.key for row in tables.rows}

    def had_its_fate(one: Record) -> bool:
        if one.letter:
            return True
        was_copy = _lies_in(tables.history.covered, one) and not _lies_in(tables.taken_back, one) and one.key in keys
        return _lies_in(tables.history.tried, one) and (was_copy or (one.partition, one.offset) in rows)

    expected = [one for one in records if one.verdict == REJECTED and not had_its_fate(one)]
    assert _places(tables.judge(records).dead_letters) == _at(expected)


@given(records=_RECORDS, tables=_tables())
def test_row_of_the_ledger_counts_each_record_once(records: list[Record], tables: Tables) -> None:
    row = tables.count(records)

    counted = row.inserted + row.replaced + row.duplicate + row.already_present + row.dead_lettered + row.tombstone
    assert counted == row.rows_read == len(records)
    assert (row.job, row.generation, row.batch_id, row.started_at) == ("silver", "g", 3, STARTED)


@given(records=_RECORDS, tables=_tables())
def test_copies_and_tombstones_of_a_covered_range_are_not_counted_again(records: list[Record], tables: Tables) -> None:
    row, judged = tables.count(records), tables.judge(records)

    covered, opened = tables.history.covered, {(one.partition, one.offset) for one in records if one.letter == "open"}
    by_place = {(one.partition, one.offset): one for one in records}
    copies = [*_places(judged.batch.survivors.copies.records), *_places(judged.fates.copies.records)]
    # An open dead letter was counted as that, not as a copy.
    new = [place for place in copies if place in opened or not _lies_in(covered, by_place[place])]
    assert row.duplicate == len(new)
    assert row.tombstone == sum(one.verdict == TOMBSTONE and not _lies_in(covered, one) for one in records)


def test_rejected_copy_of_a_range_whose_dead_letters_were_taken_back_gets_its_dead_letter_again() -> None:
    covered = Coverage({0: [(0, 5)]})
    tables = Tables((Record(9, key=1),), History(covered, covered))
    copy = Record(2, verdict=REJECTED, key=1)

    assert _places(tables.judge([copy]).dead_letters) == []
    assert _places(replace(tables, taken_back=Coverage({0: [(2, 3)]})).judge([copy]).dead_letters) == [(0, 2)]


def test_open_dead_letter_that_passes_as_a_copy_is_counted_as_one() -> None:
    covered = Coverage({0: [(0, 5)]})
    tables = Tables((Record(0, key=1),), History(covered, covered))
    late = 1_000_000_000_001

    row = tables.count([Record(2, key=1, kafka_ms=late, letter="open"), Record(3, key=1, kafka_ms=late)])

    assert (row.duplicate, row.already_present) == (1, 1)


def _written(judged: Judged, records: list[Record], covered: Coverage) -> tuple[Tables, list[Record]]:
    rows, letters = _places(judged.fates.insert), _places(judged.dead_letters)
    tables = Tables(tuple(one for one in records if (one.partition, one.offset) in rows), History(covered, covered))
    again = [replace(one, letter="open") if (one.partition, one.offset) in letters else one for one in records]
    return tables, again


@given(records=_RECORDS)
def test_batch_that_is_read_again_finds_all_of_itself(records: list[Record]) -> None:
    fresh = [replace(one, letter="") for one in records]
    covered = Coverage({part: [(0, 13)] for part in (0, 1)})
    tables, again = _written(Tables().judge(fresh), fresh, covered)

    row = tables.count(again)

    assert (row.rows_read, row.already_present, row.conflict) == (len(records), len(records), 0)


def test_late_rows_are_counted_where_they_are_written() -> None:
    minute = 60_000
    first = 1_000_000_000_000
    records = [
        Record(0, key=1, kafka_ms=first, event_us=(first - minute) * 1000),
        Record(1, key=2, kafka_ms=first, event_us=(first - minute - 1) * 1000),
        Record(2, key=2, kafka_ms=first + 1, event_us=(first - minute - 1) * 1000),
    ]

    assert Tables().count(records).late == 1
    assert Tables().count(records, late_after_seconds=30).late == 2


def _row(*, inserted: int = 0, duplicate: int = 0, already_present: int = 0, dead_lettered: int = 0) -> BatchRow:
    return BatchRow(
        job="silver",
        generation="g",
        batch_id=3,
        offsets={"0": [0, 9]},
        rows_read=3,
        inserted=inserted,
        duplicate=duplicate,
        already_present=already_present,
        dead_lettered=dead_lettered,
        started_at=STARTED,
    )


def _died(row: BatchRow) -> Attempt:
    return Attempt((BatchCommit(7, is_merge=False, row=row),), ())


def test_row_of_a_batch_that_died_is_that_of_its_first_try() -> None:
    first, again = _row(inserted=2, duplicate=1), _row(already_present=3)

    assert recovered_row(again, _died(first), has_poison=False) == first


def test_row_of_a_batch_with_poison_adds_what_its_first_try_wrote() -> None:
    first = _row(inserted=2, duplicate=1)
    again = _row(already_present=2, dead_lettered=1)

    assert recovered_row(again, _died(first), has_poison=True) == _row(inserted=2, dead_lettered=1)
