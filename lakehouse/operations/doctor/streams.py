"""Whether the streams run: what waits for each, and since when it has written nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from lakehouse.operations.doctor.facts import Facts, HeldBy, StreamCheckpoint
from lakehouse.operations.doctor.findings import Confidence, Finding
from pipelines.lake.job_tables import JOBS
from pipelines.lake.ledger_row import LedgerRow
from pipelines.lake.tables import BRONZE, SILVER

QUIET = timedelta(minutes=5)
"""A stream with work that has committed nothing for so long is down or stuck; or for ten of its triggers, if that is longer."""
_UNITS = {"millisecond": 0.001, "second": 1.0, "minute": 60.0, "hour": 3600.0}


@dataclass(frozen=True)
class Stream:
    """One job's stream. `waiting`: records that it has not read, None where the source is silent."""

    job: str
    waiting: int | None
    rows: list[LedgerRow]
    checkpoint: StreamCheckpoint | None
    interval: float | None

    @property
    def lock(self) -> HeldBy | None:
        """Who runs it."""
        return self.checkpoint.lock if self.checkpoint else None

    def quiet_for(self, facts: Facts) -> timedelta | None:
        """Time since its last batch, or since its process took the checkpoint; None where there was neither."""
        began = [datetime.fromisoformat(self.lock.holder.since)] if self.lock else []
        moments = [*began, *(row.committed_at for row in self.rows[-1:])]
        return facts.now - max(moments) if moments else None

    def is_quiet(self, facts: Facts) -> bool:
        """Whether the last batch is longer ago than a running stream would let it be."""
        quiet = self.quiet_for(facts)
        return quiet is None or quiet > max(QUIET, timedelta(seconds=10 * (self.interval or 0)))


def check_streams(facts: Facts) -> Iterator[Finding]:
    """Look at each stream that has something to do; a lake where nothing waits may well be at rest."""
    for stream in streams_of(facts):
        if stream.waiting and facts.knows_lock(stream.job) and not (stream.job == "silver" and _may_be_held(facts)):
            yield from _check_alive(facts, stream)


def _may_be_held(facts: Facts) -> bool:
    """Whether the circuit breaker holds Silver back, or nobody knows."""
    breaker = facts.status.breaker
    return facts.status.breaker_unread is not None or (breaker is not None and breaker.state != "closed")


def streams_of(facts: Facts) -> list[Stream]:
    """The streams in the order of the data."""
    waiting = {"bronze": _bronze_waits(facts), "silver": silver_waits(facts), "gold": _gold_waits(facts)}
    settings = facts.settings
    triggers = {"bronze": settings.bronze.trigger, "silver": settings.silver.trigger, "gold": settings.gold.trigger}
    return [
        Stream(job, waiting[job], _own_rows(facts, job), facts.checkpoints.get(job), interval_seconds(triggers[job]))
        for job in JOBS
    ]


def _own_rows(facts: Facts, job: str) -> list[LedgerRow]:
    """The stream's own rows, without those of replays beside it; all where its generation has none yet."""
    rows, checkpoint = facts.rows.get(job, []), facts.checkpoints.get(job)
    marker = checkpoint.state.marker if checkpoint is not None and checkpoint.state is not None else None
    own = [row for row in rows if marker is not None and row.generation == marker.generation]
    return own or rows


def interval_seconds(trigger: str) -> float | None:
    """Seconds of a trigger such as `10 seconds`; None for `available-now`."""
    found = re.fullmatch(r"\s*(\d+)\s*(millisecond|second|minute|hour)s?\s*", trigger)
    return int(found[1]) * _UNITS[found[2]] if found else None


def _bronze_waits(facts: Facts) -> int | None:
    lags = [part.bronze_lag for part in facts.status.partitions]
    return None if facts.topic is None else sum(lag for lag in lags if lag is not None)


def silver_waits(facts: Facts) -> int:
    """Rows of Bronze that Silver has not read; lawful holes in the offsets (transaction markers) do not wait."""
    ends = {part.partition: part.silver_end or 0 for part in facts.status.partitions}
    next_version = _silver_reads_on_from(facts)
    waiting = 0
    for row in facts.rows.get("bronze", []):
        spans = [(part, start, stop) for part, (start, stop) in row.spans.items()]
        unread = sum(max(0, stop - max(start, ends.get(part, 0))) for part, start, stop in spans)
        if not unread and row.versions.get(str(BRONZE), -1) >= next_version:  # behind its ends, where a repair fills a hole
            waiting += row.inserted
        waiting += max(0, unread - (sum(stop - start for _, start, stop in spans) - row.rows_read))
    return waiting


