"""`lakehouse demo` as a person runs it: real broker, real Spark, and Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable
from rich.console import Console

from lakehouse.local.demo import Demo
from lakehouse.local.demo_figures import Conservation
from lakehouse.local.demo_folder import DemoFolder
from lakehouse.local.demo_screen import Screen
from lakehouse.local.kafka_state import kafka_folder, running_broker
from pipelines.lake.errors import UsageError
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import LakeSettings, Settings
from pipelines.lake.settings_sources import load_settings
from tests.signals import signals_of_a_terminal

EVENTS = 3000


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "local.yaml"
    path.write_text(yaml.safe_dump({"lake": {"state_dir": str(tmp_path / "state")}, "kafka": {"partitions": 2}}))
    return path


def command(config: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "lakehouse", "demo", "--config", str(config), "--events", str(EVENTS), *options]


def start(config: Path, *options: str) -> subprocess.Popen[str]:
    with signals_of_a_terminal():
        return subprocess.Popen(
            command(config, *options), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )


def read_until(demo: subprocess.Popen[str], word: str, seconds: float = 240.0) -> str:
    assert demo.stdout is not None
    said, deadline = "", time.monotonic() + seconds
    while word not in said:
        ready, _, _ = select.select([demo.stdout], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no {word!r} in {said!r}"
        line = demo.stdout.readline()
        assert line, f"the demo ended with {said!r}"
        said += line
    return said


def processes_that_name(text: str) -> list[str]:
    """Command lines of running processes that hold `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


def descendants(pid: int) -> set[int]:
    found: set[int] = set()
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listing.read_text().split():
            found |= {int(child)} | descendants(int(child))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(1200)  # beside another test, on a slow machine it takes minutes
def test_demo_shows_that_every_record_is_accounted_for(config: Path, tmp_path: Path) -> None:
    done = subprocess.run(command(config), cwd=PROJECT, capture_output=True, text=True, check=False, timeout=1000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    folder = tmp_path / "state" / "demo"
    for name in ("Kafka", "Produce", "Spark", "Bronze", "Silver", "Gold", "Reconcile", "SQL checks", "Invariants"):
        assert re.search(rf"^{name} .* \d+\.\d s$", done.stdout, re.MULTILINE), name
    assert re.search(r"^Kafka acknowledged +3,000\b", done.stdout, re.MULTILINE)
    assert re.search(r"^Bronze +3,000 += Kafka", done.stdout, re.MULTILINE)
    assert re.search(r"^together +3,000 += Bronze", done.stdout, re.MULTILINE)
    assert "✓ Every record is accounted for: I1-I5, " in done.stdout
    assert re.search(r"^SLV-004 .* \d+", done.stdout, re.MULTILINE)
    assert re.search(r"^cust-000000 .* final *$", done.stdout, re.MULTILINE)
    assert re.search(r"✓ nothing red: \d+ of \d+ SQL checks found nothing", done.stdout)
    assert f"--config {folder / 'demo.yaml'}" in done.stdout
    # `make demo` again, on what a demo and Spark have left there.
    with DemoFolder(folder).claim():
        pass
    assert all(len(line) <= 80 or str(tmp_path) in line for line in done.stdout.splitlines())

    # What is printed is true of the lake, and the settings that it names lead there.
    settings = load_settings(folder / "demo.yaml", environ={})
    assert DeltaTable(f"{settings.lake.root}/bronze/api_usage_events").count() == EVENTS
    assert running_broker(folder) is None
    assert processes_that_name(str(folder)) == []
    status = subprocess.run(
        [sys.executable, "-m", "lakehouse", "status", "--config", str(folder / "demo.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )
    assert status.returncode == 0, status.stderr
    assert re.search(r"bronze\.api_usage_events\W.* 3,000 ", status.stdout)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found through /proc")
@pytest.mark.parametrize(
    ("after", "asked"), [("from Kafka", signal.SIGINT), ("Kafka  ", signal.SIGHUP), ("Spark  ", signal.SIGINT)]
)
def test_stop_ends_everything_with_one_line(config: Path, after: str, asked: signal.Signals) -> None:
    """After the first line it meets the broker's start, then Spark's, then the Bronze stream."""
    demo = start(config)
    try:
        read_until(demo, after)
        time.sleep(1.5)
        family = descendants(demo.pid)
        assert family
        demo.send_signal(asked)
        _, error = demo.communicate(timeout=60)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert error == "lakehouse: interrupted\n"
    # A shell that was starting the JVM may have had a child of its own, which needs a moment to notice.
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [pid for pid in family if is_alive(pid)] == []


def test_second_demo_says_why_not_and_touches_nothing(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "demo"
    (folder / "lake").mkdir(parents=True)
    with (folder / "demo.lock").open("w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.run(command(config), cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr == (
        f"lakehouse: Another demo runs in {folder} (pid 4711); wait for it, or give another folder with --folder.\n"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["demo.lock", "lake"]


def test_folder_with_other_files_is_refused_and_left_alone(config: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"holds thesis\.txt, which no demo has made"), DemoFolder(tmp_path / "home").claim():
        pass
    assert (tmp_path / "home" / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["logs", "errors"])
def test_logs_are_a_demos_only_where_a_demo_was(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=f"holds {name}, which no demo has made"), DemoFolder(tmp_path).claim():
        pass
    (tmp_path / "demo.lock").touch()
    with DemoFolder(tmp_path).claim():
        DemoFolder(tmp_path).prepare(load_settings(None, environ={}), keep=False)
    assert not (tmp_path / name).exists()


def test_fresh_demo_refuses_to_pull_the_data_from_under_a_running_broker(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path)
    kafka = kafka_folder(tmp_path)
    kafka.mkdir()
    mark = str(kafka / "server.properties")
    # It speaks once it is Python: just after the fork its command line is still this process's own.
    program = "import time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, mark], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        (kafka / "broker.json").write_text(
            f'{{"pid": {holder.pid}, "bootstrap_servers": "127.0.0.1:1", "log": "x", "config": "{mark}"}}'
        )
        try:
            with (
                folder.claim(),
                pytest.raises(UsageError, match=r"kafka stop --config .*demo\.yaml`, or add to its lake with --keep"),
            ):
                folder.prepare(Settings(), keep=False)
            assert kafka.exists()
        finally:
            holder.kill()


