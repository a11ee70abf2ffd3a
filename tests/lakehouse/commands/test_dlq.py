"""`lakehouse dlq` without a JVM: lists without payload, counts, shows bytes only when asked, discards once."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from batch import dlq_retention
from lakehouse.commands.cli import main
from lakehouse.operations.doctor.reading_letters import read_letter_facts
from pipelines.lake.tables import BRONZE, DLQ
from tests.far_times import FAR_TIMES, add_far_record
from tests.lakehouse.conftest import Answers

LATER = ("_last_attempt_at", "_closed_at", "_reason")
SECRET = b'{"customer_id": "cust-secret"'


@pytest.fixture
def lake(hand_lake: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Five dead letters: three open (two rules, two days), a replayed and a discarded one."""
    plain = hand_lake.find(DLQ, 0, 5)
    plain["_raw_value"] = SECRET
    earlier = {"_dlq_date": date(2026, 1, 27), "_kafka_timestamp": plain["_kafka_timestamp"] - timedelta(days=1)}
    closed = datetime.now(UTC) - timedelta(days=40)
    hand_lake.rows[DLQ] += [
        {**plain, "_kafka_offset": 6, "_quality_flags": ["SLV-005", "SLV-007"], **earlier},
        {**plain, "_kafka_offset": 7, "_status": "replayed", "_replay_id": "replay-1", "_closed_at": closed},
        {**plain, "_kafka_offset": 8, "_status": "discarded", "_closed_at": datetime.now(UTC), "_reason": "A test."},
    ]
    hand_lake.write(BRONZE)
    _write(hand_lake)
    tree = {"lake": {"root": hand_lake.settings.lake.root, "state_dir": hand_lake.settings.lake.state_dir}}
    (hand_lake.folder / "conf.yaml").write_text(json.dumps(tree))
    monkeypatch.chdir(hand_lake.folder)
    return hand_lake


def _write(lake: Any) -> None:
    """The table as the job makes it; the hand-made lake's is of the version before."""
    if not Path(lake.path(DLQ)).exists():
        lake.write(DLQ)
    schema = pa.schema([field for field in pa.schema(lake.delta(DLQ).schema().to_arrow()) if field.name not in LATER])
    later = [("_last_attempt_at", pa.timestamp("us", tz="UTC")), ("_closed_at", pa.timestamp("us", tz="UTC"))]
    table = pa.Table.from_pylist(lake.rows[DLQ], pa.schema([*schema, *later, ("_reason", pa.string())]))
    write_deltalake(lake.path(DLQ), table, mode="overwrite", schema_mode="overwrite")


def _dlq(*arguments: str, code: int = 0) -> None:
    try:
        main(["dlq", *arguments, "--config", "conf.yaml"])
    except SystemExit as ended:
        assert int(ended.code or 0) == code  # noqa: PT017 - every command ends so
    else:
        pytest.fail("the command did not end the process")


def _listed(capsys: pytest.CaptureFixture[str], *filters: str) -> list[tuple[int, int]]:
    _dlq("list", "--json", *filters)
    found = json.loads(capsys.readouterr().out)
    return [(letter["_kafka_partition"], letter["_kafka_offset"]) for letter in found["letters"]]


