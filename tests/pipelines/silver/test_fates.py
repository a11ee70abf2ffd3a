"""Fates against a model in plain Python: the first copy by (Kafka timestamp, partition, offset) stays, whatever came when."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.silver.facts import Coverage, Facts
from pipelines.silver.judge import decide, split_batch

settings.register_profile("no-clock", deadline=None, derandomize=True)  # a busy machine is no failure
settings.load_profile("no-clock")


@dataclass(frozen=True, order=True)
class Copy:
    """A record: ordered as copies are."""

    kafka_ms: int
    partition: int
    offset: int
    key: int
    key2: int
    payload: int

    @property
    def id(self) -> tuple[int, int]:
        return self.key, self.key2


# Few values each, so that ids meet, halves of ids meet, and times tie. The ends of 64 bits are among them.
_KEYS = st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1])
_COPIES = st.lists(
    st.builds(
        Copy,
        kafka_ms=st.integers(0, 3),
        partition=st.integers(0, 2),
        offset=st.integers(0, 50),
        key=_KEYS,
        key2=_KEYS,
        payload=st.integers(0, 1),
    ),
    max_size=40,
    unique_by=lambda copy: (copy.partition, copy.offset),
)


def _facts(copies: list[Copy]) -> Facts:
    names = ("partition", "offset", "kafka_ms", "key", "key2", "payload")
    columns = {name: np.array([getattr(copy, name) for copy in copies], dtype=np.int64) for name in names}
    zeros = np.zeros(len(copies), dtype=np.int64)
    return Facts(event_us=zeros, verdict=zeros, **columns)


def _copies(facts: Facts) -> list[Copy]:
    columns = [getattr(facts, name).tolist() for name in Copy.__dataclass_fields__]
    return [Copy(*row) for row in zip(*columns, strict=True)]


def _first(copies: list[Copy]) -> dict[tuple[int, int], Copy]:
    first: dict[tuple[int, int], Copy] = {}
    for copy in sorted(copies):
        first.setdefault(copy.id, copy)
    return first


def _in_batches(copies: list[Copy], cuts: list[int]) -> tuple[list[Copy], dict[str, int]]:
    """The rows and counts after the copies came in batches; the table is a list of rows."""
    table: list[Copy] = []
    counts: dict[str, int] = defaultdict(int)
    ends = sorted({0, len(copies), *(cut % (len(copies) + 1) for cut in cuts)})
    for low, high in pairwise(ends):
        batch = split_batch(_facts(copies[low:high]))
        fates = decide(batch.first, _facts(table))
        replaced = {copy.id for copy in _copies(fates.replace)}
        table = [row for row in table if row.id not in replaced] + _copies(fates.replace) + _copies(fates.insert)
        counts["inserted"] += len(fates.insert)
        counts["duplicate"] += len(batch.copies.records) + len(fates.copies.records)
        counts["replaced"] += len(fates.replace)
        counts["already_present"] += fates.already_present
    return table, counts


@given(_COPIES)
def test_first_copies_of_a_batch_are_those_of_the_model(copies: list[Copy]) -> None:
    split = split_batch(_facts(copies))
    model = _first(copies)

    assert sorted(_copies(split.first)) == sorted(model.values())
    assert sorted(_copies(split.copies.records)) == sorted(set(copies) - set(model.values()))
    conflicts = [copy.payload != model[copy.id].payload for copy in _copies(split.copies.records)]
    assert split.copies.conflict.tolist() == conflicts


@given(_COPIES, _COPIES)
def test_each_first_copy_meets_the_row_of_its_whole_id(copies: list[Copy], rows: list[Copy]) -> None:
    first, table = _first(copies), _first(rows)
    fates = decide(_facts(list(first.values())), _facts(list(table.values())))
    known = [(copy, table[copy.id]) for copy in first.values() if copy.id in table]
    own = [copy for copy, row in known if (copy.partition, copy.offset) == (row.partition, row.offset)]
    rivals = [(copy, row) for copy, row in known if copy not in own]

    assert sorted(_copies(fates.insert)) == sorted(copy for copy in first.values() if copy.id not in table)
    assert sorted(_copies(fates.replace)) == sorted(copy for copy, row in rivals if copy < row)
    later = {copy: copy.payload != row.payload for copy, row in rivals if copy > row}
    assert dict(zip(_copies(fates.copies.records), fates.copies.conflict.tolist(), strict=True)) == later
    assert fates.replace_conflicts == sum(copy.payload != row.payload for copy, row in rivals if copy < row)
    assert fates.already_present == len(own)


@given(_COPIES, st.randoms(use_true_random=False), st.lists(st.integers(0, 100), max_size=4))
def test_survivors_do_not_depend_on_order_or_batches(copies: list[Copy], random: np.random.Generator, cuts: list[int]) -> None:
    shuffled = list(copies)
    random.shuffle(shuffled)
    table, counts = _in_batches(shuffled, cuts)

    assert sorted(table) == sorted(_first(copies).values())
    assert counts["inserted"] + counts["duplicate"] + counts["replaced"] == len(copies)
    assert counts["already_present"] == 0


@given(_COPIES, st.lists(st.integers(0, 100), max_size=4))
def test_second_delivery_changes_no_row(copies: list[Copy], cuts: list[int]) -> None:
    table, counts = _in_batches(copies * 2, [len(copies), *cuts]) if copies else ([], {})

    assert sorted(table) == sorted(_first(copies).values())
    assert not copies or counts["inserted"] == len(table)


def test_ids_that_share_64_bits_are_two() -> None:
    one, two = Copy(0, 0, 0, key=7, key2=1, payload=0), Copy(1, 0, 1, key=7, key2=2, payload=0)
    third = Copy(2, 0, 2, key=7, key2=3, payload=0)

    assert len(split_batch(_facts([one, two])).first) == 2
    fates = decide(_facts([third]), _facts([two, one]))
    assert (len(fates.insert), len(fates.copies.records)) == (1, 0)


def test_empty_batch_and_empty_table_are_fine() -> None:
    copy = Copy(0, 0, 0, key=1, key2=1, payload=0)

    assert len(split_batch(_facts([])).first) == 0
    assert len(decide(_facts([]), _facts([copy])).insert) == 0
    assert len(decide(_facts([copy]), _facts([])).insert) == 1


def test_facts_tell_ranges_and_coordinates() -> None:
    facts = _facts([Copy(0, 1, 2**48 - 1, 0, 0, 0), Copy(0, 1, 7, 0, 0, 0), Copy(0, 0, 3, 0, 0, 0)])

    assert facts.offset_ranges() == {"0": [3, 4], "1": [7, 2**48]}
    assert len(set(facts.coordinates().tolist())) == 3


def test_coverage_is_half_open_and_by_partition() -> None:
    records = _facts([Copy(0, partition, offset, 0, 0, 0) for partition in (0, 1) for offset in (4, 5, 7, 8)])
    covered = Coverage({0: [(5, 8), (100, 200)], 2: [(0, 100)]})

    assert covered.has(records).tolist() == [False, True, True, False, False, False, False, False]
    assert not Coverage({}).has(records).any()


def test_count_of_copies_tells_conflicts_among_the_flagged() -> None:
    copies = split_batch(_facts([Copy(n, 0, n, 1, 1, payload) for n, payload in enumerate((0, 1, 1, 0))])).copies

    assert copies.count(np.array([True, False, True])) == (2, 1)
