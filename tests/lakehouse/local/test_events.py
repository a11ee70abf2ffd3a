from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.local.event_draws import event_ids
from lakehouse.local.event_plan import Limits, Mix, ProducePlan
from lakehouse.local.event_text import iso_instant, iso_instants
from lakehouse.local.events import EventStream, live_rows, paced, scheduled_rows
from lakehouse.proof.event_rows import EVENT_COLUMNS, Rows
from pipelines.lake.errors import UsageError

START = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
NOW = START + timedelta(days=60)
PLAN = ProducePlan(count=30_000, seed=7, start_time=START, span_seconds=7200)
RICH = Mix(late=0.1, duplicate=0.2, conflict=0.05, malformed=0.1, tombstone=0.05, out_of_order=0.1, skew=0.1, unusual=0.1)


def generate(plan: ProducePlan) -> Rows:
    return joined(scheduled_rows(plan, Limits(), NOW))


def joined(parts: Any) -> Rows:
    whole = Rows()
    for part in parts:
        for column in fields(Rows):
            getattr(whole, column.name).extend(getattr(part, column.name))
    return whole


@pytest.fixture(scope="module")
def rich() -> Rows:
    return generate(replace(PLAN, mix=RICH))


def test_same_seed_and_start_give_the_same_bytes() -> None:
    assert generate(PLAN) == generate(PLAN)


def test_another_seed_gives_other_events() -> None:
    one, other = generate(PLAN), generate(replace(PLAN, seed=8))
    assert not set(one.event_id) & set(other.event_id) - {None}
    assert one.value != other.value


def test_without_a_start_time_only_times_depend_on_the_clock() -> None:
    plan = replace(PLAN, start_time=None, mix=replace(RICH, unusual=0, malformed=0))
    one = joined(scheduled_rows(plan, Limits(), NOW))
    other = joined(scheduled_rows(plan, Limits(), NOW + timedelta(hours=5, milliseconds=17)))
    assert one.kind == other.kind
    assert one.key == other.key
    for name in EVENT_COLUMNS:
        if name != "event_ms":
            assert getattr(one, name) == getattr(other, name)
    assert one.kafka_ms != other.kafka_ms


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 2500), min_size=1, max_size=12))
def test_records_do_not_depend_on_how_they_are_cut(sizes: list[int]) -> None:
    plan = replace(PLAN, mix=RICH)
    whole, cut = EventStream(plan, Limits()), EventStream(plan, Limits())
    total, parts = sum(sizes), []
    arrivals = np.arange(total) * 50 + 1_769_000_000_000
    expected, at = [], 0
    while at < total:
        size = min(whole.room, total - at)
        expected.append(whole.take(arrivals[at : at + size]))
        at += size
    at = 0
    for size in sizes:
        left = size
        while left:
            step = min(left, cut.room)
            parts.append(cut.take(arrivals[at : at + step]))
            at, left = at + step, left - step
    assert joined(parts) == joined(expected)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**9))
def test_event_ids_are_uuids_and_a_function_of_seed_and_index(seed: int, first: int) -> None:
    ids = event_ids(seed, first, 50)
    assert len(set(ids)) == 50
    assert ids[20:] == event_ids(seed, first + 20, 30)
    assert all(UUID(text).version == 8 and str(UUID(text)) == text for text in ids)


@given(st.integers(0, 4_000_000_000_000))
def test_instants_are_written_alike_by_array_and_one_by_one(ms: int) -> None:
    text = iso_instant(ms)
    assert iso_instants(np.array([ms])) == [text.removesuffix("Z")]
    assert round(datetime.fromisoformat(text).timestamp() * 1000) == ms


def test_each_record_is_what_the_oracle_says(rich: Rows, judge: Any) -> None:
    for at in range(len(rich)):
        value, expected = rich.value[at], rich.expected[at]
        if value is None:
            assert expected == "tombstone"
            continue
        broken, found = judge(value)
        if expected == "dead_letter":
            assert rich.rule[at] in broken, (rich.kind[at], value[:300])
            assert rich.event(at) == dict.fromkeys(EVENT_COLUMNS)
        else:
            assert (expected, broken) == ("event", set()), (rich.kind[at], value[:300])
            assert found is not None
            assert fields_of(found) == rich.event(at), rich.kind[at]