def _silver_reads_on_from(facts: Facts) -> float:
    """Version of Bronze that the stream of Silver comes to next, by its last batch that says so; infinity where none does."""
    rows = reversed(_own_rows(facts, "silver"))
    return next((row.versions[str(BRONZE)] for row in rows if str(BRONZE) in row.versions), math.inf)


def _gold_waits(facts: Facts) -> int:
    read = max(
        (row.offsets["silver_version"][1] for row in facts.rows.get("gold", []) if "silver_version" in row.offsets), default=-1
    )
    silver = facts.rows.get("silver", [])
    return sum(row.inserted + row.replaced for row in silver if row.versions.get(str(SILVER), -1) > read)


def _check_alive(facts: Facts, stream: Stream) -> Iterator[Finding]:
    is_quiet = stream.is_quiet(facts)
    if stream.lock is not None:
        if stream.lock.is_stopped:
            yield _stopped(facts, stream, stream.lock)
        elif is_quiet:
            yield _stuck(facts, stream, stream.lock)
    elif stream.checkpoint is None or stream.checkpoint.is_guarded:
        yield _down(facts, stream, is_quiet=is_quiet, confidence="certain" if is_quiet else "likely")
    elif is_quiet:
        yield _down(facts, stream, is_quiet=True, confidence="possible")


def _down(facts: Facts, stream: Stream, *, is_quiet: bool, confidence: Confidence) -> Finding:
    path = stream.checkpoint.path if stream.checkpoint else None
    seen = (
        "nobody holds its checkpoint's lock"
        if confidence != "possible"
        else "its checkpoint is on an object store, without a lock"
    )
    return Finding(
        id="stream-down",
        severity="critical" if is_quiet else "warning",
        title=f"The stream {stream.job} does not run",
        evidence=f"{waits(stream)}, {seen}, and {_last_batch(facts, stream)}.",
        confidence=confidence,
        at_stake=delayed(stream),
        playbook="spark-crash",
        commands=(facts.commands.start(stream.job, path), facts.commands.lakehouse("status")),
    )


def _stuck(facts: Facts, stream: Stream, lock: HeldBy) -> Finding:
    return Finding(
        id="stream-stuck",
        severity="warning",
        title=f"The stream {stream.job} runs and commits nothing",
        evidence=f"{waits(stream)}, {lock.holder} holds its checkpoint, and {_last_batch(facts, stream)}.",
        confidence="likely",
        at_stake=delayed(stream),
        playbook="spark-crash",
        commands=(facts.commands.lakehouse("status"), f"kill -TERM {lock.holder.pid}"),
    )


def _stopped(facts: Facts, stream: Stream, lock: HeldBy) -> Finding:
    return Finding(
        id="stream-stopped",
        severity="critical",
        title=f"The process of the stream {stream.job} is stopped",
        evidence=f"{waits(stream)}, and process {lock.holder.pid}, which holds its checkpoint, is in the state T (SIGSTOP).",
        confidence="certain",
        at_stake=delayed(stream),
        playbook="spark-crash",
        commands=(f"kill -CONT {lock.holder.pid}", facts.commands.lakehouse("status")),
    )


def waits(stream: Stream) -> str:
    """Say how much waits, for a sentence."""
    return f"{stream.waiting:,} records wait"


def delayed(stream: Stream) -> str:
    """Say what a delay of the stream costs."""
    wait = "an unknown number of" if stream.waiting is None else f"{stream.waiting:,}"
    until = ", and are lost once Kafka's retention reaches them" if stream.job == "bronze" else ""
    return f"Nothing is lost now: {wait} records come late to Gold and to the bills{until}."


def _last_batch(facts: Facts, stream: Stream) -> str:
    if not stream.rows:
        return "it never committed a batch"
    last = stream.rows[-1]
    ago = timedelta(seconds=round((facts.now - last.committed_at).total_seconds()))
    return f"batch {last.batch_id} was its last, {ago} ago"
