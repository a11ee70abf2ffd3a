"""What a process takes over from its shell: file handles, umask, locale, signals; each works or is one sentence at the start."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lakehouse.local.kafka_node import _property
from pipelines.lake import surroundings
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.classify import classify
from pipelines.lake.errors import UsageError
from pipelines.lake.resources import PROJECT
from pipelines.lake.surroundings import NEEDED_HANDLES, current_umask, require_spelling
from tests.faults.evidence import Evidence

SIGNALS = "from pipelines.runtime.jobs import stop_on_signals\nstop = stop_on_signals()\nprint('ready', flush=True)\n"


def _run(*words: str, before: Callable[[], None] | None = None, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT), **more}
    command = [sys.executable, *words]
    return subprocess.run(
        command,
        preexec_fn=before,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environ,
        check=False,
        timeout=300,
    )


def _limit(soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _config(folder: Path) -> Path:
    path = folder / "conf.yaml"
    lake = {"root": "lake", "checkpoints": "points", "state_dir": "state"}
    path.write_text(json.dumps({"lake": lake, "schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")}))
    return path


@pytest.mark.case("N7")
@pytest.mark.parametrize("words", [["-m", "lakehouse", "up"], ["-m", "lakehouse", "kafka", "start"]])
def test_too_few_file_handles_are_one_sentence_before_anything_is_made(
    words: list[str], tmp_path: Path, evidence: Evidence
) -> None:
    done = _run(*words, "--config", str(_config(tmp_path)), before=_limit(256, 256), cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert f"may open 256 files, at least {NEEDED_HANDLES} are needed" in line
    assert [path.name for path in tmp_path.iterdir()] == ["conf.yaml"]
    evidence.loud(f"`lakehouse {' '.join(words[2:])}` with 256 file handles: one sentence, nothing made")


def test_soft_limit_of_file_handles_is_raised_as_far_as_is_allowed(tmp_path: Path) -> None:
    program = (
        "import resource; from pipelines.lake.surroundings import raise_file_limit; raise_file_limit()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert _run("-c", program, before=_limit(256, 2048), cwd=tmp_path).stdout == "2048 2048\n"


@pytest.mark.parametrize(
    "error",
    [
        OSError(24, "Too many open files"),
        OSError(23, "Too many open files in system"),
        RuntimeError("java.io.FileNotFoundException: /x/1.parquet (Too many open files)"),
        RuntimeError("Generic LocalFileSystem error: Unable to open file /x: Too many open files (os error 24)"),
    ],
)
def test_used_up_file_handles_are_named(error: Exception) -> None:
    cause = classify(error)
    # The soft limit was raised at the start: what is used up now does not come back in this process.
    assert (cause.kind, cause.playbook) == (Kind.PERMANENT, "playbooks/environment.md")


def test_umask_is_read_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        assert current_umask() == 0o027
        monkeypatch.setattr(surroundings, "Path", lambda _: Path("/no/such/file"))
        assert current_umask() == 0o027
    finally:
        assert os.umask(before) == 0o027


@pytest.mark.parametrize(("path", "encoding"), [("/x/größe", "ANSI_X3.4-1968"), ("größe", "no-such"), ("/x/\udce4", "utf-8")])
def test_path_that_cannot_be_spelled_is_one_sentence(path: str, encoding: str) -> None:
    with pytest.raises(UsageError, match=r"cannot spell in a file name; set LC_ALL=C\.UTF-8"):
        require_spelling(["/plain", path], encoding)
    require_spelling(["/plain", "s3a://bucket/größe"], "utf-8")


def test_path_in_a_properties_file_is_read_by_java_as_it_is() -> None:
    assert _property(Path("/a b/größe/\U0001f600/c\\d")) == r"/a b/gr\u00f6\u00dfe/\ud83d\ude00/c\u005cd"


@pytest.mark.case("N7")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_job_drains_on_each_signal_that_asks_it_to_stop(number: signal.Signals, evidence: Evidence) -> None:
    program = f"import sys\n{SIGNALS}sys.exit(0 if stop.wait(60) else 9)"
    with _started(program) as job:
        job.send_signal(number)
        assert job.wait(30) == 0
    evidence.fired(f"{number.name}: drained, exit code 0")


def test_nohup_is_respected() -> None:
    program = f"import sys\n{SIGNALS}print(stop.wait(2), flush=True)\nsys.exit(0 if stop.wait(60) else 9)"
    with _started(program, lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as job:
        job.send_signal(signal.SIGHUP)
        assert job.stdout is not None
        assert job.stdout.readline() == "False\n"
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 0


def _started(program: str, before: Callable[[], object] | None = None) -> subprocess.Popen[str]:
    def defaults() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if before is not None:
            before()

    job = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=defaults,  # noqa: PLW1509
    )
    assert job.stdout is not None
    assert job.stdout.readline() == "ready\n"
    return job


WITH_A_JVM = """
import json, os, signal, sys
from deltalake import write_deltalake
import pyarrow as pa
from pipelines.runtime.jobs import stop_on_signals
from pipelines.runtime.jvm import log_file
from pipelines.lake.lease.layers import lease_of
from pipelines.runtime.session import build_session
from pipelines.lake.settings_sources import load_settings

