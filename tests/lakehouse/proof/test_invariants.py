"""Every invariant holds on a sound lake, and goes red, by name, when it is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from lakehouse.proof.runner import VerifyOptions, verify
from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.tables import ADJUSTMENTS, BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER
from tests.far_times import FAR_TIMES, add_far_record

if TYPE_CHECKING:
    from collections.abc import Iterable

Mutation = Callable[[Any], None]


def verdicts(lake: Any, **options: Any) -> dict[str, str]:
    return {result.id: result.verdict for result in verify(lake.settings, VerifyOptions(**options))}


def violated(lake: Any, **options: Any) -> set[str]:
    return {name for name, verdict in verdicts(lake, **options).items() if verdict == "violated"}


def problems(lake: Any, name: str) -> list[str]:
    found = next(result for result in verify(lake.settings, VerifyOptions()) if result.id == name)
    return [f"{finding.problem}: {'; '.join(finding.first)}" for finding in found.findings]


def test_sound_lake_holds(hand_lake: Any) -> None:
    hand_lake.write()
    results = verify(hand_lake.settings, VerifyOptions())
    assert [(r.id, r.verdict, r.findings) for r in results if r.verdict != "holds"] == [("I6", "not checked", [])]
    assert [r.id for r in results] == ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I11", "I12", "I13"]
    counts = next(r.counts for r in results if r.id == "I3")
    assert {name: counts[name] for name in ("bronze", "silver", "duplicate", "dead_letter", "tombstone")} == {
        "bronze": 9,
        "silver": 4,
        "duplicate": 2,
        "dead_letter": 2,
        "tombstone": 1,
    }


def _lose_record(lake: Any) -> None:
    lake.drop(BRONZE, 0, 2)


def _shift_kafka_timestamp(lake: Any) -> None:
    row = lake.find(BRONZE, 0, 2)
    row["_kafka_timestamp"] = row["_kafka_timestamp"].replace(microsecond=1000)


def _invent_record(lake: Any) -> None:
    lake.rows[BRONZE].append({**lake.find(BRONZE, 1, 2), "_kafka_offset": 99})


def _repeat_bronze(lake: Any) -> None:
    lake.rows[BRONZE].append(dict(lake.find(BRONZE, 0, 2)))


def _lose_silver(lake: Any) -> None:
    lake.drop(SILVER, 0, 4)


def _lose_dead_letter(lake: Any) -> None:
    lake.drop(DLQ, 1, 3)


def _two_fates(lake: Any) -> None:
    lake.rows[DLQ].append({**lake.find(DLQ, 0, 5), "_kafka_offset": 1})


def _wrong_rule(lake: Any) -> None:
    lake.find(DLQ, 0, 5)["_quality_flags"] = ["SLV-001"]


def _no_rule(lake: Any) -> None:
    lake.find(DLQ, 0, 5)["_quality_flags"] = []


def _batch_does_not_add_up(lake: Any) -> None:
    lake.rows[LEDGER][3]["rows_read"] = 6


def _batch_counted_twice(lake: Any) -> None:
    lake.rows[LEDGER].append({**lake.rows[LEDGER][3], "batch_id": 2, "generation": "g2"})


def _batch_row_twice(lake: Any) -> None:
    lake.rows[LEDGER].append(dict(lake.rows[LEDGER][4]))


def _bronze_batches_leave_a_gap(lake: Any) -> None:
    lake.rows[LEDGER][1]["offsets"] = '{"0": [3, 6], "1": [2, 4]}'


def _bronze_rows_read_is_wrong(lake: Any) -> None:
    lake.rows[LEDGER][0].update(rows_read=5, inserted=4, already_present=1)


def _no_dedup(lake: Any) -> None:
    copy = {**lake.find(SILVER, 0, 0), "_kafka_offset": 2, "_kafka_timestamp": lake.find(BRONZE, 0, 2)["_kafka_timestamp"]}
    copy["_arrival_delay_seconds"] += 20
    lake.rows[SILVER].append(copy)


def _later_copy_survives(lake: Any) -> None:
    row = lake.find(SILVER, 0, 0)
    row.update(_kafka_offset=2, _kafka_timestamp=lake.find(BRONZE, 0, 2)["_kafka_timestamp"])
    row["_arrival_delay_seconds"] += 20


def _change_field(name: str, value: Any) -> Mutation:
    def change(lake: Any) -> None:
        lake.find(SILVER, 0, 1)[name] = value

    return change


def _lose_gold_hour(lake: Any) -> None:
    lake.rows[GOLD_HOURLY].pop()


def _gold_hour_of_nothing(lake: Any) -> None:
    lake.rows[GOLD_HOURLY].append({**lake.rows[GOLD_HOURLY][0], "customer_id": "cust-9"})


def _gold_key_twice(lake: Any) -> None:
    lake.rows[GOLD_HOURLY].append(dict(lake.rows[GOLD_HOURLY][0]))


def _gold_bucket_off(lake: Any) -> None:
    lake.rows[GOLD_HOURLY][0].update(latency_le_25=0, latency_le_50=1)


def _gold_daily_off(lake: Any) -> None:
    lake.rows[GOLD_DAILY][0]["response_bytes"] += 1


def _gold_hour_not_on_the_hour(lake: Any) -> None:
    row = lake.rows[GOLD_HOURLY][0]
    row["hour"] = row["hour"].replace(minute=30)


def _flip_bronze_bit(lake: Any) -> None:
    row = lake.find(BRONZE, 0, 2)
    row["_raw_value"] = row["_raw_value"].replace(b'"GET"', b'"PUT"')


def _replace_bronze_key(lake: Any) -> None:
    lake.find(BRONZE, 0, 2)["_kafka_key"] = None


def _clean_dead_letter(lake: Any) -> None:
    lake.find(DLQ, 1, 3)["_raw_value"] = "\ufffd".encode()


def _late_flag_off(lake: Any) -> None:
    lake.find(SILVER, 0, 1)["_is_late_arriving"] = False


def _delay_off(lake: Any) -> None:
    lake.find(SILVER, 0, 1)["_arrival_delay_seconds"] -= 60


def _oracle_says_late(lake: Any) -> None:
    next(row for row in lake.oracle if row.get("event_id") == "e3")["is_late"] = True


@pytest.mark.parametrize(
    ("mutation", "named"),
    [
        (_lose_record, {"I1", "I3"}),
        (_shift_kafka_timestamp, {"I1"}),
        (_invent_record, {"I1", "I3"}),
        (_repeat_bronze, {"I2", "I3"}),
        (_lose_silver, {"I3", "I4", "I5", "I13"}),
        (_lose_dead_letter, {"I3", "I13"}),
        (_two_fates, {"I3", "I11", "I13"}),
        (_wrong_rule, {"I3"}),
        (_no_rule, {"I3"}),
        (_batch_does_not_add_up, {"I3"}),
        (_batch_counted_twice, {"I3"}),
        (_batch_row_twice, {"I3"}),
        (_bronze_batches_leave_a_gap, {"I3"}),
        (_bronze_rows_read_is_wrong, {"I3"}),
        (_no_dedup, {"I3", "I4", "I5", "I13"}),
        (_later_copy_survives, {"I3", "I4", "I13"}),
        (_change_field("event_id", "e9"), {"I4", "I13"}),
        (_change_field("request_bytes", 101), {"I4", "I5", "I13"}),
        (_change_field("region", ""), {"I4", "I13"}),
        (_change_field("response_time_ms", 0.0), {"I4", "I5", "I13"}),
        (_lose_gold_hour, {"I5"}),
        (_gold_hour_of_nothing, {"I5"}),
        (_gold_key_twice, {"I5"}),
        (_gold_bucket_off, {"I5"}),
        (_gold_daily_off, {"I5"}),
        (_gold_hour_not_on_the_hour, {"I5"}),
        (_flip_bronze_bit, {"I11"}),
        (_replace_bronze_key, {"I11"}),
        (_clean_dead_letter, {"I11"}),
        (_late_flag_off, {"I5", "I12"}),
        (_delay_off, {"I12"}),
        (_oracle_says_late, {"I12"}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_broken_lake_names_the_invariant(hand_lake: Any, mutation: Mutation, named: Iterable[str]) -> None:
    mutation(hand_lake)
    hand_lake.write()
    # A record that is wrong in one place may break others too; none that it does not touch.
    assert set(named) == violated(hand_lake)


def test_offenders_are_named_by_coordinates_without_payload(hand_lake: Any) -> None:
    _change_field("customer_id", "cust-secret")(hand_lake)
    hand_lake.write()
    assert problems(hand_lake, "I4") == ["fields differ from the event sent: api-usage-events/0@1 fields=customer_id"]
    text = str([result.as_dict() for result in verify(hand_lake.settings, VerifyOptions())])
    assert "cust-" not in text


def test_final_day_is_compared_with_the_silver_version_it_was_billed_from(hand_lake: Any) -> None:
    for row in hand_lake.rows[GOLD_DAILY]:
        row["billing_status"] = "final"
    hand_lake.write()
    late = hand_lake.find(SILVER, 0, 1)
    hand_lake.rows[SILVER] += [{**late, "event_id": "e7"}, {**late, "event_id": "e8", "customer_id": "cust-new"}]
    hand_lake.write(SILVER)
    found = problems(hand_lake, "I5")
    assert [problem.split(":")[0] for problem in found] == [
        "hourly row of Silver missing in Gold",
        "hourly row differs from Silver",
    ]
    hand_lake.rows[GOLD_DAILY][0]["event_count"] += 1
    hand_lake.write(GOLD_DAILY)
    assert any(problem.startswith("daily row differs") for problem in problems(hand_lake, "I5"))


def _close_and_add_a_late_event(lake: Any) -> None:
    """Close the days, then let Silver (version 1) and hourly Gold have one more event of cust-1."""
    for row in lake.rows[GOLD_DAILY]:
        row["billing_status"] = "final"
    lake.write()
    lake.rows[SILVER].append({**lake.find(SILVER, 0, 1), "event_id": "e7"})
    lake.write(SILVER)
    hour = lake.rows[GOLD_HOURLY][1]
    for name in ("event_count", "error_count", "late_count", "request_bytes", "response_bytes"):
        hour[name] *= 2
    lake.write(GOLD_HOURLY)


def test_bill_and_its_adjustments_equal_silver(hand_lake: Any, make_adjustment: Callable[..., Any]) -> None:
    _close_and_add_a_late_event(hand_lake)
    day = hand_lake.rows[GOLD_DAILY][0]["day"]
    assert problems(hand_lake, "I5") == []
    hand_lake.rows[ADJUSTMENTS] = [make_adjustment(day, "cust-1", error_count=1)]
    hand_lake.write(ADJUSTMENTS)
    adjusted = next(r for r in verify(hand_lake.settings, VerifyOptions()) if r.id == "I5")
    assert (adjusted.verdict, adjusted.notes, adjusted.counts["adjusted bills"]) == ("holds", [], 1)
    hand_lake.rows[ADJUSTMENTS][0]["response_bytes"] += 1
    hand_lake.write(ADJUSTMENTS)
    assert [problem.split(":")[0] for problem in problems(hand_lake, "I5")] == ["daily row differs from Silver"]


def test_adjustment_of_an_open_day_is_named(hand_lake: Any, make_adjustment: Callable[..., Any]) -> None:
    hand_lake.rows[ADJUSTMENTS] = [make_adjustment(hand_lake.rows[GOLD_DAILY][0]["day"], "cust-1")]
    hand_lake.write()
    assert problems(hand_lake, "I5")[0].startswith("adjustment of a day that is not closed")


def test_bill_that_waits_for_an_adjustment_whose_silver_version_is_gone_is_not_checked(hand_lake: Any) -> None:
    _close_and_add_a_late_event(hand_lake)
    now = {file.rsplit("/", 1)[1] for file in hand_lake.delta(SILVER).file_uris()}
    for file in Path(hand_lake.path(SILVER)).glob("*.parquet"):
        if file.name not in now:
            file.unlink()
    found = next(r for r in verify(hand_lake.settings, VerifyOptions()) if r.id == "I5")
    assert (found.verdict, found.findings) == ("not checked", [])
    assert found.skipped is not None
    assert "run the daily batch for these days" in found.skipped


def test_records_of_other_senders_are_counted_only_when_that_is_said(hand_lake: Any) -> None:
    hand_lake.oracle = [row for row in hand_lake.oracle if row.get("event_id") != "e3"]
    hand_lake.write()
    assert violated(hand_lake) == {"I1", "I4"}
    assert violated(hand_lake, others_send=True) == set()


def test_a_topic_that_the_ledger_does_not_cover_is_no_violation(hand_lake: Any) -> None:
    for row in hand_lake.oracle:
        row["topic"] = "another"
    hand_lake.write()
    assert "I1" in violated(hand_lake)
    first = next(r for r in verify(hand_lake.settings, VerifyOptions()) if r.id == "I1")
    assert first.counts["records of others"] == 9
    assert [finding.problem for finding in first.findings] == ["acknowledged, but missing in Bronze"]


def test_without_a_ledger_the_tables_are_still_checked(hand_lake: Any) -> None:
    hand_lake.write()
    (hand_lake.folder / "op_ledger" / "run-1.parquet").unlink()
    found = verdicts(hand_lake)
    assert {name for name, verdict in found.items() if verdict == "not checked"} == {"I1", "I4", "I6", "I11", "I12"}
    assert "violated" not in found.values()


@pytest.mark.parametrize(("microseconds", "as_spark_writes_it"), FAR_TIMES)
def test_record_of_a_time_after_python_ends_is_checked_like_any_other(
    hand_lake: Any, microseconds: int, as_spark_writes_it: str
) -> None:
    record, letter = hand_lake.drop(BRONZE, 0, 5), hand_lake.drop(DLQ, 0, 5)
    sent = next(row for row in hand_lake.oracle if (row["partition"], row["offset"]) == (0, 5))
    sent["kafka_timestamp_ms"] = microseconds // 1000
    hand_lake.write()
    add_far_record(hand_lake.path(BRONZE), record, microseconds, as_spark_writes_it, "_event_date")
    assert {"I3"} <= violated(hand_lake)
    add_far_record(hand_lake.path(DLQ), letter, microseconds, as_spark_writes_it, "_dlq_date")
    assert violated(hand_lake) == set()


def test_rerun_with_new_checkpoints_holds(hand_lake: Any) -> None:
    again = [row for row in hand_lake.rows[LEDGER] if row["job"] in ("bronze", "silver")]
    zero = {"inserted": 0, "duplicate": 0, "conflict": 0, "dead_lettered": 0, "tombstone": 0, "late": 0}
    hand_lake.rows[LEDGER] += [{**row, **zero, "generation": "g2", "already_present": row["rows_read"]} for row in again]
    hand_lake.write()
    assert violated(hand_lake) == set()


def test_replay_that_changes_gold_is_named(hand_lake: Any, tmp_path: Path) -> None:
    digest = tmp_path / "gold.json"
    hand_lake.write()
    assert verdicts(hand_lake, write_digest=digest)["I6"] == "not checked"
    for row in hand_lake.rows[GOLD_DAILY]:
        row.update(silver_version=5, _updated_at=row["_updated_at"].replace(year=2027))
    hand_lake.rows[GOLD_HOURLY].reverse()
    hand_lake.write()
    assert verdicts(hand_lake, gold_digest=digest)["I6"] == "holds"
    hand_lake.rows[GOLD_DAILY][0]["event_count"] += 1
    hand_lake.write()
    assert "I6" in violated(hand_lake, gold_digest=digest)


def test_missing_data_file_is_named(hand_lake: Any) -> None:
    hand_lake.write()
    Path(hand_lake.delta(SILVER).file_uris()[0]).unlink()
    assert violated(hand_lake) == {"I7"}


def test_damaged_footer_is_named(hand_lake: Any) -> None:
    hand_lake.write()
    file = Path(hand_lake.delta(BRONZE).file_uris()[0])
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    assert "footer" in problems(hand_lake, "I7")[0]


def test_damaged_data_behind_a_sound_footer_is_named(hand_lake: Any) -> None:
    hand_lake.write()
    file = Path(hand_lake.delta(BRONZE).file_uris()[0])
    data = file.read_bytes()
    file.write_bytes(data[:4] + bytes(byte ^ 255 for byte in data[4:600]) + data[600:])
    [problem] = problems(hand_lake, "I7")
    assert problem.startswith(f"bronze.api_usage_events: data file: {file.name} is damaged"), problem


def test_hole_in_the_versions_is_named(hand_lake: Any) -> None:
    hand_lake.write()
    hand_lake.write(SILVER)
    hand_lake.write(SILVER)
    (Path(hand_lake.path(SILVER)) / "_delta_log" / f"{1:020}.json").unlink()
    try:
        assert violated(hand_lake) == {"I7"}
    except LakehouseError as error:
        assert "I7" in str(error)  # noqa: PT017 - deltalake may refuse such a log itself


def test_transaction_version_that_falls_is_named(hand_lake: Any) -> None:
    hand_lake.write()
    rows = hand_lake.delta(LEDGER).to_pyarrow_table().slice(0, 0)
    for number in (3, 4, 4):
        properties = CommitProperties(app_transactions=[Transaction("silver", number)])
        write_deltalake(hand_lake.path(LEDGER), rows, mode="append", commit_properties=properties)
    assert violated(hand_lake) == {"I8"}


def test_no_lake_is_one_sentence(hand_lake: Any) -> None:
    with pytest.raises(UsageError, match="There is no Delta table bronze"):
        verify(hand_lake.settings, VerifyOptions())


def test_ledger_folder_without_ledger_is_refused(hand_lake: Any, tmp_path: Path) -> None:
    hand_lake.write()
    with pytest.raises(UsageError, match="no op ledger"):
        verify(hand_lake.settings, VerifyOptions(ledger=tmp_path / "nowhere"))


def test_ledger_of_two_topics_of_one_name_is_refused(hand_lake: Any) -> None:
    hand_lake.oracle.append(dict(hand_lake.oracle[0]))
    hand_lake.write()
    with pytest.raises(UsageError, match="coordinates twice"):
        verify(hand_lake.settings, VerifyOptions())
