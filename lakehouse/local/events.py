"""The generator of API-usage events: the same seed and times give the same records, byte for byte."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lakehouse.local.event_catalog import REGIONS, Catalog, build_catalog
from lakehouse.local.event_copies import Copies
from lakehouse.local.event_draws import BLOCK, Draws, Family, draw_block, event_ids
from lakehouse.local.event_plan import Limits, ProducePlan
from lakehouse.local.event_text import TEMPLATE, iso_instants
from lakehouse.local.malformed import break_event
from lakehouse.local.unusual import rewrite_event
from lakehouse.proof.event_rows import Rows

TEN_YEARS_MS = 3653 * 86_400_000
_SLICE = 5000
_TICK_SECONDS = 0.02
_KINDS = {Family.ORDINARY: "ordinary", Family.OUT_OF_ORDER: "out_of_order", Family.LATE: "late", Family.SKEW: "skew"}


class EventStream:
    """Records one after the other; only their times depend on the arrivals that the caller gives."""

    def __init__(self, plan: ProducePlan, limits: Limits) -> None:
        self._plan = plan
        self._limits = limits
        self._catalog: Catalog = build_catalog(plan.customers, plan.endpoints)
        self._copies = Copies()
        self._next = 0
        self._block = self._draw()

    @property
    def room(self) -> int:
        """How many records the next `take` may ask for, at most."""
        return BLOCK - self._next % BLOCK

    def take(self, arrival_ms: NDArray[np.int64]) -> Rows:
        """Return the next `len(arrival_ms)` records, which reach Kafka at these times (milliseconds); see `room`."""
        at = self._next % BLOCK
        if at == 0 and self._next:
            self._block = self._draw()
        draws = self._block[at : at + len(arrival_ms)]
        rows = self._ordinary(draws, arrival_ms)
        self._copies.add(self._next, rows)
        for position in np.flatnonzero(draws.family != Family.ORDINARY).tolist():
            self._specialise(rows, position, Family(draws.family[position]), int(draws.pick[position]))
        self._next += len(rows)
        return rows

    def _draw(self) -> Draws:
        return draw_block(self._plan.seed, self._next // BLOCK, self._catalog, self._plan.mix, self._limits)

    def _ordinary(self, draws: Draws, arrival_ms: NDArray[np.int64]) -> Rows:
        """Make all records valid events first; `_specialise` then works on the few that are not to be."""
        names, count = self._catalog, len(draws)
        event_ms = arrival_ms - draws.delay_ms
        ancient = (draws.family == Family.SKEW) & (draws.pick // 7 % 5 == 1)
        event_ms = np.where(ancient, draws.pick // 35 % 86_400_000, event_ms)
        ids = event_ids(self._plan.seed, self._next, count)
        callers, routes, regions = draws.api_key.tolist(), draws.endpoint.tolist(), draws.region.tolist()
        latencies: list[Any] = draws.latency.tolist()
        texts = [str(latency) for latency in latencies]
        for at in np.flatnonzero(draws.pick % 97 == 0).tolist():
            latencies[at], texts[at] = None, "null"
        statuses, sent, received = draws.status.tolist(), draws.response_bytes.tolist(), draws.request_bytes.tolist()
        values = zip(
            ids,
            iso_instants(event_ms),
            [names.caller_json[at] for at in callers],
            [names.route_json[at] for at in routes],
            statuses,
            texts,
            received,
            sent,
            [names.region_json[at] for at in regions],
            strict=True,
        )
        customers = draws.customer.tolist()
        keys: list[bytes | None] = [names.customer_keys[at] for at in customers]
        for at in np.flatnonzero(draws.pick % 53 == 0).tolist():
            keys[at] = None
        return Rows(
            value=[(TEMPLATE % value).encode("ascii") for value in values],
            key=keys,
            kafka_ms=arrival_ms.tolist(),
            kind=["ordinary"] * count,
            expected=["event"] * count,
            rule=[None] * count,
            event_id=list(ids),
            event_ms=event_ms.tolist(),
            customer_id=[names.customers[at] for at in customers],
            api_key_id=[names.api_keys[at] for at in callers],
            endpoint=[names.endpoints[at] for at in routes],
            method=[names.methods[at] for at in routes],
            status_code=statuses,
            response_time_ms=latencies,
            request_bytes=received,
            response_bytes=sent,
            region=[REGIONS[at] for at in regions],
        )

    def _specialise(self, rows: Rows, at: int, family: Family, pick: int) -> None:
        if family in _KINDS:
            self._name_kind(rows, at, family, pick)
        elif family is Family.UNUSUAL:
            rewrite_event(rows, at, pick)
        elif family is Family.MALFORMED:
            break_event(rows, at, pick, self._limits.max_event_bytes)
        elif family is Family.TOMBSTONE:
            with_key = pick % 3 != 0
            rows.kind[at] = "tombstone" if with_key else "tombstone_without_key"
            rows.value[at] = None
            rows.key[at] = (rows.customer_id[at] or "").encode() if with_key else None
            rows.set_rejected(at, "tombstone", None)
        elif family is Family.CONFLICT:
            self._copies.conflict(rows, self._next, at, pick)
        else:
            self._copies.duplicate(rows, self._next, at, pick)
        if family in (Family.SKEW, Family.DUPLICATE, Family.CONFLICT):
            self._warn(rows, at)

    def _name_kind(self, rows: Rows, at: int, family: Family, pick: int) -> None:
        boundary = family in (Family.LATE, Family.SKEW) and pick % 6 == 0
        ancient = family is Family.SKEW and pick // 7 % 5 == 1
        rows.kind[at] = "ancient" if ancient else _KINDS[family] + ("_boundary" if boundary else "")

    def _warn(self, rows: Rows, at: int) -> None:
        """Name the warning that the event's own two times call for, if any."""
        event_ms, kafka_ms = rows.event_ms[at], rows.kafka_ms[at]
        if event_ms is None:
            return
        if event_ms - kafka_ms > self._limits.skew_after_ms:
            rows.rule[at] = "SLV-101"
        elif kafka_ms - event_ms > TEN_YEARS_MS:
            rows.rule[at] = "SLV-103"


