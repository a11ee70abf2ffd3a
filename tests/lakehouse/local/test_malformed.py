from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.local.event_text import encode, message
from lakehouse.local.malformed import KINDS, break_event, oversize
from lakehouse.local.malformed_kind import Malformed
from lakehouse.local.unusual import WAYS, rewrite_event
from lakehouse.proof.event_rows import EVENT_COLUMNS, Rows

EVENT: dict[str, Any] = {
    "event_id": "b7f2f3a0-0000-8000-8000-000000000001",
    "event_ms": 1_769_594_400_123,
    "customer_id": "cust-000001",
    "api_key_id": "key-000001-0",
    "endpoint": "/v1/invoices/{id}",
    "method": "GET",
    "status_code": 200,
    "response_time_ms": 12.3,
    "request_bytes": 10,
    "response_bytes": 2000,
    "region": "eu-central-1",
}
PICKS = range(400)


def one_event() -> Rows:
    rows = Rows(
        value=[encode(message(EVENT))], key=[b"k"], kafka_ms=[1_769_594_401_000], kind=[""], expected=["event"], rule=[None]
    )
    for name in EVENT_COLUMNS:
        getattr(rows, name).append(EVENT[name])
    return rows


def test_the_event_that_is_broken_was_whole(judge: Any) -> None:
    assert judge(encode(message(EVENT)))[0] == set()


@pytest.mark.parametrize("way", KINDS, ids=lambda way: way.kind)
def test_each_way_of_a_kind_breaks_its_rule_and_no_other(way: Malformed, judge: Any) -> None:
    values = {way.break_(message(EVENT), pick) for pick in PICKS}
    for value in values:
        assert judge(value)[0] == {way.rule}, value[:300]


KIND = {way.kind: way for way in KINDS}


def values_of(kind: str) -> set[bytes]:
    return {KIND[kind].break_(message(EVENT), pick) for pick in PICKS}


def test_cut_json_is_a_proper_prefix_of_the_event() -> None:
    whole = encode(message(EVENT))
    assert all(whole.startswith(value) and 0 < len(value) < len(whole) for value in values_of("malformed_cut"))


def test_trailing_text_starts_with_a_whole_event() -> None:
    whole = encode(message(EVENT))
    assert all(value.startswith(whole) and value != whole for value in values_of("malformed_trailing"))


def test_nan_overflow_and_duplicate_keys_pass_pythons_lax_parser() -> None:
    for kind in ("malformed_nan", "malformed_overflow_double", "malformed_duplicate_key"):
        assert all(isinstance(json.loads(value), dict) for value in values_of(kind))


def test_bad_utf8_has_overlong_surrogate_and_cut_sequences() -> None:
    values = values_of("malformed_utf8")
    for bad in (b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff"):
        assert any(bad in value for value in values)


def test_wrong_types_and_ranges_name_many_fields() -> None:
    whole = message(EVENT)
    for kind, least in (("malformed_wrong_type", 9), ("malformed_out_of_range", 7), ("malformed_null", 9)):
        changed = {name for value in values_of(kind) for name, found in json.loads(value).items() if found != whole[name]}
        assert len(changed) >= least, kind


@given(st.integers(1, 10_000).filter(lambda limit: limit > 400))
def test_oversize_is_one_byte_over_the_limit(limit: int) -> None:
    assert len(oversize(message(EVENT), limit)) == limit + 1


@given(st.integers(0, 2**63 - 1))
def test_a_broken_row_is_no_event_any_more(pick: int) -> None:
    rows = one_event()
    break_event(rows, 0, pick, 262_144)
    assert rows.expected == ["dead_letter"]
    assert rows.rule[0] is not None
    assert rows.event(0) == dict.fromkeys(EVENT_COLUMNS)
    assert rows.value[0] is not None


@given(st.integers(0, 2**63 - 1))
def test_an_unusual_event_is_still_valid_and_warns_of_unknown_fields_only(pick: int) -> None:
    from_file = json.loads(encode(message(EVENT)))
    rows = one_event()
    rewrite_event(rows, 0, pick)
    found = json.loads(rows.value[0] or b"")
    assert rows.rule[0] == ("SLV-102" if set(found) - set(from_file) else None)
    assert rows.expected == ["event"]


def test_there_is_each_unusual_way(judge: Any) -> None:
    kinds = set()
    for pick in PICKS:
        rows = one_event()
        rewrite_event(rows, 0, pick)
        kinds.add(rows.kind[0])
        assert judge(rows.value[0])[0] == set(), rows.value[0]
    assert kinds == {kind for kind, _, _ in WAYS}