def test_list_filters_by_rule_date_partition_offset_and_status(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(_listed(capsys)) == [(0, 5), (0, 6), (0, 7), (0, 8), (1, 3)]
    assert _listed(capsys)[-1] == (0, 6)  # the newest come first
    assert _listed(capsys, "--rule", "SLV-007") == [(0, 6)]
    assert sorted(_listed(capsys, "--rule", "SLV-007", "--rule", "SLV-002")) == [(0, 6), (1, 3)]
    assert _listed(capsys, "--date", "2026-01-27") == [(0, 6)]
    assert len(_listed(capsys, "--date", "2026-01-27..2026-01-28")) == 5
    assert _listed(capsys, "--partition", "1") == [(1, 3)]
    assert sorted(_listed(capsys, "--offset", "6..7")) == [(0, 6), (0, 7)]
    assert _listed(capsys, "--status", "discarded") == [(0, 8)]
    assert len(_listed(capsys, "--limit", "2")) == 2
    assert _listed(capsys, "--rule", "SLV-001") == []


def test_nothing_but_show_raw_tells_the_payload(lake: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (["list"], ["list", "--json"], ["stats"], ["show", "0:5"], ["show", "0:5", "--json"]):
        _dlq(*arguments)
        out = capsys.readouterr().out
        assert "secret" not in out
        assert SECRET.hex() not in out
    _dlq("show", "0:5", "--raw")
    assert SECRET[:16].hex(" ") in capsys.readouterr().out
    _dlq("show", "0:5", "--out", str(tmp_path / "value"))
    assert (tmp_path / "value").read_bytes() == SECRET
    assert "secret" not in capsys.readouterr().out
    _dlq("show", "0:5", "--out", str(tmp_path / "value"), code=2)
    assert "cannot be written (File exists)" in capsys.readouterr().err


def test_show_tells_all_that_is_known(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _dlq("show", "0:7", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["_status"], found["_replay_id"], found["value_bytes"], found["key_bytes"]) == (
        "replayed",
        "replay-1",
        len(SECRET),
        3,
    )
    _dlq("show", "0:99", code=2)
    assert "There is no dead letter at 0:99" in capsys.readouterr().err


def test_stats_count_by_day_rule_and_status(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _dlq("stats", "--json")
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in ("total", "open", "replayed", "discarded")} == {
        "total": 5,
        "open": 3,
        "replayed": 1,
        "discarded": 1,
    }
    assert [tuple(row.values()) for row in found["by"]] == [
        ("2026-01-27", "SLV-005", 1, 0, 0),
        ("2026-01-27", "SLV-007", 1, 0, 0),
        ("2026-01-28", "SLV-002", 1, 0, 0),
        ("2026-01-28", "SLV-004", 1, 1, 1),
    ]


def test_discard_closes_once_and_keeps_the_reason(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    version = lake.delta(DLQ).version()
    _dlq("discard", "--rule", "SLV-004", "--reason", "it's a \\ test", "--dry-run")
    assert "1 open dead letters match and would be discarded." in capsys.readouterr().out
    assert lake.delta(DLQ).version() == version
    _dlq("discard", "--rule", "SLV-004", "--reason", " it's a \\ test ")
    _dlq("discard", "--rule", "SLV-004", "--reason", "again")
    assert capsys.readouterr().out.splitlines() == [
        "1 open dead letters match.",
        "1 discarded.",
        "0 open dead letters match.",
    ]
    assert lake.delta(DLQ).version() == version + 1
    rows = {row["_kafka_offset"]: row for row in lake.delta(DLQ).to_pyarrow_table().to_pylist()}
    assert (rows[5]["_status"], rows[5]["_reason"]) == ("discarded", "it's a \\ test")
    assert datetime.now(UTC) - rows[5]["_closed_at"] < timedelta(minutes=5)
    assert (rows[8]["_reason"], rows[6]["_status"], rows[7]["_status"]) == ("A test.", "open", "replayed")
    assert (rows[5]["_raw_value"], rows[5]["_quality_flags"]) == (SECRET, ["SLV-004"])


def test_discard_with_every_filter_takes_what_list_shows(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    filters = [
        "--rule",
        "SLV-005",
        "--rule",
        "SLV-002",
        "--date",
        "2026-01-27..2026-01-28",
        "--partition",
        "0",
        "--offset",
        "1..9",
    ]
    _dlq("discard", *filters, "--status", "open", "--reason", "old")
    assert "1 discarded." in capsys.readouterr().out
    assert sorted(_listed(capsys, "--status", "discarded")) == [(0, 6), (0, 8)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--offset", "7", "--reason", "x"], "are replayed and cannot be discarded"),
        (["--status", "replayed", "--offset", "7", "--reason", "x"], "status replayed were asked for"),
        (["--reason", "x"], "No filter was given"),
        (["--status", "open", "--reason", "x"], "No filter was given"),
        (["--offset", "5", "--reason", "  "], "The reason is empty"),
    ],
)
def test_discard_refuses_with_one_sentence(
    lake: Any, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    version = lake.delta(DLQ).version()
    _dlq("discard", *arguments, code=2)
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
    assert lake.delta(DLQ).version() == version


def test_discard_adds_its_columns_to_a_table_of_the_version_before(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write_deltalake(
        lake.path(DLQ),
        lake.delta(DLQ).to_pyarrow_table().drop_columns(["_last_attempt_at", "_closed_at", "_reason"]),
        mode="overwrite",
        schema_mode="overwrite",
    )
    assert len(_listed(capsys)) == 5
    assert dlq_retention.main(["--config", "conf.yaml"]) == 0
    _dlq("discard", "--all", "--reason", "new lake")
    assert "3 discarded." in capsys.readouterr().out
    assert len(_listed(capsys, "--status", "discarded")) == 4


def test_no_dead_letter_table_is_one_sentence(hand_lake: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "conf.yaml"
    config.write_text(json.dumps({"lake": {"root": str(tmp_path / "nowhere")}}))
    for arguments in (["list"], ["stats"], ["show", "0:1"], ["replay", "--dry-run"], ["discard", "--all", "--reason", "x"]):
        with pytest.raises(SystemExit) as ended:
            main(["dlq", *arguments, "--config", str(config)])
        assert ended.value.code == 2
        assert "There is no dead-letter table" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list"], ["stats"], ["show", "0:5"]], ids=lambda arguments: arguments[0])
def test_reading_takes_less_than_two_seconds_and_starts_no_jvm(lake: Any, arguments: list[str], answers: Answers) -> None:
    def look(done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 0, done.stderr
        assert "SLV-004" in done.stdout

    # Alone it is under 2; another test runs beside it.
    answers(5, "dlq", *arguments, "--config", str(lake.folder / "conf.yaml"), look=look)


def test_retention_takes_the_bytes_of_long_closed_letters_only(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = {row["_kafka_offset"]: row for row in lake.delta(DLQ).to_pyarrow_table().to_pylist()}
    version = lake.delta(DLQ).version()
    assert dlq_retention.main(["--config", "conf.yaml", "--dry-run"]) == 0
    assert "1 dead letters were closed more than 30 days ago and still have their bytes; 0 files" in capsys.readouterr().out
    assert lake.delta(DLQ).version() == version
    assert dlq_retention.main(["--config", "conf.yaml"]) == 0
    assert "1 lost their bytes" in capsys.readouterr().out
    after = {row["_kafka_offset"]: row for row in lake.delta(DLQ).to_pyarrow_table().to_pylist()}
    gone = dict.fromkeys(("_raw_value", "_kafka_key", "_kafka_headers"))
    assert after == {**before, 7: {**before[7], **gone}}
    assert dlq_retention.main(["--config", "conf.yaml"]) == 0
    assert "0 lost their bytes" in capsys.readouterr().out
    _dlq("show", "0:7", "--raw", code=2)
    assert "The bytes of 0:7 are gone" in capsys.readouterr().err


def test_retention_says_how_many_files_it_will_delete(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert dlq_retention.main(["--config", "conf.yaml"]) == 0
    lake.delta(DLQ).alter.set_table_properties({"delta.deletedFileRetentionDuration": "interval 0 seconds"})
    capsys.readouterr()
    files = len(list(Path(lake.path(DLQ)).glob("*.parquet")))
    said = []
    for arguments in (["--dry-run"], []):
        assert dlq_retention.main(["--config", "conf.yaml", *arguments]) == 0
        said.append(capsys.readouterr().out.splitlines())
        assert len(list(Path(lake.path(DLQ)).glob("*.parquet"))) == (files if arguments else 1)
    assert said[0] == said[1][:1]
    assert f"{files - 1} files of old versions are due to be deleted" in said[0][0]
    assert f"{files - 1} files of old versions were deleted" in said[1][1]


def test_table_without_a_file_has_no_letters(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    schema = pa.schema(lake.delta(DLQ).schema().to_arrow())
    shutil.rmtree(lake.path(DLQ))
    DeltaTable.create(lake.path(DLQ), schema)

    assert _listed(capsys) == []
    assert dlq_retention.main(["--config", "conf.yaml", "--dry-run"]) == 0


@pytest.mark.parametrize(("microseconds", "as_spark_writes_it"), FAR_TIMES)
def test_letter_of_a_time_after_python_ends_hides_no_other(
    microseconds: int, as_spark_writes_it: str, lake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    letter = {**lake.find(DLQ, 0, 5), "_kafka_offset": 9}
    add_far_record(lake.path(DLQ), letter, microseconds, as_spark_writes_it, "_dlq_date")

    assert set(_listed(capsys)) == {(0, 5), (0, 6), (0, 7), (0, 8), (0, 9), (1, 3)}
    assert _listed(capsys, "--offset", "9") == [(0, 9)]
    assert _listed(capsys, "--date", "2026-01-27") == [(0, 6)]
    _dlq("list")
    assert "after 9999" in capsys.readouterr().out
    for arguments in (["list", "--json"], ["stats"], ["stats", "--json"], ["show", "0:9"], ["show", "0:9", "--json"]):
        _dlq(*arguments)
        assert "since 1970" in capsys.readouterr().out, arguments
    assert read_letter_facts(lake.settings).open == 4
    assert dlq_retention.main(["--config", "conf.yaml", "--dry-run"]) == 0


def test_open_letters_are_never_stripped(lake: Any) -> None:
    for row in lake.rows[DLQ]:
        row.update(_status="open", _closed_at=datetime(2020, 1, 1, tzinfo=UTC))
    _write(lake)
    before = lake.delta(DLQ).to_pyarrow_table()
    assert dlq_retention.main(["--config", "conf.yaml"]) == 0
    assert DeltaTable(lake.path(DLQ)).to_pyarrow_table() == before


def test_discard_loses_to_a_replay_that_began_meanwhile(lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lake.delta(DLQ).update(updates={"_replay_id": "'replay-2'"}, predicate="_kafka_offset = 5")
    _dlq("discard", "--offset", "5..6", "--reason", "x", code=2)
    assert "1 of the letters belong to a replay that has not finished" in capsys.readouterr().err
    assert len(_listed(capsys, "--status", "open")) == 3