def scheduled_rows(plan: ProducePlan, limits: Limits, now: datetime) -> Iterator[Rows]:
    """Yield the plan's records on its historic schedule, for a run that starts at `now`; pure."""
    stream, count = EventStream(plan, limits), plan.count or 0
    start_ms, step_ms = plan.schedule(now)
    sent = 0
    while sent < count:
        size = min(_SLICE, stream.room, count - sent)
        yield stream.take((start_ms + (sent + np.arange(size)) * step_ms).astype(np.int64))
        sent += size


def live_rows(plan: ProducePlan, limits: Limits, stop: Event) -> Iterator[Rows]:
    """Yield the plan's records at `plan.rate` per second, stamped with the clock, until done or `stop` is set."""
    stream, count, rate = EventStream(plan, limits), plan.count or 0, plan.rate or 1.0
    started, sent = time.monotonic(), 0
    while sent < count and not stop.is_set():
        due = int((time.monotonic() - started) * rate) + 1 - sent
        if due <= 0:
            stop.wait(min(_TICK_SECONDS, 1 / rate))
            continue
        size = min(due, _SLICE, stream.room, count - sent)
        yield stream.take(np.full(size, time.time_ns() // 1_000_000))
        sent += size
        stop.wait(_TICK_SECONDS)


def paced(source: Iterator[Rows], rate: float, stop: Event) -> Iterator[Rows]:
    """Hand the source's records on no faster than `rate` per second; their times stay as they are."""
    started, sent = time.monotonic(), 0
    for rows in source:
        while not stop.is_set() and sent > (time.monotonic() - started) * rate:
            stop.wait(_TICK_SECONDS)
        yield rows
        sent += len(rows)
