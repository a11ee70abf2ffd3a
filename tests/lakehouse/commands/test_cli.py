"""The `lakehouse` command itself: what it lists, how errors end, what it does not import."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from confluent_kafka import KafkaError, KafkaException
from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
from py4j.protocol import Py4JJavaError, Py4JNetworkError
from pyspark.errors import StreamingQueryException

from lakehouse.commands import cli
from pipelines.lake.errors import LakehouseError, UsageError
from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import DLQ
from pipelines.lake.traces import keep_traces_in


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lakehouse", *args], capture_output=True, text=True, check=False)


def exit_code(args: list[str]) -> object:
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    return ended.value.code


def set_status(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `lakehouse status` a command that raises `error`."""
    app = typer.Typer()

    @app.command("status")
    def status() -> None:
        raise error

    monkeypatch.setattr(cli, "load_command", lambda name: typer.main.get_command(app))


def test_help_lists_every_command() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    assert all(f"│ {name} " in shown.stdout for name in cli._COMMANDS)


@pytest.mark.parametrize("name", sorted(cli._COMMANDS))
def test_every_command_has_help(name: str) -> None:
    shown = run(name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert f"Usage: lakehouse {name}" in shown.stdout


NEEDS_SPARK = {"demo", "up", "check", "rebuild", "rollback", "sql", "repair"}


def test_commands_that_need_no_jvm_do_not_import_spark() -> None:
    light = sorted(set(cli._COMMANDS) - NEEDS_SPARK)
    code = f"import sys; from lakehouse.commands import cli; [cli.load_command(name) for name in {light}]"
    code += "; sys.exit('pyspark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=PROJECT).returncode == 0


@pytest.mark.parametrize(("error", "code"), [(LakehouseError("It broke; mend it."), 1), (UsageError("No such day."), 2)])
def test_known_error_is_one_sentence_and_its_code(
    error: LakehouseError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_status(monkeypatch, error)
    assert exit_code(["status"]) == code
    assert capsys.readouterr() == ("", f"lakehouse: {error}\n")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), "transient: Kafka does not answer"),
        (TimeoutError(), "transient: "),
        (StreamingQueryException("[STREAM_FAILED] Query ended.\n\tat java"), "It stopped with "),
        (Py4JNetworkError("Answer from Java side is empty"), "permanent: the JVM of this process is gone"),
        (OSError(errno.ENOSPC, "No space left on device"), "transient: a disk is full"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_fault_of_the_world_is_one_sentence(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_status(monkeypatch, error)
    assert exit_code(["status"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lakehouse: ")
    assert says in line
    assert re.search(r"see (the log|its trace in \S+), then playbooks/", line)


def test_error_whose_jvm_has_died_since_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port, process = launch_gateway(die_on_exit=True, return_proc=True)
    gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port))
    with pytest.raises(Py4JJavaError) as caught:
        gateway.jvm.java.lang.Integer.parseInt("x")
    process.kill()
    process.wait(10)
    for stream in (process.stdin, process.stdout):
        stream.close()
    set_status(monkeypatch, caught.value)
    assert exit_code(["status"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "permanent: the JVM of this process is gone" in line


def test_mistake_of_the_project_is_one_sentence_and_its_trace_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    keep_traces_in(str(tmp_path))
    set_status(monkeypatch, ZeroDivisionError())
    assert exit_code(["status"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (trace,) = (tmp_path / "errors").iterdir()
    assert "ZeroDivisionError (unknown: nobody has foreseen this error)" in line
    assert f"see its trace in {trace}, then playbooks/unknown-error.md" in line


def test_table_whose_files_are_cut_is_one_sentence(hand_lake: Any) -> None:
    hand_lake.write()
    for path in Path(hand_lake.path(DLQ)).glob("*.parquet"):
        path.write_bytes(path.read_bytes()[:20])
    config = hand_lake.folder / "conf.yaml"
    config.write_text(json.dumps({"lake": {"root": hand_lake.settings.lake.root}}))
    for arguments in (["list"], ["stats"], ["discard", "--all", "--reason", "x"], ["replay"]):
        ended = run("dlq", *arguments, "--config", str(config))
        assert ended.returncode == 1
        (line,) = ended.stderr.splitlines()
        assert "permanent: a file of a table is missing or cut" in line


def test_ctrl_c_is_one_line_and_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    set_status(monkeypatch, KeyboardInterrupt())
    assert exit_code(["status"]) == 130
    assert capsys.readouterr().err == "lakehouse: interrupted\n"


@pytest.mark.parametrize("words", [["--help"], ["status"], ["doctor", "--json"], ["dlq", "list"]], ids=" ".join)
def test_reader_that_has_gone_is_told_by_the_exit_code_alone(words: list[str], hand_lake: Any) -> None:
    hand_lake.write()
    config = hand_lake.folder / "conf.yaml"
    config.write_text(json.dumps({"lake": {"root": hand_lake.settings.lake.root}}))
    options = [] if words == ["--help"] else ["--config", str(config)]
    command = [sys.executable, "-m", "lakehouse", *words, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    # As a shell says of a process that SIGPIPE ended; 1 would be a finding of the doctor.
    assert (process.returncode, said) == (141, "")


def test_unknown_command_and_missing_settings_file_are_usage_errors(tmp_path: Path) -> None:
    unknown = run("statsu")
    assert unknown.returncode == 2
    assert "No such command 'statsu'" in unknown.stderr
    missing = run("kafka", "status", "--config", str(tmp_path / "none.yaml"))
    assert missing.returncode == 2
    assert missing.stderr.startswith("lakehouse: The settings file ")
    assert "Traceback" not in missing.stderr
