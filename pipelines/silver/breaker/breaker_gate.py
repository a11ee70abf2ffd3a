"""Where Silver's sink meets its circuit breaker: batches are counted, held back or let through, and that is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from pipelines.lake.errors import BreakerOpenError
from pipelines.lake.ledger.ledger import Ledger
from pipelines.lake.playbooks import RECORDS, path_of
from pipelines.lake.settings import BreakerSettings
from pipelines.silver.breaker.breaker import Breaker, Limits, Sample, Tally, merge_ends
from pipelines.silver.breaker.breaker_store import BreakerStore, Transition, start
from pipelines.silver.facts import REJECTED, Coverage, Facts
from pipelines.silver.rules import rejecting_rules
from pipelines.silver.transforms import classify, parse_events

_LEDGER_LAG = timedelta(seconds=5)
"""So long, at most, a batch's ledger row may be seen after the time that it bears."""


@dataclass
class BreakerGate:
    """Lets a batch of Silver through, or raises BreakerOpenError before anything of it is written.

    The state is read back at the start, the window from the batch ledger, so a restart forgets nothing. Where the state
    cannot be recorded the batch passes: a breaker that nobody can see or reset would be worse than none.
    """

    settings: BreakerSettings
    bronze: str
    generation: str
    store: BreakerStore
    ledger: Ledger
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _breaker: Breaker | None = field(default=None)

    def enter(self, batch_id: int) -> None:
        """Raise BreakerOpenError while the breaker cools down, before the batch is even read; later, let it be a probe."""
        if not self.settings.enabled:
            return
        now, before = self.clock(), self._current()
        after = before.resume(Limits.of(self.settings), now)
        if after.state == "open":
            raise BreakerOpenError(_sentence("Silver's circuit breaker is open", before.retry_at(Limits.of(self.settings))))
        if after != before:
            self.store.record(
                Transition(now, before.state, after.state, Tally(), "cool-down over: probe", self.generation, batch_id)
            )
        self._breaker = after

    def admit(self, spark: SparkSession, batch_id: int, facts: Facts, dead_letters: Facts) -> None:
        """Count a judged batch: its records `facts`, of which `dead_letters` would be new dead letters.

        Raises BreakerOpenError where it must not be written.
        """
        if not self.settings.enabled:
            return
        before, now, rules = self._current(), self.clock(), Limits.of(self.settings)
        batch, name = _beyond(before, facts, dead_letters), f"{self.generation}/{batch_id}"
        landed, after = Tally(), before.judge(rules, batch, now)
        if before.state == "half_open" and after.state == "open":
            landed = self._landed(spark, now)
            after = before.judge(rules, batch, now, landed=landed)
        if after.state == before.state:
            self._breaker = after.counted(rules, Sample(name, now, batch))
            return
        seen = batch if before.state == "half_open" else before.window(rules, now) + batch
        offsets = facts.offset_ranges()
        if after.state == "closed":
            if landed.records:
                # What was held, and what waits behind it, is the flood that is over: one cool-down for all of it.
                after = after.closed(now, merge_ends(self.ledger.end_offsets("bronze"), _ends(offsets)))
            reason = (
                f"what landed since is fine ({landed.dead_letters} of {landed.records} dead)"
                if landed.records
                else "probe is fine"
            )
            self.store.record(
                Transition(now, before.state, "closed", seen, reason, self.generation, batch_id, offsets, after.accepted)
            )
            self._breaker = after.counted(rules, Sample(name, now, _beyond(after, facts, dead_letters)))
            return
        self._open(
            Transition(
                now, before.state, "open", seen, "too many dead letters", self.generation, batch_id, offsets, after.accepted
            )
        )

    def _open(self, transition: Transition) -> None:
        newest = self.store.peek()
        if newest is not None and newest.to_state == "closed" and self._current().state != "closed":
            # An operator's reset came while the probe was under way.
            self._breaker = newest.breaker()
            return
        if not self.store.record(transition):
            return
        self._breaker = transition.breaker()
        seen = transition.tally
        found = (
            f"{seen.dead_letters} of {seen.records} records are dead letters ({seen.share:.0%}, expected under "
            f"{self.settings.share:.0%}), so Silver's circuit breaker holds batch {transition.batch_id} back"
        )
        raise BreakerOpenError(_sentence(found, self._breaker.retry_at(Limits.of(self.settings))))

    def _landed(self, spark: SparkSession, now: datetime) -> Tally:
        """Judge the records that came to Bronze since the breaker opened, at most those of a window."""
        opened = next((seen.at for seen in self.store.peek_newest(20) if seen.to_state == "open"), now)
        # A batch that Bronze was writing at that moment bears an earlier time, and the last probe did not see it.
        begun = (row.started_at for row in self.ledger.since("bronze", opened - _LEDGER_LAG))
        since = max(min([opened, *begun]), now - timedelta(seconds=self.settings.window_seconds))
        records = spark.read.format("delta").load(self.bronze).where(F.col("_ingested_at") >= F.lit(since))
        verdicts = classify(parse_events(records), rejecting_rules()).agg(
            F.count(F.lit(1)).alias("records"), F.count_if(F.col("verdict") == REJECTED).alias("dead_letters")
        )
        row = verdicts.collect()[0]
        return Tally(row["records"], row["dead_letters"])

    def _current(self) -> Breaker:
        if self._breaker is None:
            last = self.store.peek()
            self._breaker = last.breaker() if last is not None else start()
            if self._breaker.state == "closed":
                self._breaker = self._with_window(self._breaker)
        return self._breaker

    def _with_window(self, breaker: Breaker) -> Breaker:
        """The batches that an earlier process wrote within the window, but for those that were accepted."""
        rules, now = Limits.of(self.settings), self.clock()
        for row in self.ledger.since("silver", max(breaker.since, now - rules.window)):
            ends = {partition: end for partition, (_, end) in row.spans.items()}
            if all(end <= breaker.accepted.get(partition, 0) for partition, end in ends.items()):
                continue
            tally = Tally(row.rows_read, row.dead_lettered)
            sample = Sample(f"{row.generation}/{row.batch_id}", row.committed_at, tally)
            breaker = breaker.counted(rules, sample)
        return breaker


def _beyond(breaker: Breaker, facts: Facts, dead_letters: Facts) -> Tally:
    """Count the records beyond those that were accepted."""
    accepted = Coverage({partition: [(0, end)] for partition, end in breaker.accepted.items()})
    return Tally(*(int(np.count_nonzero(~accepted.has(records))) for records in (facts, dead_letters)))


def _ends(offsets: dict[str, list[int]]) -> dict[int, int]:
    return {int(partition): end for partition, (_, end) in offsets.items()}


def _sentence(found: str, retry_at: datetime) -> str:
    return (
        f"{found}; Silver is not written while Bronze goes on, and the next try is at {retry_at:%H:%M:%S} UTC: "
        f"see {path_of(RECORDS)}, or accept the dead letters with `lakehouse breaker reset --reason TEXT`."
    )
