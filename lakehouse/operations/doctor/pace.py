"""Whether the streams keep up: how long the lag takes to work off, and batches that take ever longer than their trigger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from statistics import median

from lakehouse.operations.doctor.facts import Facts
from lakehouse.operations.doctor.findings import Finding
from lakehouse.operations.doctor.streams import Stream, delayed, streams_of, waits

SLOW_CATCH_UP = timedelta(minutes=15)
"""Lag is worth a word if it takes longer than this to work off."""
OVERRUN_TIMES, OVERRUN_SECONDS, RISING = 5, 10.0, 1.5
"""Batches overrun if they take so many trigger intervals, at least so many seconds, and so many times what they took before."""
DEARER = 1.2
"""A record that takes so many times what it took before is dearer, not only one of more."""
_ROWS = 15


def check_pace(facts: Facts) -> Iterator[Finding]:
    """Look at the streams that run and have something to do."""
    for stream in streams_of(facts):
        if stream.waiting and stream.lock is not None and not stream.is_quiet(facts):
            yield from _check_lag(facts, stream)
        yield from _check_overrun(facts, stream)


def _check_lag(facts: Facts, stream: Stream) -> Iterator[Finding]:
    last = stream.rows[-10:]
    seconds = sum(row.duration_ms for row in last) / 1000
    read = sum(row.rows_read for row in last)
    if not seconds or not read or stream.waiting is None:
        return
    needed = timedelta(seconds=round(stream.waiting / (read / seconds)))
    if needed > SLOW_CATCH_UP:
        yield Finding(
            id="lag-large",
            severity="warning",
            title=f"The stream {stream.job} is far behind",
            evidence=f"{waits(stream)}; at the {read / seconds:,.0f} a second of its last batches that takes {needed}.",
            confidence="likely",
            at_stake=delayed(stream),
            playbook="stale-data",
            commands=(facts.commands.lakehouse("status"),),
        )


def _check_overrun(facts: Facts, stream: Stream) -> Iterator[Finding]:
    """The death spiral: each batch takes longer than the trigger, so the next one is larger and takes longer still.

    It ends at the limit of a batch's size, unless each record takes longer as well: then batches are too large for the
    memory, and smaller ones are faster. Otherwise larger ones are, and the stream needs a higher limit, or more to run on.
    """
    if stream.interval is None or not stream.rows or stream.waiting == 0:
        return
    rows = [row for row in stream.rows if row.generation == stream.rows[-1].generation][-_ROWS:]
    if len(rows) < 9:
        return
    third = len(rows) // 3
    parts = (rows[:third], rows[-third:])
    before, recent = (median(row.duration_ms / 1000 for row in part) for part in parts)
    if recent < max(OVERRUN_SECONDS, OVERRUN_TIMES * stream.interval) or recent < RISING * before:
        return
    cheap, dear = (median(max(1, row.duration_ms) / max(1, row.rows_read) for row in part) for part in parts)
    is_dearer = dear >= DEARER * cheap
    yield Finding(
        id="trigger-overrun",
        severity="warning",
        title=f"The batches of {stream.job} take ever longer than its trigger",
        evidence=(
            f"The last {third} took {recent:,.1f} s (median), {third} of those before them {before:,.1f} s; "
            f"the trigger is {stream.interval:g} s. "
            + (
                f"A record takes {dear / cheap:.1f} times as long: the batches are too large."
                if is_dearer
                else "A record takes no longer: there are more of them."
            )
        ),
        confidence="likely",
        at_stake=delayed(stream),
        playbook="stale-data",
        commands=(*((_smaller_batches(facts, stream),) if is_dearer else ()), facts.commands.lakehouse("status")),
    )


def _smaller_batches(facts: Facts, stream: Stream) -> str:
    settings = facts.settings
    sizes = {"silver": settings.silver.max_bytes_per_trigger, "gold": settings.gold.max_bytes_per_trigger}
    if stream.job in sizes:
        limit = f"MAX_BYTES_PER_TRIGGER={_half(sizes[stream.job])}"
    else:
        limit = f"MAX_OFFSETS_PER_TRIGGER={max(1, settings.bronze.max_offsets_per_trigger // 2)}"
    start = facts.commands.start(stream.job, stream.checkpoint.path if stream.checkpoint else None)
    return f"LAKEHOUSE__{stream.job.upper()}__{limit} {start}"


def _half(size: str) -> str:
    """Half of a size as Spark writes it: `64m` gives `32m`, `1g` gives `512m`."""
    found = re.fullmatch(r"(\d+)([kmgt]?)(b?)", size.strip().lower())
    if found is None:
        return size
    number, unit = int(found[1]), found[2]
    if number % 2 and unit in ("m", "g", "t"):
        number, unit = number * 1024, {"m": "k", "g": "m", "t": "g"}[unit]
    return f"{max(1, number // 2)}{unit}{found[3]}"
