"""Ranges of offsets behave as the sets of offsets that they stand for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.lake.ledger.ranges import covered_by, merge_ranges, positions, subtract
from pipelines.lake.ledger_row import BatchRow

Spans = list[tuple[int, int]]
# Empty ranges are among them: a batch that found no record in a partition has one.
SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))), max_size=10)
RANGES = st.dictionaries(st.integers(0, 2), SPANS, max_size=3)


def _offsets(ranges: dict[int, Spans]) -> set[tuple[int, int]]:
    return {(part, offset) for part, spans in ranges.items() for start, end in spans for offset in range(start, end)}


def _is_plain(spans: Spans) -> bool:
    """Whether ranges are sorted, none is empty, and none touches another."""
    return all(start < end for start, end in spans) and all(left[1] < right[0] for left, right in pairwise(spans))


@given(SPANS)
def test_merged_ranges_hold_the_same_offsets(spans: Spans) -> None:
    merged = merge_ranges(spans)

    assert _offsets({0: merged}) == _offsets({0: spans})
    assert _is_plain(merged)


@given(RANGES, RANGES)
def test_difference_is_that_of_the_sets_and_names_no_partition_in_vain(whole: dict[int, Spans], part: dict[int, Spans]) -> None:
    rest = subtract(whole, part)

    assert _offsets(rest) == _offsets(whole) - _offsets(part)
    assert all(spans and _is_plain(spans) for spans in rest.values())


@given(RANGES, RANGES)
def test_union_is_what_the_difference_leaves_and_the_part_that_it_took(whole: dict[int, Spans], part: dict[int, Spans]) -> None:
    rest = subtract(whole, part)
    taken = subtract(whole, rest)
    union = {number: merge_ranges([*rest.get(number, []), *part.get(number, [])]) for number in {*rest, *part}}

    assert _offsets(taken) == _offsets(whole) & _offsets(part)
    assert _offsets(union) == _offsets(whole) | _offsets(part)


@st.composite
def _rows(draw: st.DrawFn) -> BatchRow:
    """A batch over up to two partitions, with holes inside its offsets or at their ends."""
    offsets, holes = {}, {}
    for partition in draw(st.sets(st.sampled_from(["0", "1"]))):
        edges = sorted(draw(st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(lambda found: len(found) % 2 == 0)))
        offsets[partition] = [edges[0], edges[-1]]
        if inside := edges[1:-1]:
            holes[partition] = [list(pair) for pair in zip(inside[::2], inside[1::2], strict=True)]
    return BatchRow("silver", "g", 0, offsets, holes=holes)


@given(st.lists(_rows(), max_size=5))
def test_batches_cover_their_offsets_without_their_holes(rows: list[BatchRow]) -> None:
    expected = set()
    for row in rows:
        holes = {int(part): [(start, end) for start, end in spans] for part, spans in row.holes.items()}
        expected |= _offsets({part: [span] for part, span in row.spans.items()}) - _offsets(holes)
    covered = covered_by(rows)

    assert _offsets(covered) == expected
    assert all(spans and _is_plain(spans) for spans in covered.values())


@given(st.lists(_rows(), max_size=5))
def test_positions_reach_from_the_first_start_to_the_last_end(rows: list[BatchRow]) -> None:
    for part in (0, 1):
        spans = [row.spans[part] for row in rows if part in row.spans]
        expected = (min(start for start, _ in spans), max(end for _, end in spans)) if spans else None
        assert positions(rows).get(part) == expected


def test_rows_of_gold_have_no_offsets_of_kafka() -> None:
    row = BatchRow("gold", "g", 0, {"silver_version": [3, 4]})

    assert (covered_by([row]), positions([row]), row.silver_versions) == ({}, {}, (3, 4))
