"""Bounded replays: what to read again, and a plan of batches that is worked off and can be gone on with after a crash."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import reduce
from typing import Literal

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.lake.checkpoint.checked_files import create_checked
from pipelines.lake.checkpoint.identity import Checkpoint, read_object
from pipelines.lake.days import parse_optional_day
from pipelines.lake.errors import CheckpointError, StoppedError, UsageError
from pipelines.lake.logging import Log
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import read_if_there
from pipelines.runtime.flags import parse_offsets

Ranges = Mapping[int, tuple[int, int]]
"""For each partition [start, end) of Kafka offsets."""
OnConflict = Literal["skip", "update"]

_LOG = Log("replay")
ROWS_PER_BATCH = 500_000
NOTHING_THERE = (
    "{} has nothing in these offsets and days; correct --starting-offsets, --ending-offsets, --from-date or --to-date."
)
_PLAN, _DONE = "replay/plan.json", "replay/done"


@dataclass(frozen=True)
class Selection:
    """What a bounded replay reads again; None is no bound, of days either: `from_date` alone means all from it on.

    Offsets are Kafka's, days those on which Kafka took the record (for Gold: days of the event).
    """

    starting: Mapping[int, int] | None = None
    ending: Mapping[int, int] | None = None
    from_date: date | None = None
    to_date: date | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether the replay ends by itself at a place that was asked for."""
        return bool(self.ending or self.from_date or self.to_date)

    def text(self) -> str:
        """The selection as the checkpoint keeps it: a replay is gone on with by the same flags."""
        bounds = {"starting": self.starting, "ending": self.ending, "from": self.from_date, "to": self.to_date}
        found = {name: bound for name, bound in bounds.items() if bound is not None}
        return json.dumps(found, default=str, sort_keys=True)

    def condition(self) -> Column:
        """Whether a row of Bronze, or by days one of Silver, is selected; literals: files are found by their statistics."""
        offset, partition, day = F.col("_kafka_offset"), F.col("_kafka_partition"), F.col("_event_date")
        days = [
            *([day >= _literal(self.from_date)] if self.from_date else []),
            *([day <= _literal(self.to_date)] if self.to_date else []),
        ]
        starting, ending = self.starting or {}, self.ending or {}
        # Said of what is read, not of what is left out: a file of several partitions could not be passed over otherwise. A
        # partition that no flag names is not read: who replays a part says which.
        parts = [
            reduce(
                lambda left, right: left & right,
                [
                    partition == part,
                    *([offset >= starting[part]] if part in starting else []),
                    *([offset < ending[part]] if part in ending else []),
                ],
            )
            for part in sorted({*starting, *ending})
        ]
        mine = [reduce(lambda left, right: left | right, parts)] if parts else []
        return reduce(lambda left, right: left & right, [*mine, *days], F.lit(True))

    def refuse_unknown(self, known: Ranges, where: str) -> None:
        """Raise UsageError where an offset lies outside what `where` holds (`known`), or the bounds cross."""
        for flag, given in (("--starting-offsets", self.starting), ("--ending-offsets", self.ending)):
            for partition, offset in (given or {}).items():
                if partition not in known:
                    msg = f"{flag} names partition {partition}, but {where} has {_listed(known)}; correct it."
                    raise UsageError(msg)
                low, high = known[partition]
                if not low <= offset <= high:
                    msg = (
                        f"{flag} gives offset {offset} for partition {partition}, but {where} holds {low} to {high}; correct it."
                    )
                    raise UsageError(msg)
        for partition in set(self.starting or {}) & set(self.ending or {}):
            first, end = (self.starting or {})[partition], (self.ending or {})[partition]
            if first >= end:
                msg = f"Partition {partition} would start at {first} and end before {end}: nothing to read; correct the offsets."
                raise UsageError(msg)
        if self.from_date and self.to_date and self.from_date > self.to_date:
            msg = f"--from-date {self.from_date} is after --to-date {self.to_date}; correct them."
            raise UsageError(msg)