@pytest.mark.parametrize("hour", [0, 1, 2, 3, 12, 23])
@pytest.mark.parametrize("events", [100, 100_000])
def test_history_covers_a_day_whose_grace_is_over_in_kafka_time(tmp_path: Path, hour: int, events: int) -> None:
    now = datetime(2026, 3, 1, hour, 7, tzinfo=UTC)
    settings = Settings(lake=LakeSettings(state_dir=str(tmp_path)))
    demo = Demo(settings, DemoFolder(tmp_path), Screen(Console()), events=events, keep=False, now=now)
    plan = demo.plan()
    assert plan.start_time is not None
    assert plan.span_seconds is not None
    assert plan.start_time == plan.start_time.replace(hour=0, minute=0)
    last_record = plan.start_time + timedelta(seconds=plan.span_seconds * (1 - 1 / events))
    assert plan.start_time + timedelta(days=1, hours=settings.reconcile.grace_hours) < last_record <= now
    assert plan.span_seconds < 52 * 3600


def test_one_record_too_few_or_too_many_is_no_conservation() -> None:
    counts = {"silver": 6, "duplicates": 2, "dead_letters": 1, "tombstones": 1, "late": 0, "conflicts": 0}
    assert Conservation(acknowledged=10, bronze=10, **counts).holds
    assert not Conservation(acknowledged=11, bronze=10, **counts).holds
    assert not Conservation(acknowledged=10, bronze=10, **{**counts, "duplicates": 3}).holds
