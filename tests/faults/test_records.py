"""Records as the world sends them, from the broker to the bill: each has the fate that is written here, in so many words."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import KafkaError
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from lakehouse.local.event_text import encode, message
from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.operations.streams import run_to_end
from pipelines.gold.paths import Paths
from pipelines.gold.reconciliation.outcome import Outcome
from pipelines.gold.reconciliation.reconcile import reconcile
from pipelines.lake.tables import ADJUSTMENTS, BRONZE, DLQ, GOLD_DAILY, LEDGER, SILVER, TableName
from tests.faults.by_hand import Place, Record, columns, milliseconds, note, producer_of, rejected, send, valid
from tests.faults.conftest import DAY, LakeCase, make_case
from tests.faults.evidence import Evidence

pytestmark = pytest.mark.faults

Row = dict[str, Any]
BROKER_LIMIT = 1_048_588
"""Kafka's default of `message.max.bytes`: a batch of records, headers included."""
SILVER_LIMIT = 262_144
BAD = b"\xff\xfe\x80"
TEN_YEARS = timedelta(days=3653)
MONTH_AGO = DAY - timedelta(days=30)
REQUIRED = "event_id event_timestamp customer_id api_key_id endpoint method status_code request_bytes response_bytes".split()


def _changed(event_id: str, **changes: Any) -> bytes:
    """A valid event with changes to its JSON; `...` leaves a field out."""
    fields = {**message(columns(event_id, DAY)), **changes}
    return encode({name: value for name, value in fields.items() if value is not ...})


def _padded(event_id: str, size: int) -> bytes:
    return _changed(event_id, padding="x" * (size - len(_changed(event_id, padding=""))))


@dataclass
class Told:
    """What was sent, where it is, and what the lake says of it in the end."""

    case: LakeCase
    sent: dict[str, Record] = field(default_factory=dict)
    at: dict[str, Place] = field(default_factory=dict)
    runs: list[Outcome] = field(default_factory=list)
    verdicts: dict[str, str] = field(default_factory=dict)

    def send(self, **records: Record) -> None:
        """Send records and remember them by name."""
        self.at |= dict(zip(records, send(self.case, list(records.values())), strict=True))
        self.sent |= records

    def rows(self, table: TableName) -> list[Row]:
        rows: list[Row] = DeltaTable(table.path(self.case.settings)).to_pyarrow_table().to_pylist()
        return rows

    def find(self, table: TableName, name: str) -> Row | None:
        """The row of a record; None where the table has none."""
        rows = [row for row in self.rows(table) if (row["_kafka_partition"], row["_kafka_offset"]) == self.at[name]]
        assert len(rows) <= 1
        return rows[0] if rows else None

    def fate(self, name: str) -> str:
        """silver, dead_letter, or neither of them."""
        found = [fate for fate, table in (("silver", SILVER), ("dead_letter", DLQ)) if self.find(table, name)]
        return " and ".join(found) or "neither"

    def rules(self, name: str) -> list[str]:
        """Rules that a record's row or dead letter names."""
        row = self.find(SILVER, name) or self.find(DLQ, name)
        assert row is not None
        return list(row["_quality_flags"])


def _send_greatest(told: Told) -> None:
    """Send events of every size from one too large for the broker on; the first that it takes is the greatest."""
    refused: list[KafkaError] = []
    producer = producer_of(told.case)
    for size in range(BROKER_LIMIT, BROKER_LIMIT - 200, -1):
        taken: list[Place] = []
        value = _padded("greatest", size)

        def answered(error: KafkaError | None, sent: Any, taken: list[Place] = taken) -> None:
            if error is None:
                taken.append((sent.partition(), sent.offset()))
            else:
                refused.append(error)

        at = milliseconds(DAY)
        producer.produce(told.case.settings.kafka.topic, value, b"cust-hand", 0, on_delivery=answered, timestamp=at)
        assert producer.flush(30) == 0
        if taken:
            assert {error.code() for error in refused} == {KafkaError.MSG_SIZE_TOO_LARGE}
            record = rejected(value, "SLV-001", DAY)
            note(told.case, [record], taken)
            told.sent["greatest"], told.at["greatest"] = record, taken[0]
            return
    msg = "the broker took no record near its limit"
    raise AssertionError(msg)