def fields_of(found: dict[str, Any]) -> dict[str, Any]:
    event = {name: found.get(name) for name in EVENT_COLUMNS}
    delta = datetime.fromisoformat(found["event_timestamp"].upper()) - datetime(1970, 1, 1, tzinfo=UTC)
    return {**event, "event_ms": delta // timedelta(milliseconds=1)}


def test_ordinary_events_are_about_300_bytes_of_compact_json() -> None:
    rows = generate(replace(PLAN, mix=Mix.clean()))
    assert set(rows.kind) == {"ordinary"}
    assert 280 < np.mean([len(value or b"") for value in rows.value]) < 360
    value = rows.value[0] or b""
    assert json.dumps(json.loads(value), separators=(",", ":")).encode() == value


@pytest.mark.parametrize(
    ("prefix", "share"),
    [
        ("late", 0.1),
        ("duplicate", 0.2),
        ("conflict", 0.05),
        ("malformed", 0.1),
        ("tombstone", 0.05),
        ("out_of_order", 0.1),
        ("un", 0.1),
    ],
)
def test_ratios_are_kept(rich: Rows, prefix: str, share: float) -> None:
    found = sum(kind.startswith(prefix) for kind in rich.kind) / len(rich)
    assert found == pytest.approx(share, abs=0.01)


def test_default_mix_has_every_family() -> None:
    families = {kind.split("_")[0] for kind in generate(PLAN).kind}
    assert families >= {
        "ordinary",
        "late",
        "duplicate",
        "conflict",
        "malformed",
        "tombstone",
        "out",
        "skew",
        "unknown",
        "unusual",
    }


def test_late_events_stand_on_both_sides_of_two_hours_and_reach_days(rich: Rows) -> None:
    delays = [delay(rich, at) for at in range(len(rich)) if rich.kind[at] in ("late", "late_boundary")]
    assert {7_199_999, 7_200_000, 7_200_001} <= set(delays)
    assert max(delays) > 20 * 86_400_000
    assert max(delays) <= 30 * 86_400_000


def test_skewed_clocks_are_ahead_or_in_1970_and_say_their_warning(rich: Rows) -> None:
    ahead = [-delay(rich, at) for at in range(len(rich)) if rich.kind[at].startswith("skew")]
    assert {299_999, 300_000, 300_001} <= set(ahead)
    assert max(ahead) > 9 * 365 * 86_400_000
    for at in range(len(rich)):
        if rich.kind[at].startswith("skew"):
            assert rich.rule[at] == ("SLV-101" if delay(rich, at) < -300_000 else None)
        if rich.kind[at] == "ancient":
            assert rich.rule[at] == "SLV-103"
            assert 0 <= (rich.event_ms[at] or 0) < 86_400_000


def delay(rows: Rows, at: int) -> int:
    return rows.kafka_ms[at] - (rows.event_ms[at] or 0)


def test_out_of_order_events_are_old_but_not_late(rich: Rows) -> None:
    delays = [delay(rich, at) for at in range(len(rich)) if rich.kind[at] == "out_of_order"]
    assert min(delays) >= 5_000 - 1
    assert max(delays) <= 600_000


def test_copies_are_exact_but_for_the_kinds_that_say_otherwise(rich: Rows) -> None:
    first: dict[str | None, int] = {}
    seen: Counter[str] = Counter()
    for at in range(len(rich)):
        if rich.expected[at] != "event":
            continue
        kind, source = rich.kind[at], first.setdefault(rich.event_id[at], at)
        if source == at:
            assert not kind.startswith(("duplicate", "conflict"))
            continue
        seen[kind] += 1
        same_bytes, same_time = rich.value[at] == rich.value[source], rich.event_ms[at] == rich.event_ms[source]
        assert same_bytes == (kind not in ("duplicate_resent", "conflict"))
        assert same_time == (kind != "duplicate_resent")
        assert (rich.key[at] == rich.key[source]) == (kind != "duplicate_other_key")
        if kind == "duplicate_earlier":
            assert rich.kafka_ms[at] < rich.kafka_ms[source]
        if kind == "duplicate_resent":
            assert rich.kafka_ms[at] - rich.kafka_ms[source] < 24 * 3_600_000
        if kind == "duplicate_far" and at > 1000:
            assert at - source > 1
    assert set(seen) == {
        "duplicate_near",
        "duplicate_far",
        "duplicate_other_key",
        "duplicate_earlier",
        "duplicate_resent",
        "conflict",
    }


def test_far_copies_come_minutes_after_the_original() -> None:
    rows = generate(replace(PLAN, mix=replace(Mix.clean(), duplicate=0.1)))
    first = {event: rows.kafka_ms[at] for at, event in reversed(list(enumerate(rows.event_id)))}
    gaps = [rows.kafka_ms[at] - first[rows.event_id[at]] for at in range(len(rows)) if rows.kind[at] == "duplicate_far"]
    assert np.median(gaps) > 10 * 60_000


def test_a_resend_further_apart_than_the_window_is_never_made() -> None:
    sparse = replace(PLAN, count=500, span_seconds=500 * 86_400.0, start_time=datetime(2024, 1, 1, tzinfo=UTC))
    assert "duplicate_resent" not in generate(replace(sparse, mix=replace(Mix.clean(), duplicate=0.5))).kind


def test_customers_and_endpoints_follow_a_steep_law_and_some_keys_are_null() -> None:
    rows = generate(replace(PLAN, mix=Mix.clean()))
    busiest = Counter(rows.customer_id).most_common(10)
    assert sum(count for _, count in busiest) > len(rows) * 0.3
    assert len(set(rows.customer_id)) > 500
    assert len(set(rows.endpoint)) > 10
    nulls = sum(key is None for key in rows.key)
    assert 0 < nulls < len(rows) * 0.05
    assert all(key in (None, (customer or "").encode()) for key, customer in zip(rows.key, rows.customer_id, strict=True))


def test_history_ends_when_the_run_starts() -> None:
    rows = joined(scheduled_rows(ProducePlan(count=4000, seed=1, mix=Mix.clean()), Limits(), NOW))
    end = NOW.timestamp() * 1000
    assert end - 2000 <= rows.kafka_ms[0] <= end - 1990
    assert end - 10 <= rows.kafka_ms[-1] <= end
    assert rows.kafka_ms == sorted(rows.kafka_ms)


def test_live_records_keep_their_rate_and_are_stamped_now() -> None:
    started = time.time()
    rows = joined(live_rows(ProducePlan(count=400, seed=1, rate=1000.0, mix=Mix.clean()), Limits(), threading.Event()))
    took = time.time() - started
    assert len(rows) == 400
    assert 0.35 < took < 3
    assert started * 1000 - 1 <= rows.kafka_ms[0] <= rows.kafka_ms[-1] <= time.time() * 1000


def test_live_records_stop_when_told() -> None:
    stop = threading.Event()
    rows = live_rows(ProducePlan(count=10**9, seed=1, rate=100.0), Limits(), stop)
    next(rows)
    stop.set()
    assert list(rows) == []


def test_paced_rows_take_as_long_as_their_rate_says() -> None:
    started = time.monotonic()
    parts = scheduled_rows(replace(PLAN, count=12_000), Limits(), NOW)
    assert sum(len(rows) for rows in paced(parts, 40_000, threading.Event())) == 12_000
    assert time.monotonic() - started > 0.24


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": None},
        {"count": -1},
        {"rate": 0.0, "start_time": None, "span_seconds": None},
        {"rate": 5.0},
        {"span_seconds": 0.0},
        {"customers": 0},
        {"endpoints": 10**6},
        {"start_time": datetime(2026, 1, 1)},  # noqa: DTZ001 - the point of the test
    ],
)
def test_plans_that_make_no_sense_are_refused_in_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"(expected|give).*\.$"):
        replace(PLAN, **wrong)


@pytest.mark.parametrize("wrong", [{"late": -0.1}, {"late": 1.1}, {"late": 0.6, "duplicate": 0.6}, {"late": float("nan")}])
def test_ratios_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        Mix(**wrong)
