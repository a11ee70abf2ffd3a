"""`lakehouse doctor` as an operator has it: on a real broker, in a process of its own, within seconds and without a JVM."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse.commands.cli import load_command, main
from lakehouse.operations.doctor.diagnosis import diagnose, examined
from lakehouse.operations.doctor.facts import Facts, Letters
from lakehouse.operations.doctor.findings import Finding, by_severity, exit_code
from lakehouse.operations.doctor.reading import read_facts
from lakehouse.operations.status.facts import BreakerStatus
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.tables import BRONZE, GOLD_HOURLY, KNOWN_GAPS, SILVER
from tests.lakehouse.conftest import Answers
from tests.lakehouse.operations.checkpoints.test_verify import three_bronze_batches
from tests.lakehouse.operations.doctor.conftest import NOW, TOPIC_ID, parts, row

Capture = pytest.CaptureFixture[str]


def sound_lake(lake: Any) -> Path:
    """All layers have read what Kafka has: 3 records in partition 0, 2 in partition 1."""
    path = three_bronze_batches(lake)
    version = lake.append(SILVER, batch=0)
    lake.record("silver", 0, {"0": [0, 3], "1": [0, 2]}, rows_read=5, inserted=5, versions={str(SILVER): version})
    lake.checkpoint("silver", [(lake.table(BRONZE).version() + 1, -1)])
    lake.append(GOLD_HOURLY, batch=0)
    lake.record("gold", 0, {"silver_version": [1, version]})
    lake.checkpoint("gold", [(version + 1, -1)])
    return path


def run(config: str, *args: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--config", config, *args])
    return ended.value.code


def problems(lake: Any) -> list[str]:
    return [one.id for one in diagnose(read_facts(lake.settings, "c")) if not one.id.startswith("disk-")]


def test_sound_lake_is_healthy_and_each_fault_of_kafka_is_seen(lake: Any, on_topic: Any, capsys: Capture) -> None:
    topic = on_topic(lake)
    topic.send(0, 3)
    topic.send(1, 2)
    sound_lake(lake)
    assert problems(lake) == []
    assert "Kafka (2 partitions), 4 tables, 3 checkpoints" in examined(read_facts(lake.settings, "c"))
    assert run(lake.config()) == 0
    assert capsys.readouterr().out.startswith("Healthy: looked at Kafka")
    topic.send(1, 4)
    assert problems(lake) == ["stream-down"]
    topic.forget(1, 5)
    assert problems(lake) == ["retention-overrun", "stream-down"]
    assert run(lake.config(), "--json") == 3
    worst = json.loads(capsys.readouterr().out)[0]
    assert (worst["id"], worst["playbook"]) == ("retention-overrun", "playbooks/retention-overrun.md")
    assert "partition 1: 2 to 4 (3)" in worst["evidence"]
    lake.kafka["topic"] = "no-such-topic"
    assert problems(lake)[0] == "topic-missing"


def test_command_names_what_is_wrong_within_seconds_and_without_a_jvm(lake: Any, answers: Answers) -> None:
    path = sound_lake(lake)
    (path / "offsets/2").write_text("")

    def look(done: subprocess.CompletedProcess[str]) -> None:
        assert done.returncode == 3, done.stderr
        assert "Kafka does not answer" in done.stdout
        assert "offsets/2 is empty" in done.stdout
        assert f"lakehouse checkpoint rebuild bronze {path.with_name('g2')} --dry-run" in done.stdout

    # Alone it is under 2; another test runs beside it.
    answers(6, "doctor", "--config", lake.config(), look=look)


def test_known_gaps_are_read_for_this_topic_alone(lake: Any) -> None:
    from pipelines.lake.ledger.known_gaps import Gap, record_gaps  # noqa: PLC0415

    sound_lake(lake)
    Path(KNOWN_GAPS.path(lake.settings)).mkdir(parents=True)
    record_gaps(lake.settings, "t", {Gap(0, 5, 7): "retention", Gap(0, 8, 8): "no_record"})
    record_gaps(lake.settings, "another", {Gap(1, 5, 7): "retention"})
    assert read_facts(lake.settings, "c").known_gaps == {0: [(5, 9)]}


def test_broken_log_is_critical_and_the_rest_is_still_said(lake: Any) -> None:
    sound_lake(lake)
    (Path(SILVER.path(lake.settings)) / "_delta_log" / f"{0:020}.json").write_text("no json\n")
    found = problems(lake)
    assert {"table-unreadable", "kafka-silent"} <= set(found)


def test_what_fails_last_is_still_said(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: Any) -> tuple[()]:
        time.sleep(2)
        msg = "a file is gone"
        raise OSError(msg)

    sound_lake(lake)
    monkeypatch.setattr("lakehouse.operations.doctor.reading.read_closed_days", slow)
    assert read_facts(lake.settings, "c").unread == {"the closed days": "a file is gone"}


def test_no_lake_is_one_sentence(lake: Any, capsys: Capture) -> None:
    assert run(lake.config()) == 2
    shown = capsys.readouterr().err
    assert "There is no lake" in shown
    assert len(shown.strip().splitlines()) == 1


def test_worst_is_first_and_gives_the_exit_code() -> None:
    def one(severity: Any, confidence: Any) -> Finding:
        return Finding(severity + confidence, severity, "t", "e", confidence, "a", "p")

    found = [one("info", "certain"), one("critical", "likely"), one("warning", "certain"), one("critical", "certain")]
    assert [f"{it.severity} {it.confidence}" for it in by_severity(found)] == [
        "critical certain",
        "critical likely",
        "warning certain",
        "info certain",
    ]
    assert [exit_code(found), exit_code(found[2:3]), exit_code(found[:1]), exit_code([])] == [3, 1, 0, 0]


def test_commands_that_findings_name_are_commands_of_this_version(sound: Facts) -> None:
    letters = Letters(9, 9, {"SLV-005": {NOW.date(): 9}}, {"1.0": 1}, ("r",))
    breaker = BreakerStatus("open", NOW, None, 0.9, 1000, "flood")
    found = diagnose(
        replace(
            sound,
            topic=TopicState("t", TOPIC_ID, {0: 25, 1: 0}, {0: 30, 1: 5}),
            status=replace(sound.status, breaker=breaker, partitions=parts((30, 20, 5), (5, 10, 10))),
            rows={**sound.rows, "bronze": [row("bronze", 0, {"0": [0, 3]}), row("bronze", 1, {"0": [9, 20]})]},
            checkpoints={"bronze": sound.checkpoints["bronze"]},
            letters=letters,
        )
    )
    lines = [shlex.split(line) for one in found for line in one.commands if line.startswith("lakehouse ")]
    assert {(line[1], line[2]) for line in lines} >= {("dlq", "replay"), ("breaker", "reset"), ("checkpoint", "rebuild")}
    for line in lines:
        command = load_command(line[1])
        command = command.get_command(None, line[2]) if hasattr(command, "get_command") else command
        flags = {flag for option in command.params for flag in option.opts}
        assert {word for word in line if word.startswith("--")} <= flags, line