settings = load_settings("conf.yaml", environ={}, overrides={"spark": {"spark.master": "local[1]", "spark.driver.memory": "1g"}})
stop = stop_on_signals()
spark = build_session(settings, "tests")
spark.range(3).coalesce(1).write.format("delta").save("lake/größe")
write_deltalake("lake/größe", pa.table({"id": [7]}), mode="append")
stream = spark.readStream.format("delta").load(os.path.abspath("lake/größe")).writeStream.format("delta")
stream.option("checkpointLocation", "points/ñ").trigger(availableNow=True).start("lake/copy").awaitTermination()
with lease_of(settings, "silver", job="tests", run="1").hold():
    pass
try:
    spark.sql("SELECT raise_error('payload') FROM range(1)").collect()
except Exception as error:
    print(type(error).__name__)
# A terminal that closes, and a Ctrl-C, reach the JVM too: the last batch needs it.
for number in (signal.SIGHUP, signal.SIGINT):
    os.killpg(0, number)
print(stop.wait(10), spark.read.format("delta").load("lake/copy").count())
print(log_file(settings, "tests").read_text(encoding="utf-8").count("payload") > 0)
"""


@pytest.mark.case("N7")
def test_lake_below_a_strange_path_in_the_c_locale_follows_the_umask_and_the_console_stays_quiet(
    tmp_path: Path, evidence: Evidence
) -> None:
    folder = tmp_path / "größe ñ"
    folder.mkdir()
    _config(folder)

    def before() -> None:
        os.setsid()
        os.umask(0o027)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    done = _run("-c", WITH_A_JVM, before=before, cwd=folder, LC_ALL="C")
    said = "\n".join(line for line in done.stderr.splitlines() if "stopping after the running batch" not in line)
    assert (done.returncode, said) == (0, "")
    assert done.stdout.split() == ["SparkRuntimeException", "True", "4", "True"]
    # No second folder, whose name is what a JVM makes of the first one's.
    assert os.listdir(tmp_path) == ["größe ñ"]
    assert set(os.listdir(folder)) == {"conf.yaml", "lake", "points", "state"}
    modes = {
        (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for name in ("lake", "points")
        for path in [folder / name, *(folder / name).rglob("*")]
    }
    assert modes == {(True, 0o750), (False, 0o640)}
    assert stat.S_IMODE((folder / "state/logs/spark-tests.log").stat().st_mode) == 0o600
    evidence.fired("LC_ALL=C and umask 027 with a lake below `größe ñ`: written by Spark and by Python with the same modes")


@pytest.mark.case("N7")
@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("| head -c 0", 141, ""),
        ("> /dev/full", 1, "lakehouse: It stopped with ENOSPC (transient: a disk is full)"),
        ("> /dev/full 2>&1", 1, ""),
    ],
)
def test_output_that_nobody_takes_is_a_code_and_at_most_a_sentence(
    tmp_path: Path, evidence: Evidence, output: str, code: int, said: str
) -> None:
    command = f"set -o pipefail; '{sys.executable}' -m lakehouse --help {output}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) <= 1
    evidence.fired(f"output `{output}`: exit code {code}")


def test_jvm_that_does_not_start_gives_its_reason_in_one_sentence(tmp_path: Path) -> None:
    config = _config(tmp_path)
    started = time.monotonic()
    done = _run("-m", "lakehouse", "up", "--config", str(config), cwd=tmp_path, LAKEHOUSE__SPARK="{spark.driver.memory: 1x}")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("lakehouse: Spark's JVM did not start: ")
    assert "1x" in line
    assert "spark.driver.memory" in line
    assert time.monotonic() - started < 120
    assert [path.name for path in tmp_path.iterdir()] == ["conf.yaml"]