def _literal(day: date | None) -> Column:
    # As text: PySpark hands a date before year 1000 over with a year of less than four digits, which Java refuses.
    return F.lit(None if day is None else day.isoformat()).cast("date")


def selection_of(args: argparse.Namespace) -> Selection:
    """Read the selection from a job's flags; raises UsageError with one sentence where one is not understood."""
    return Selection(
        parse_offsets(args.starting_offsets),
        parse_offsets(args.ending_offsets, "--ending-offsets"),
        parse_optional_day(args.from_date, "--from-date"),
        parse_optional_day(args.to_date, "--to-date"),
    )


@dataclass(frozen=True)
class Plan:
    """Batches of ranges, in order; `version` is the source table's, so that a restart reads the same (None: Kafka)."""

    batches: list[Ranges]
    records: int
    version: int | None = None

    def __str__(self) -> str:
        spans: dict[int, tuple[int, int]] = {}
        for batch in self.batches:
            for part, (first, end) in batch.items():
                low, high = spans.get(part, (first, end))
                spans[part] = (min(low, first), max(high, end))
        listed = ", ".join(f"{part}: {low} to {high - 1}" for part, (low, high) in sorted(spans.items()))
        return f"{self.records:,} records in {len(self.batches)} batches (partition: offsets {listed})"


def cut(ranges: Ranges, records: int, per_batch: int = ROWS_PER_BATCH) -> list[Ranges]:
    """Cut the ranges into batches of about `per_batch` of the `records` that lie in them."""
    count = max(1, -(-records // per_batch))
    batches: list[Ranges] = []
    for index in range(count):
        part = {}
        for partition, (start, end) in ranges.items():
            low, high = start + (end - start) * index // count, start + (end - start) * (index + 1) // count
            if low < high:
                part[partition] = (low, high)
        if part:
            batches.append(part)
    return batches


def open_plan(checkpoint: Checkpoint, plan: Plan) -> Plan:
    """Keep `plan` in a new checkpoint; give the kept one where the replay was begun before."""
    storage = open_storage(checkpoint.path)
    if read_if_there(storage, _PLAN) is None:
        tree = {"batches": [dict(batch) for batch in plan.batches], "records": plan.records, "version": plan.version}
        create_checked(storage, _PLAN, json.dumps(tree).encode())
        return plan
    kept = read_object(checkpoint.path, _PLAN)
    try:
        batches: list[Ranges] = [{int(part): (first, end) for part, (first, end) in batch.items()} for batch in kept["batches"]]
        return Plan(batches, kept["records"], kept["version"])
    except (KeyError, TypeError, ValueError, AttributeError):
        msg = (
            f"The file {_PLAN} of the checkpoint {checkpoint.path} is damaged, expected the plan of a replay; give a new path "
            "(playbooks/checkpoint-lost.md)."
        )
        raise CheckpointError(msg) from None


def run_plan(checkpoint: Checkpoint, plan: Plan, work: Callable[[Ranges, int], None], stop: threading.Event) -> None:
    """Do the batches that are not done yet; a batch that a crash cut is done again.

    Raises StoppedError where `stop` is set before all of them are done.
    """
    storage = open_storage(checkpoint.path)
    done = set(storage.names(_DONE))
    for number, ranges in enumerate(plan.batches):
        if str(number) in done:
            continue
        if stop.is_set():
            msg = f"The replay was stopped after {number} of {len(plan.batches)} batches; the same command goes on with it."
            raise StoppedError(msg)
        work(ranges, number)
        storage.create(f"{_DONE}/{number}", b"")
    _LOG.info("replay done", batches=len(plan.batches), records=plan.records)


def _listed(known: Ranges) -> str:
    return "none" if not known else f"{', '.join(str(part) for part in sorted(known))} only"
