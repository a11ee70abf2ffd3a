"""Dead letters that were replayed, discarded or stripped: green for right reasons, red where the record is nowhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse.proof.result import Invariant
from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER

Row = dict[str, Any]
AT = (0, 6)


def _in_table(lake: Any) -> pa.Table:
    """Silver with the column of version 1.1, which the hand-made lake's schema does not have."""
    schema = lake.delta(SILVER).schema().to_arrow()
    rows = [{**row, "cached": row.get("cached")} for row in lake.rows[SILVER]]
    return pa.Table.from_pylist(rows, pa.schema([*pa.schema(schema), ("cached", pa.bool_())]))


def _verify(lake: Any) -> dict[str, Invariant]:
    lake.write()
    write_deltalake(lake.path(SILVER), _in_table(lake), mode="overwrite", schema_mode="overwrite")
    if not lake.oracle:
        (lake.folder / "op_ledger" / "run-1.parquet").unlink()
    settings = lake.settings.model_copy(update={"schemas_dir": str(lake.folder / "schemas")})
    return {result.id: result for result in verify(settings, VerifyOptions())}


def _violated(lake: Any) -> dict[str, list[str]]:
    return {name: [f.problem for f in one.findings] for name, one in _verify(lake).items() if one.verdict == "violated"}


@pytest.fixture
def lake(hand_lake: Any) -> Any:
    """A lake with one event of version 1.1 (new field `cached`) that was a dead letter and has been replayed."""
    folder = hand_lake.folder / "schemas"
    folder.mkdir()
    first = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
    field = {"name": "cached", "type": "boolean", "required": False, "doc": "Served from a cache."}
    for schema in (first, {**first, "version": "1.1", "fields": [*first["fields"], field]}):
        (folder / f"{schema['version']}.json").write_text(json.dumps(schema), encoding="utf-8")
    old, plain = hand_lake.find(SILVER, 0, 0), hand_lake.find(DLQ, 0, 5)
    kafka = plain["_kafka_timestamp"] + timedelta(seconds=10)
    event = {name: old[name] for name in list(old)[:12]} | {"event_id": "e5", "customer_id": "cust-5", "schema_version": "1.1"}
    sent = event["event_timestamp"]
    value = json.dumps({**event, "event_timestamp": sent.isoformat(), "cached": True}).encode()
    place = {"_kafka_offset": AT[1], "_kafka_timestamp": kafka}
    hand_lake.rows[BRONZE].append({**hand_lake.find(BRONZE, 0, 5), **place, "_raw_value": value, "_raw_size": len(value)})
    state = {"_status": "replayed", "_attempts": 2, "_quality_flags": ["SLV-005"]}
    hand_lake.rows[DLQ].append({**plain, **place, **state, "_raw_value": value})
    delay = (kafka - sent).total_seconds()
    hand_lake.rows[SILVER].append({**old, **event, **place, "cached": True, "_arrival_delay_seconds": delay, "_event_key": 5})
    hand_lake.rows[GOLD_HOURLY].append({**hand_lake.rows[GOLD_HOURLY][0], "customer_id": "cust-5"})
    hand_lake.rows[GOLD_DAILY].append({**hand_lake.rows[GOLD_DAILY][1], "customer_id": "cust-5"})
    ledger = hand_lake.rows[LEDGER]
    ledger[1].update(offsets='{"0": [2, 7], "1": [2, 4]}', rows_read=6, inserted=6)
    ledger[3].update(offsets='{"0": [2, 7], "1": [2, 4]}', rows_read=6, dead_lettered=3)
    ledger.append({**ledger[3], "generation": "replay-1", "batch_id": 0, "offsets": "{}", "rows_read": 1, "inserted": 1})
    ledger[-1].update(duplicate=0, dead_lettered=0, tombstone=0)
    template = next(row for row in hand_lake.oracle if (row["partition"], row["offset"]) == (0, 5))
    digest = hashlib.md5(value, usedforsecurity=False).hexdigest()
    sent_row = {"offset": AT[1], "kafka_timestamp_ms": int(kafka.timestamp() * 1000), "expected_rule": "SLV-005"}
    hand_lake.oracle.append({**template, **sent_row, "value_md5": digest, "value_size": len(value)})
    return hand_lake


