"""Ranges [start, end) of Kafka offsets by partition: merge, subtract, and what batches cover.

A range is the set of its offsets. An empty one (a batch that found nothing: start = end) is no offset, so it is in no result;
where a batch stood, though it read nothing, is a position (`positions`), not a range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipelines.lake.ledger_row import BatchRow

Ranges = Mapping[int, list[tuple[int, int]]]
"""For each partition ranges [start, end) of offsets; results are sorted, none empty, none touching another."""


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge ranges that touch or overlap, and drop empty ones; sorted."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def subtract(whole: Ranges, part: Ranges) -> dict[int, list[tuple[int, int]]]:
    """Give what of `whole` is not in `part`, in whatever order they are; partitions without a rest are left out."""
    rest: dict[int, list[tuple[int, int]]] = {}
    for partition, ranges in whole.items():
        left = _without(merge_ranges(ranges), merge_ranges(part.get(partition, [])))
        if left:
            rest[partition] = left
    return rest


def _without(ranges: list[tuple[int, int]], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first without the second; both merged."""
    left: list[tuple[int, int]] = []
    turn = 0
    for start, end in ranges:
        reached = start
        while turn < len(others) and others[turn][1] <= reached:
            turn += 1
        ahead = turn
        while ahead < len(others) and others[ahead][0] < end:
            if reached < others[ahead][0]:
                left.append((reached, others[ahead][0]))
            reached = max(reached, others[ahead][1])
            ahead += 1
        if reached < end:
            left.append((reached, end))
    return left


def covered_by(rows: Iterable[BatchRow]) -> dict[int, list[tuple[int, int]]]:
    """For each partition the ranges of which the batches of `rows` saw records, without the holes that they saw."""
    ranges: dict[int, list[tuple[int, int]]] = {}
    for row in rows:
        for partition, (start, stop) in row.spans.items():
            holes = row.holes.get(str(partition), [])
            edges = [start, *(edge for hole in holes for edge in hole), stop]
            ranges.setdefault(partition, []).extend(zip(edges[::2], edges[1::2], strict=True))
    merged = {partition: merge_ranges(found) for partition, found in ranges.items()}
    return {partition: found for partition, found in merged.items() if found}


def positions(rows: Iterable[BatchRow]) -> dict[int, tuple[int, int]]:
    """For each partition where the first batch of `rows` began and the last one ended, also where none saw a record."""
    found: dict[int, tuple[int, int]] = {}
    for row in rows:
        for partition, (start, stop) in row.spans.items():
            first, last = found.get(partition, (start, stop))
            found[partition] = (min(first, start), max(last, stop))
    return found
