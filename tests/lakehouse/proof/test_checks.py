"""Each SQL check is silent on a sound lake and finds what it is for; the same files run with plain spark-sql."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from lakehouse.commands.cli import main
from lakehouse.proof.checks import CheckResult, check_parameters, choose_checks, load_checks, parse_check, run_checks
from pipelines.archive.records import SCHEMA as ARCHIVE_SCHEMA
from pipelines.gold.gate.results import SCHEMA as QUALITY_SCHEMA
from pipelines.lake.errors import LakehouseError
from pipelines.lake.ledger.known_gaps import SCHEMA as GAPS_SCHEMA
from pipelines.lake.resources import PROJECT, SPARK_JARS
from pipelines.lake.tables import (
    ADJUSTMENTS,
    BRONZE,
    BRONZE_ARCHIVE,
    DLQ,
    GOLD_DAILY,
    GOLD_HOURLY,
    KNOWN_GAPS,
    LEDGER,
    QUALITY_RESULTS,
    RECONCILIATION,
    SILVER,
)
from pipelines.lake.views import ALL_VIEWS

T0 = datetime(2026, 1, 28, 10, 0, tzinfo=UTC)
TOPIC = "api-usage-events"
Mutation = Callable[[Any], None]

SPEAKING = {"open_dead_letters", "late_events", "duplicate_conflicts", "bronze_quiet"}
"""Checks that have something to say on the sound lake too: it has late events, dead letters, a conflict, and an old date."""


@pytest.fixture
def run(session: SparkSession, tables: Callable[..., None]) -> Callable[..., dict[str, CheckResult]]:
    """Runs checks on a lake, whose tables are known by name until the test ends."""

    def run_on(lake: Any, *ids: str, day: date | None = None, **parameters: str) -> dict[str, CheckResult]:
        checks = choose_checks(load_checks(), ids)
        tables(lake, frozenset().union(*(check.tables for check in checks)))
        return {result.check.id: result for result in run_checks(session, checks, day, parameters)}

    return run_on


def _write(lake: Any) -> None:
    lake.write()
    schema = pa.schema(
        [
            ("day", pa.date32()),
            ("reconciled_at", pa.timestamp("us", tz="UTC")),
            *((name, pa.string()) for name in ("run_id", "grain", "key", "measure", "cause")),
            ("before", pa.int64()),
            ("after", pa.int64()),
        ]
    )
    rows = getattr(lake, "reconciliation", [])
    write_deltalake(lake.path(RECONCILIATION), pa.Table.from_pylist(rows, schema), mode="overwrite")
    archived = pa.Table.from_pylist(getattr(lake, "archived", []), ARCHIVE_SCHEMA)
    write_deltalake(lake.path(BRONZE_ARCHIVE), archived, mode="overwrite")
    gaps = pa.Table.from_pylist(getattr(lake, "known_gaps", []), GAPS_SCHEMA)
    write_deltalake(lake.path(KNOWN_GAPS), gaps, mode="overwrite")
    audits = pa.Table.from_pylist(getattr(lake, "audits", []), QUALITY_SCHEMA)
    write_deltalake(lake.path(QUALITY_RESULTS), audits, mode="overwrite")


def test_sound_lake_is_clean(hand_lake: Any, run: Callable[..., dict[str, CheckResult]]) -> None:
    _write(hand_lake)
    found = run(hand_lake)
    assert {name: result.reason for name, result in found.items() if result.outcome in ("failed", "skipped")} == {}
    assert {name for name, result in found.items() if result.outcome == "offenders"} == SPEAKING
    assert not any(result.is_red for result in found.values())


def _lose_read_record(lake: Any) -> None:
    lake.drop(BRONZE, 0, 2)


def _lose_last_record(lake: Any) -> None:
    lake.drop(BRONZE, 0, 5)


def _skip_offsets(lake: Any) -> None:
    lake.rows[LEDGER][1].update(offsets='{"0": [4, 6], "1": [2, 4]}', rows_read=4)
    lake.drop(BRONZE, 0, 2)


def _lose_read_record_knowingly(lake: Any) -> None:
    _lose_read_record(lake)
    lake.known_gaps = [
        {"topic": TOPIC, "partition": 0, "first_missing": 2, "last_missing": 3, "cause": "retention", "found_at": T0}
    ]


def _archive(*spans: tuple[int, int, int]) -> Mutation:
    """Take records out of Bronze (partition, first, last offset) and say that they are in the archive."""

    def archive(lake: Any) -> None:
        rows = lake.rows[BRONZE]
        for partition, first, last in spans:
            rows[:] = [r for r in rows if r["_kafka_partition"] != partition or not first <= r["_kafka_offset"] <= last]
        keys = {"day": T0.date(), "run": "r1", "topic": TOPIC, "archived_at": T0}
        lake.archived = [{**keys, "partition": p, "first_offset": first, "last_offset": last} for p, first, last in spans]

    return archive


def _lose_record_before_the_rest_was_archived(lake: Any) -> None:
    lake.drop(BRONZE, 0, 2)
    _archive((0, 0, 1), (0, 4, 5))(lake)


def _lose_record_beside_the_archive(lake: Any) -> None:
    _archive((0, 0, 1), (0, 4, 4))(lake)
    lake.drop(BRONZE, 0, 5)


def _repeat(table: Any, partition: int, offset: int, **changes: Any) -> Mutation:
    def repeat(lake: Any) -> None:
        lake.rows[table].append({**lake.find(table, partition, offset), **changes})

    return repeat


def _drop(table: Any, partition: int, offset: int) -> Mutation:
    return lambda lake: lake.drop(table, partition, offset) and None


def _change(table: Any, partition: int, offset: int, **changes: Any) -> Mutation:
    return lambda lake: lake.find(table, partition, offset).update(changes)


def _gold(table: Any, number: int, **changes: Any) -> Mutation:
    return lambda lake: lake.rows[table][number].update(changes)


def _batch(number: int, **changes: Any) -> Mutation:
    return lambda lake: lake.rows[LEDGER][number].update(changes)


def _close_days(lake: Any) -> None:
    for row in lake.rows[GOLD_DAILY]:
        row["billing_status"] = "final"


def _close_days_then_change(lake: Any) -> None:
    _close_days(lake)
    lake.rows[GOLD_DAILY][0]["event_count"] -= 1


def _adjust(**changes: Any) -> Mutation:
    def adjust(lake: Any) -> None:
        _close_days(lake)
        plain = {"event_count": 1, "error_count": 0, "request_bytes": 100, "response_bytes": 2000, "late_count": 0}
        keys = {"adjustment_id": "a", "day": T0.date(), "customer_id": "cust-1", "sequence": 1, "cause": "late"}
        versions = {"silver_version_from": 0, "silver_version_to": 0, "run_id": "r", "created_at": T0}
        lake.rows[ADJUSTMENTS].append({**keys, **plain, **versions, **changes})

    return adjust


def _adjust_twice(lake: Any) -> None:
    _adjust()(lake)
    _adjust()(lake)


def _adjust_open_day(lake: Any) -> None:
    _adjust()(lake)
    for row in lake.rows[GOLD_DAILY]:
        row["billing_status"] = "provisional"


def _lose_gold_hour(lake: Any) -> None:
    lake.rows[GOLD_HOURLY].pop()


def _reconcile_found_drift(lake: Any) -> None:
    row = {
        "day": T0.date(),
        "reconciled_at": T0,
        "grain": "hourly",
        "key": "{}",
        "measure": "event_count",
        "before": 1,
        "after": 2,
    }
    lake.reconciliation = [
        {**row, "cause": "wrong_in_gold"},
        {**row, "cause": "wrong_in_gold", "reconciled_at": T0 - timedelta(hours=1)},
        {**row, "cause": "late_events"},
    ]


def _audit(gate: str, hour: int, later: int = 0, **results: bool | None) -> list[dict[str, Any]]:
    """Rows of one audit, of the day so many days later: whether each expectation holds; names with `small` only warn."""
    day = T0.date() + timedelta(days=later)
    shared = {"run_id": f"r{hour}", "day": day, "audited_at": T0 + timedelta(hours=hour), "gate": gate, "suite": "day"}
    return [
        {
            **shared,
            "expectation": name,
            "severity": "warns" if name.startswith("small") else "blocks",
            "success": success,
            "playbook": "quality-gate",
            "silver_version": hour,
        }
        for name, success in results.items()
    ]


def _refuse(lake: Any) -> None:
    lake.audits = [
        *_audit("passed", 1, volume=True),
        *_audit("refused", 2, volume=False, rows=None, size=True, small_share=False),
        *_audit("audited", 3, volume=True),
    ]


def _refuse_then_publish(lake: Any) -> None:
    """Each day was refused, and then passed or was overridden."""
    lake.audits = [
        *_audit("refused", 1, volume=False),
        *_audit("passed", 2, volume=True, small_share=False),
        *_audit("refused", 1, later=1, volume=False),
        *_audit("overridden", 2, later=1, volume=False),
        *_audit("audited", 3, later=1, volume=False),
    ]


def _silver_stands_still(lake: Any) -> None:
    del lake.rows[LEDGER][3]


def _gold_stands_still(lake: Any) -> None:
    _batch(3, versions='{"silver.api_usage_events": 7}')(lake)


def _late_kafka(lake: Any) -> None:
    lake.find(SILVER, 0, 4)["_kafka_timestamp"] = T0 + timedelta(days=9)


@pytest.mark.parametrize(
    ("name", "mutation", "count"),
    [
        ("offset_continuity", _lose_read_record, 1),
        ("offset_continuity", _lose_last_record, 2),
        ("offset_continuity", _skip_offsets, 1),
        ("offset_continuity", _lose_record_before_the_rest_was_archived, 1),
        ("known_gaps", _lose_read_record_knowingly, 1),
        ("bronze_duplicates", _repeat(BRONZE, 0, 0), 1),
        ("bronze_metadata", _change(BRONZE, 0, 0, _raw_size=1), 1),
        ("bronze_metadata", _change(BRONZE, 0, 0, _event_date=date(2026, 1, 27)), 1),
        ("conservation", _drop(SILVER, 0, 4), 1),
        ("conservation", _drop(DLQ, 0, 5), 1),
        ("conservation", _change(DLQ, 0, 5, _status="replayed"), 1),
        ("two_fates", _repeat(DLQ, 0, 5, _kafka_offset=1), 1),
        ("two_fates", _change(DLQ, 0, 5, _raw_value=None), 1),
        ("silver_duplicates", _repeat(SILVER, 0, 0, _kafka_offset=2, _event_date=date(2026, 1, 27)), 1),
        ("silver_without_bronze", _drop(BRONZE, 0, 0), 1),
        ("orphan_dead_letters", _drop(BRONZE, 0, 5), 1),
        ("orphan_dead_letters", _lose_record_beside_the_archive, 1),
        ("orphan_dead_letters", _change(DLQ, 0, 5, _raw_value=b"cleaned"), 1),
        ("orphan_dead_letters", _change(DLQ, 0, 5, _raw_value=None), 1),
        ("orphan_dead_letters", _change(DLQ, 0, 5, _raw_value=b"cleaned", _status="discarded"), 1),
        ("dead_letter_duplicates", _repeat(DLQ, 0, 5), 1),
        ("open_dead_letters", _change(DLQ, 0, 5, _status="replayed"), 1),
        ("late_flag", _change(SILVER, 0, 1, _is_late_arriving=False), 1),
        ("late_flag", _change(SILVER, 0, 1, _arrival_delay_seconds=None), 1),
        ("clock_skew", _change(SILVER, 0, 4, _arrival_delay_seconds=-301.0), 1),
        ("null_keys", _change(SILVER, 0, 4, customer_id=None), 1),
        ("null_keys", _gold(GOLD_HOURLY, 0, endpoint=None), 1),
        ("absurd_measures", _change(SILVER, 0, 4, request_bytes=-1), 1),
        ("absurd_measures", _change(SILVER, 0, 4, response_time_ms=float("nan")), 1),
        ("mixed_schema_versions", _change(SILVER, 0, 4, schema_version="1.1"), 2),
        ("ledger_equation", _batch(3, rows_read=6), 1),
        ("ledger_totals", _batch(3, inserted=2, duplicate=0), 1),
        ("ledger_totals", _lose_record_beside_the_archive, 1),
        ("gold_hourly_vs_silver", _lose_gold_hour, 1),
        ("gold_hourly_vs_silver", _gold(GOLD_HOURLY, 0, latency_le_25=0, latency_le_50=1), 2),
        ("gold_daily_vs_silver", _gold(GOLD_DAILY, 0, response_bytes=1), 2),
        ("gold_daily_vs_hourly", _gold(GOLD_DAILY, 0, distinct_endpoints=3), 2),
        ("gold_final_changed", _close_days_then_change, 1),
        ("gold_final_changed", _adjust(customer_id="cust-new"), 1),
        ("billing_unexplained", _close_days_then_change, 1),
        ("billing_unexplained", _adjust(), 1),
        ("billing_adjustments", _adjust_twice, 1),
        ("billing_adjustments", _adjust_open_day, 1),
        ("billing_adjustments", _adjust(event_count=0, request_bytes=0, response_bytes=0), 1),
        ("billing_final_early", _close_days, 1),
        ("billing_overdue", _late_kafka, 2),
        ("reconciliation_drift", _reconcile_found_drift, 1),
        ("quality_gate", _refuse, 1),
        ("freshness", _silver_stands_still, 1),
        ("freshness", _gold_stands_still, 1),
    ],
)
def test_check_finds_what_it_is_for(
    hand_lake: Any, run: Callable[..., dict[str, CheckResult]], name: str, mutation: Mutation, count: int
) -> None:
    mutation(hand_lake)
    _write(hand_lake)
    result = run(hand_lake, name)[name]
    assert (result.outcome, result.count, result.reason) == ("offenders", count, None)


def test_day_that_was_refused_is_named_with_what_blocks_until_it_is_published(
    hand_lake: Any, run: Callable[..., dict[str, CheckResult]]
) -> None:
    _refuse(hand_lake)
    _write(hand_lake)
    result = run(hand_lake, "quality_gate")["quality_gate"]
    assert result.is_red
    assert [(row["day"], row["run_id"], row["blocking"], row["silver_version"]) for row in result.first] == [
        (T0.date(), "r2", "rows, volume", 2)
    ]
    other = run(hand_lake, "quality_gate", day=T0.date() - timedelta(days=1))["quality_gate"]
    assert other.outcome == "passed"

    _refuse_then_publish(hand_lake)
    _write(hand_lake)
    assert run(hand_lake, "quality_gate")["quality_gate"].outcome == "passed"


def test_plain_spark_sql_has_the_views_that_sessions_have() -> None:
    script = (PROJECT / "sql/reconciliation.sql").read_text(encoding="utf-8")
    for view in ALL_VIEWS:
        assert f"CREATE VIEW IF NOT EXISTS {view.name} AS\n{view.sql.strip()};" in script


def test_hole_that_was_explained_is_shown_and_alarms_nobody(hand_lake: Any, run: Callable[..., dict[str, CheckResult]]) -> None:
    _lose_read_record_knowingly(hand_lake)
    _write(hand_lake)
    found = run(hand_lake, "offset_continuity", "known_gaps")
    assert (found["offset_continuity"].outcome, found["known_gaps"].outcome) == ("passed", "offenders")
    assert not found["known_gaps"].is_red


@pytest.mark.parametrize(
    ("parts", "outcome"),
    [([(2, 2), (3, 3)], "passed"), ([(3, 5), (1, 2)], "passed"), ([(2, 2)], "offenders"), ([(3, 3)], "offenders")],
)
def test_hole_may_be_explained_in_parts_but_wholly(
    hand_lake: Any, run: Callable[..., dict[str, CheckResult]], parts: list[tuple[int, int]], outcome: str
) -> None:
    _lose_read_record(hand_lake)
    gap = {"topic": TOPIC, "partition": 0, "cause": "retention", "found_at": T0}
    hand_lake.known_gaps = [{**gap, "first_missing": first, "last_missing": last} for first, last in parts]
    _write(hand_lake)
    assert run(hand_lake, "offset_continuity")["offset_continuity"].outcome == outcome


@pytest.mark.parametrize("spans", [[(0, 0, 2), (0, 4, 5), (1, 0, 3)], [(0, 4, 5), (1, 1, 2)]])
@pytest.mark.parametrize("put_back", [False, True])
def test_records_that_moved_to_the_archive_are_missed_by_nobody(
    hand_lake: Any, run: Callable[..., dict[str, CheckResult]], spans: list[tuple[int, int, int]], put_back: bool
) -> None:
    rows = list(hand_lake.rows[BRONZE])
    _archive(*spans)(hand_lake)
    if put_back:
        hand_lake.rows[BRONZE] = rows
    _write(hand_lake)
    names = ("offset_continuity", "conservation", "silver_without_bronze", "orphan_dead_letters", "ledger_totals")
    found = run(hand_lake, *names, "bronze_duplicates")
    assert {name: result.outcome for name, result in found.items() if result.outcome != "passed"} == {}


def test_closed_dead_letters_that_lost_their_bytes_raise_no_alarm(
    hand_lake: Any, run: Callable[..., dict[str, CheckResult]]
) -> None:
    _change(DLQ, 0, 5, _status="discarded", _raw_value=None, _kafka_key=None, _kafka_headers=None)(hand_lake)
    _write(hand_lake)
    names = ("conservation", "two_fates", "orphan_dead_letters", "ledger_totals")
    assert {result.outcome for result in run(hand_lake, *names).values()} == {"passed"}


def test_every_check_has_been_seen_red() -> None:
    marker = next(mark for mark in test_check_finds_what_it_is_for.pytestmark if mark.name == "parametrize")
    assert {check.id for check in load_checks()} == {case[0] for case in marker.args[1]} | SPEAKING


def test_hole_is_found_only_on_its_day_though_timestamps_are_out_of_order(
    hand_lake: Any, run: Callable[..., dict[str, CheckResult]]
) -> None:
    _lose_read_record(hand_lake)
    # Offset 1 carries an older date than its neighbours: a filter by date alone would see a hole there, or none at 2.
    hand_lake.find(BRONZE, 0, 1).update(_kafka_timestamp=T0 - timedelta(days=2), _event_date=date(2026, 1, 26))
    _write(hand_lake)

    def on(day: date) -> list[tuple[int, int]]:
        found = run(hand_lake, "offset_continuity", day=day)["offset_continuity"].first
        return [(row["first_missing"], row["last_missing"]) for row in found]

    # Offset 3 was never in Kafka: the batch that read over it did not count it.
    assert on(date(2026, 1, 28)) == [(2, 3)]
    assert on(date(2026, 1, 26)) == [(2, 3)]
    assert on(date(2026, 1, 25)) == []


def test_layers_that_are_only_behind_raise_no_alarm(hand_lake: Any, run: Callable[..., dict[str, CheckResult]]) -> None:
    late = {**hand_lake.find(SILVER, 0, 4), "event_id": "e9", "_processed_at": T0 + timedelta(hours=2)}
    hand_lake.rows[SILVER].append(late)
    _write(hand_lake)
    names = ("gold_hourly_vs_silver", "gold_daily_vs_silver", "ledger_totals")
    assert {result.outcome for result in run(hand_lake, *names).values()} == {"passed"}
    hand_lake.rows[LEDGER] = [row for row in hand_lake.rows[LEDGER] if (row["job"], row["batch_id"]) != ("silver", 1)]
    hand_lake.rows[DLQ] = []
    hand_lake.drop(SILVER, 0, 4)
    hand_lake.rows[SILVER].remove(late)
    _write(hand_lake)
    assert run(hand_lake, "conservation")["conservation"].outcome == "passed"


def test_event_after_the_closing_is_a_warning_until_it_is_adjusted(
    hand_lake: Any, run: Callable[..., dict[str, CheckResult]]
) -> None:
    names = ("gold_final_changed", "billing_unexplained", "billing_adjustments")
    _close_days(hand_lake)
    late = {"event_id": "e9", "_processed_at": T0 + timedelta(hours=2), "_is_late_arriving": True}
    hand_lake.rows[SILVER].append({**hand_lake.find(SILVER, 0, 0), **late})
    _write(hand_lake)
    waiting = run(hand_lake, *names)
    assert [waiting[name].outcome for name in names] == ["offenders", "passed", "passed"]
    assert not waiting["gold_final_changed"].is_red
    assert waiting["gold_final_changed"].first[0]["missing_events"] == 1
    _adjust(late_count=1, silver_version_to=1)(hand_lake)
    _write(hand_lake)
    assert {result.outcome for result in run(hand_lake, *names).values()} == {"passed"}


def test_date_keeps_other_days_out(hand_lake: Any, run: Callable[..., dict[str, CheckResult]]) -> None:
    _gold(GOLD_DAILY, 0, response_bytes=1)(hand_lake)
    _write(hand_lake)
    names = ("gold_daily_vs_silver", "late_events")
    other = run(hand_lake, *names, day=date(2026, 1, 27))
    assert (other["gold_daily_vs_silver"].outcome, other["late_events"].count) == ("passed", 1)
    same = run(hand_lake, *names, day=date(2026, 1, 28))
    assert (same["gold_daily_vs_silver"].outcome, same["late_events"].count) == ("offenders", 1)


def test_limits_come_from_the_settings(hand_lake: Any, run: Callable[..., dict[str, CheckResult]]) -> None:
    _write(hand_lake)
    settings = hand_lake.settings
    silver = settings.silver.model_copy(update={"late_after_seconds": 60})
    parameters = check_parameters(settings.model_copy(update={"silver": silver}), None)
    assert run(hand_lake, "late_flag", **check_parameters(settings, None))["late_flag"].outcome == "passed"
    assert run(hand_lake, "late_flag", **parameters)["late_flag"].count == 2


def test_check_without_its_table_is_skipped_and_says_so(hand_lake: Any, run: Callable[..., dict[str, CheckResult]]) -> None:
    hand_lake.write()
    result = run(hand_lake, "reconciliation_drift")["reconciliation_drift"]
    assert (result.outcome, result.reason) == ("skipped", "there is no table ops.reconciliation yet")
    assert not result.is_red


def test_check_that_spark_refuses_has_failed_with_one_sentence(session: SparkSession) -> None:
    check = choose_checks(load_checks(), ["freshness"])[0]
    broken = type(check)(**{**vars(check), "sql": "SELECT no_such_column"})
    result = run_checks(session, [broken])[0]
    assert result.is_red
    assert result.reason is not None
    assert result.reason.startswith("[UNRESOLVED_COLUMN")
    assert "\n" not in result.reason


def test_headers_are_complete_and_playbooks_have_names() -> None:
    checks = load_checks()
    assert len(checks) >= 20
    assert all(check.playbook and check.grain and check.description for check in checks)
    with pytest.raises(LakehouseError, match="no complete header"):
        parse_check("-- id: x\n\nSELECT 1", "x.sql")


def test_unknown_check_ends_with_2_before_spark_starts(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(hand_lake)
    for arguments in (["no_such_check"], ["--date", "2026-13-01"]):
        with pytest.raises(SystemExit) as ended:
            main(["check", *arguments, "--config", config])
        assert ended.value.code == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def _config(lake: Any) -> str:
    path: Path = lake.folder / "conf.yaml"
    tree = {"lake": {"root": lake.settings.lake.root, "state_dir": lake.settings.lake.state_dir}}
    path.write_text(json.dumps({**tree, "schemas_dir": lake.settings.schemas_dir}))
    return str(path)


def test_command_exits_with_1_and_shows_the_first_offenders(
    hand_lake: Any, tables: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    _repeat(BRONZE, 0, 0)(hand_lake)
    _write(hand_lake)
    tables(hand_lake, ["bronze.api_usage_events", "silver.api_usage_events"])
    for as_json in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["check", "bronze_duplicates", "late_events", *as_json, "--config", _config(hand_lake)])
        assert ended.value.code == 1
        shown = capsys.readouterr().out
        assert "_kafka_offset=0" in shown or as_json
    found = {check["id"]: check for check in json.loads(shown)["checks"]}
    assert found["bronze_duplicates"]["first"][0]["_kafka_offset"] == 0
    assert found["late_events"]["outcome"] == "offenders"


@pytest.mark.faults
def test_the_same_files_run_with_plain_spark_sql(hand_lake: Any) -> None:
    _write(hand_lake)
    _repeat(BRONZE, 0, 0)(hand_lake)
    hand_lake.write(BRONZE)
    script = hand_lake.folder / "all.sql"
    marks = [f"SELECT 'begin {path.stem}';\n{path.read_text()}" for path in sorted((PROJECT / "sql/checks").glob("*.sql"))]
    script.write_text("\n".join([*marks, "SELECT 'begin bill';", "SELECT day, customer_id, event_count FROM gold.bill;"]))
    command = [
        str(Path(sys.executable).parent / "spark-sql"),
        *("--master", "local[1]", "--driver-class-path", f"{SPARK_JARS}/*"),
        *("--conf", "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension"),
        *("--conf", "spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog"),
        *("--conf", "spark.sql.catalogImplementation=in-memory", "--conf", f"spark.sql.warehouse.dir={hand_lake.folder}/wh"),
        *("--conf", "spark.ui.enabled=false", "--conf", "spark.sql.shuffle.partitions=2"),
        *("--conf", "spark.databricks.delta.snapshotPartitions=2", "--conf", "spark.sql.codegen.wholeStage=false"),
        *("--conf", "spark.sql.codegen.factoryMode=NO_CODEGEN"),
        *("--hivevar", f"lake={hand_lake.settings.lake.root}", "--hivevar", "date=2026-01-28"),
        *(word for name in ("tables", "reconciliation", "quality") for word in ("-i", str(PROJECT / f"sql/{name}.sql"))),
        *("-f", str(script)),
    ]
    environ = {**os.environ, "SPARK_HOME": str(Path(sys.modules["pyspark"].__file__ or "").parent), "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, cwd=hand_lake.folder, env=environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {part.split("\n")[0]: part.split("\n")[1:-1] for part in done.stdout.split("begin ")[1:]}
    # No day of the sound lake is closed.
    assert found.pop("bill") == []
    assert set(found) == {check.id for check in load_checks()}
    speaking = {name for name, lines in found.items() if lines}
    assert speaking == SPEAKING | {"bronze_duplicates", "ledger_totals"}
    assert found["bronze_duplicates"] == ["api-usage-events\t0\t0\t2"]