def test_replayed_letter_is_an_event(lake: Any) -> None:
    found = _verify(lake)
    assert {name: one.findings for name, one in found.items() if one.verdict == "violated"} == {}
    counts = found["I3"].counts
    assert {name: counts[name] for name in ("silver", "dead_letter", "replayed", "duplicate")} == {
        "silver": 5,
        "dead_letter": 2,
        "replayed": 1,
        "duplicate": 2,
    }


def _drop_row(lake: Any) -> None:
    lake.drop(SILVER, *AT)


def _drop_row_without_oracle(lake: Any) -> None:
    _drop_row(lake)
    lake.oracle = []


def _reopen(lake: Any) -> None:
    lake.find(DLQ, *AT)["_status"] = "open"


def _mark_broken_one(lake: Any) -> None:
    lake.find(DLQ, 0, 5)["_status"] = "replayed"


def _unknown_state(lake: Any) -> None:
    lake.find(DLQ, 0, 5)["_status"] = "lost"


def _strip_open(lake: Any) -> None:
    lake.find(DLQ, 0, 5)["_raw_value"] = None


def _lose_new_field(lake: Any) -> None:
    lake.find(SILVER, *AT)["cached"] = None


def _not_in_ledger(lake: Any) -> None:
    lake.rows[LEDGER].pop()


def _lose_letter(lake: Any) -> None:
    lake.drop(DLQ, *AT)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (_drop_row, {"I3", "I4", "I5", "I13"}),
        (_drop_row_without_oracle, {"I3", "I5", "I13"}),
        (_reopen, {"I3", "I4", "I13"}),
        (_mark_broken_one, {"I3", "I13"}),
        (_unknown_state, {"I3"}),
        (_strip_open, {"I11"}),
        (_lose_new_field, {"I13"}),
        (_not_in_ledger, {"I3"}),
        (_lose_letter, {"I3", "I4"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_letter_that_is_not_what_it_says_is_named(lake: Any, fault: Callable[[Any], None], named: set[str]) -> None:
    fault(lake)
    assert set(_violated(lake)) == named


def test_letter_that_would_pass_but_waits_is_named_as_such(lake: Any) -> None:
    _reopen(lake)
    _drop_row(lake)
    lake.rows[LEDGER].pop()
    lake.rows[GOLD_HOURLY].pop()
    lake.rows[GOLD_DAILY].pop()
    assert _violated(lake) == {
        "I13": ["open dead letter is a valid event by today's schema files (`lakehouse dlq replay` takes it), or a tombstone"]
    }


def test_discarded_letter_stays_a_dead_letter_though_it_would_pass(lake: Any) -> None:
    _drop_row(lake)
    lake.find(DLQ, *AT)["_status"] = "discarded"
    lake.rows[LEDGER].pop()
    lake.rows[GOLD_HOURLY].pop()
    lake.rows[GOLD_DAILY].pop()
    found = _verify(lake)
    assert {name: one.findings for name, one in found.items() if one.verdict == "violated"} == {}
    assert found["I13"].notes == ["1 discarded dead letters would be events by today's schema files"]


def test_copy_of_a_replayed_event_is_a_duplicate_by_kafka_time(lake: Any) -> None:
    # The letter's event is a copy of e1 that came later: e1's row stays, and the replay counted a duplicate.
    value = json.dumps({**json.loads(lake.find(BRONZE, *AT)["_raw_value"]), "event_id": "e1"}).encode()
    for table in (BRONZE, DLQ):
        lake.find(table, *AT)["_raw_value"] = value
    lake.find(BRONZE, *AT)["_raw_size"] = len(value)
    lake.oracle[-1].update(value_md5=hashlib.md5(value, usedforsecurity=False).hexdigest(), value_size=len(value))
    _drop_row(lake)
    lake.rows[LEDGER][-1].update(inserted=0, duplicate=1)
    lake.rows[GOLD_HOURLY].pop()
    lake.rows[GOLD_DAILY].pop()
    assert _violated(lake) == {}


def test_closed_letters_without_bytes_are_past_their_retention(lake: Any) -> None:
    lake.find(DLQ, *AT).update(_raw_value=None, _kafka_key=None, _kafka_headers=None)
    assert _violated(lake) == {}