def _first_day(told: Told) -> None:
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    told.send(
        plain=valid("plain", DAY),
        bad_value=rejected(b'{"event_id":"' + BAD, "SLV-002", DAY),
        bad_both=rejected(_changed("bad-both").replace(b"orders", BAD), "SLV-002", DAY, key=BAD),
        bad_key=valid("bad-key", DAY, key=BAD),
        tombstone=Record(None, b"cust-hand", DAY, "tombstone"),
        bare_tombstone=Record(None, None, DAY, "tombstone"),
        empty=rejected(b"", "SLV-003", DAY),
        null_key=valid("null-key", DAY, key=None),
        empty_key=valid("empty-key", DAY, key=b""),
        text_status=rejected(_changed("text-status", status_code="200"), "SLV-007", DAY),
        object_customer=rejected(_changed("object-customer", customer_id={"id": 7}), "SLV-007", DAY),
        no_endpoint=rejected(_changed("no-endpoint", endpoint=...), "SLV-006", DAY),
        null_method=rejected(_changed("null-method", method=None), "SLV-006", DAY),
        no_version=rejected(_changed("no-version", schema_version=...), "SLV-005", DAY),
        unknown_field=Record(_changed("unknown-field", trace="t-1"), b"k", DAY, event=columns("unknown-field", DAY)),
        largest_event=Record(_padded("largest", SILVER_LIMIT), b"k", DAY, event=columns("largest", DAY)),
        conflict_first=valid("conflict", DAY, status_code=200),
        conflict_second=valid("conflict", DAY + minute, event_at=DAY, status_code=500),
        copy_first=valid("copy", DAY),
        copy_in_batch=valid("copy", DAY + minute, event_at=DAY),
        later=valid("replaced", DAY + hour, event_at=DAY, status_code=201),
        ahead=valid("ahead", DAY, event_at=DAY + TEN_YEARS),
        ancient=valid("ancient", DAY, event_at=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        behind=valid("behind", DAY, event_at=DAY - hour),
        all_ahead=valid("all-ahead", DAY + TEN_YEARS),
        all_ancient=valid("all-ancient", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        all_behind=valid("all-behind", DAY - hour),
        month_ago=valid("month-ago", MONTH_AGO),
    )
    _send_greatest(told)


def _second_day(told: Told) -> None:
    told.send(
        copy_in_later_batch=valid("copy", DAY + timedelta(hours=1), event_at=DAY, partition=1),
        copy_next_day=valid("copy", DAY + timedelta(days=3), event_at=DAY),
        # It reached Kafka before the copy that Silver has, and is read after it.
        earlier=valid("replaced", DAY, status_code=200, partition=1),
        after_clocks=valid("after-clocks", DAY + timedelta(minutes=5)),
        late_open=valid("late-open", DAY, event_at=MONTH_AGO),
    )


@pytest.fixture(scope="module")
def told(spark: SparkSession, broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Told:
    case = make_case(tmp_path_factory.mktemp("records"), broker.bootstrap_servers)
    told, settings = Told(case), case.settings

    def run(*names: str, checkpoints: str = "checkpoints") -> None:
        run_to_end(spark, case.with_checkpoints(checkpoints), names, threading.Event())

    def close_month_ago() -> None:
        # Without the gate, which refuses a day of which all events came late.
        told.runs.append(reconcile(spark, settings, Paths.of(settings), MONTH_AGO.date(), datetime.now(UTC), suites=[]))

    _first_day(told)
    run("bronze", "silver", "gold")
    _second_day(told)
    run("bronze", "silver")
    # Before Gold has seen the late event: the daily batch repairs the day by itself.
    close_month_ago()
    run("gold")
    told.send(
        late_closed=valid("late-closed", DAY + timedelta(days=3), event_at=MONTH_AGO),
        copy_after_restart=valid("copy", DAY + timedelta(days=3), event_at=DAY),
    )
    # New checkpoints: everything is read again.
    run("bronze", "silver", "gold", checkpoints="checkpoints-2")
    close_month_ago()
    told.verdicts = case.verdicts()
    return told


def _ledger_sum(told: Told, name: str) -> int:
    return sum(row[name] for row in told.rows(LEDGER) if row["job"] == "silver")


def _show(told: Told, evidence: Evidence, names: Sequence[str]) -> None:
    """Every record is in Bronze with its bytes, and the checker agrees."""
    for name in names:
        row = told.find(BRONZE, name)
        assert row is not None, name
        assert (row["_raw_value"], row["_kafka_key"]) == (told.sent[name].value, told.sent[name].key)
    evidence.holds(told.verdicts)


@pytest.mark.case("M1")
def test_invalid_utf8_in_value_or_key(told: Told, evidence: Evidence) -> None:
    for name in ("bad_value", "bad_both"):
        letter = told.find(DLQ, name)
        assert letter is not None
        assert (letter["_raw_value"], letter["_kafka_key"]) == (told.sent[name].value, told.sent[name].key)
        assert letter["_quality_flags"] == ["SLV-002"]
        assert told.fate(name) == "dead_letter"
    # A key is bytes to the lake: it says where a record lies, not what happened.
    assert told.fate("bad_key") == "silver"
    evidence.fired("3 records: both bad values are dead letters with value and key byte for byte")
    _show(told, evidence, ["bad_value", "bad_both", "bad_key"])


@pytest.mark.case("M2")
def test_tombstone_empty_value_null_key(told: Told, evidence: Evidence) -> None:
    fates = {name: told.fate(name) for name in ("tombstone", "bare_tombstone", "empty", "null_key", "empty_key")}
    assert list(fates.values()) == ["neither", "neither", "dead_letter", "silver", "silver"]
    assert told.rules("empty") == ["SLV-003"]
    assert _ledger_sum(told, "tombstone") == 2
    evidence.fired("5 records: 2 tombstones counted, the empty value a dead letter, events without a key kept")
    _show(told, evidence, list(fates))


@pytest.mark.case("M3")
def test_type_change_missing_field_unknown_field(told: Told, evidence: Evidence) -> None:
    letters = {"text_status": "SLV-007", "object_customer": "SLV-007", "no_endpoint": "SLV-006", "null_method": "SLV-006"}
    letters["no_version"] = "SLV-005"
    for name, rule in letters.items():
        assert told.fate(name) == "dead_letter"
        assert rule in told.rules(name)
    assert told.fate("unknown_field") == "silver"
    assert told.rules("unknown_field") == ["SLV-102"]
    kept = told.find(BRONZE, "unknown_field")
    assert kept is not None
    assert json.loads(kept["_raw_value"])["trace"] == "t-1"
    assert not [row for row in told.rows(SILVER) if any(row[name] is None for name in REQUIRED)]
    evidence.fired("6 records: 5 dead letters by their rule, the unknown field kept in Bronze and flagged, no silent NULL")
    _show(told, evidence, [*letters, "unknown_field"])


@pytest.mark.case("M4")
def test_record_of_the_greatest_size(told: Told, evidence: Evidence) -> None:
    value = told.sent["greatest"].value
    assert value is not None
    assert BROKER_LIMIT - 200 < len(value) < BROKER_LIMIT
    assert (told.fate("greatest"), told.rules("greatest")) == ("dead_letter", ["SLV-001"])
    assert len(told.sent["largest_event"].value or b"") == SILVER_LIMIT
    assert told.fate("largest_event") == "silver"
    evidence.fired(f"{len(value):,} bytes, one more is refused by the broker; a valid event of {SILVER_LIMIT:,} bytes beside it")
    _show(told, evidence, ["greatest", "largest_event"])


@pytest.mark.case("M5")
def test_same_id_with_another_payload(told: Told, evidence: Evidence) -> None:
    assert (told.fate("conflict_first"), told.fate("conflict_second")) == ("silver", "neither")
    rows = [row["status_code"] for row in told.rows(SILVER) if row["event_id"] == "conflict"]
    assert rows == [200]
    # The other pair of its kind: `replaced`, whose earlier copy came later.
    assert _ledger_sum(told, "conflict") == 2
    evidence.fired("2 payloads under an id: the first is the row, the other is counted as a conflict")
    _show(told, evidence, ["conflict_first", "conflict_second"])


@pytest.mark.case("M6")
def test_copies_in_a_batch_across_batches_days_and_restarts(told: Told, evidence: Evidence) -> None:
    copies = ["copy_first", "copy_in_batch", "copy_in_later_batch", "copy_next_day", "copy_after_restart"]
    assert [told.fate(name) for name in copies] == ["silver", "neither", "neither", "neither", "neither"]
    assert (told.fate("earlier"), told.fate("later")) == ("silver", "neither")
    ids = Counter(row["event_id"] for row in told.rows(SILVER))
    assert set(ids.values()) == {1}
    assert _ledger_sum(told, "replaced") == 1
    evidence.fired("5 copies over 3 days, 3 runs and 2 checkpoints: one row, the first; an earlier copy took a row's place")
    _show(told, evidence, [*copies, "earlier", "later"])


@pytest.mark.case("M7")
def test_wrong_clocks(told: Told, evidence: Evidence) -> None:
    flags = {"ahead": ["SLV-101"], "ancient": ["SLV-103"], "behind": [], "all_ahead": [], "all_behind": []}
    # A Kafka time of the first weeks of 1970 is none.
    flags["all_ancient"] = ["SLV-104"]
    assert {name: told.rules(name) for name in flags} == flags
    late = {row["event_id"] for row in told.rows(SILVER) if row["_is_late_arriving"]}
    assert late == {"ancient", "late-open", "late-closed"}
    # Nobody else's event is flagged or lost, though the stream's time was ten years ahead by then.
    assert (told.fate("after_clocks"), told.rules("after_clocks"), told.rules("plain")) == ("silver", [], [])
    evidence.fired("6 clocks (ten years ahead, 1970, an hour back; of the event, of Kafka's time too): flagged by rule alone")
    _show(told, evidence, [*flags, "after_clocks"])


@pytest.mark.case("M8")
def test_event_of_a_month_ago(told: Told, evidence: Evidence) -> None:
    for name in ("late_open", "late_closed"):
        row = told.find(SILVER, name)
        assert row is not None
        assert row["_is_late_arriving"]
        assert row["_event_date"] == MONTH_AGO.date()
    repaired, adjusted = told.runs
    assert (repaired.was_final, repaired.events_before, repaired.events_after, repaired.status) == (False, 1, 2, "final")
    assert {cause for _, cause in repaired.differences} == {"late_events"}
    assert (adjusted.was_final, adjusted.adjusted) == (True, 1)
    bill = [(row["event_count"], row["billing_status"]) for row in told.rows(GOLD_DAILY) if row["day"] == MONTH_AGO.date()]
    assert bill == [(2, "final")]
    assert [(row["event_count"], row["cause"]) for row in told.rows(ADJUSTMENTS)] == [(1, "late")]
    evidence.fired("2 events 30 days late: kept and flagged; the open day repaired by the batch, the closed one adjusted")
    _show(told, evidence, ["late_open", "late_closed", "month_ago"])
