"""The SQL prompt on a terminal: Ctrl-C ends a statement and not the prompt, a write is asked about, nothing else is said."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake.resources import PROJECT
from pipelines.lake.tables import SILVER

LONG = "SELECT count(*) FROM range(2000000000000) WHERE hash(id) = 1;"
"""Half an hour on two cores."""


class Terminal:
    """A process whose terminal this test is; what it has shown so far is `shown`."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._master, slave = pty.openpty()
        environ = {**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "dumb", "COLUMNS": "100"}
        # In a session of its own, its terminal is the new one: a Ctrl-C that is typed reaches the JVM as well.
        program = [sys.executable, "-c", _BEGIN, *command]
        self.process = subprocess.Popen(program, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environ)
        os.close(slave)
        self.shown = ""

    def type(self, text: str) -> None:
        self.shown = ""
        os.write(self._master, text.encode())

    def wait_for(self, pattern: str, seconds: float = 120) -> str:
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.shown):
            assert time.monotonic() < deadline, f"{pattern} was not shown, but {self.shown}"
            if select.select([self._master], [], [], 0.2)[0]:
                self.shown += os.read(self._master, 65_536).decode(errors="replace")
        return self.shown

    def close(self) -> None:
        os.close(self._master)


_BEGIN = """
import fcntl, os, signal, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def terminal(hand_lake: Any) -> Iterator[Terminal]:
    hand_lake.write()
    config = hand_lake.folder / "conf.yaml"
    tree = {"root": hand_lake.settings.lake.root, "state_dir": hand_lake.settings.lake.state_dir}
    config.write_text(json.dumps({"lake": tree, "schemas_dir": hand_lake.settings.schemas_dir}))
    command = ["-m", "lakehouse", "sql", "--write", "--config", str(config)]
    opened = Terminal(command, hand_lake.folder)
    yield opened
    opened.process.kill()
    opened.process.wait(30)


def test_prompt_lives_through_cancelled_wrong_and_unconfirmed_statements(terminal: Terminal, hand_lake: Any) -> None:
    begun = terminal.wait_for("lake> ", 240)
    assert "WARN" not in begun
    assert "log level" not in begun

    terminal.type(LONG + "\n")
    time.sleep(4)
    terminal.type("\x03")
    shown = terminal.wait_for(r"The statement was cancelled\.\s+lake> ", 60)
    assert "Traceback" not in shown
    assert "\tat " not in shown

    terminal.type("SELECT 40 +\n2 AS answer;\n")
    assert re.search(r"│\s+42 │", terminal.wait_for("1 rows"))
    terminal.wait_for("lake> ")

    terminal.type("SELECT no_such FROM silver.api_usage_events;\n")
    shown = terminal.wait_for(r"UNRESOLVED_COLUMN[^\n]*\n.*lake> ")
    assert len(shown.strip().splitlines()) == 3, shown

    terminal.type("DELETE FROM silver.api_usage_events WHERE event_id = 'e1';\n")
    terminal.wait_for("Type `silver.api_usage_events` to do it: ")
    terminal.type("yes\n")
    terminal.wait_for(r"not confirmed, nothing was done.*lake> ".replace(".*", r"[^\0]*"))
    assert hand_lake.delta(SILVER).version() == 0

    terminal.type("DELETE FROM silver.api_usage_events WHERE event_id = 'e1';\n")
    terminal.wait_for("to do it: ")
    terminal.type("silver.api_usage_events\n")
    terminal.wait_for(r"num_affected_rows[^\0]*lake> ")
    assert hand_lake.delta(SILVER).version() == 1

    terminal.type(LONG + "\n")
    time.sleep(1)
    # The terminal is closed in the midst of a statement: nothing goes on in the background.
    terminal.close()
    assert terminal.process.wait(30) == -signal.SIGHUP


def test_writes_from_a_pipe_need_a_flag_before_spark_starts(hand_lake: Any) -> None:
    for flags, expected in ((["--write"], "give --yes with it"), (["--yes"], "--write is missing")):
        done = subprocess.run(
            [sys.executable, "-m", "lakehouse", "sql", *flags, "--config", "nowhere.yaml"],
            input="SELECT 1",
            capture_output=True,
            text=True,
            timeout=60,
            cwd=hand_lake.folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            check=False,
        )
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (2, "")
        assert expected in line
