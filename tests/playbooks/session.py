"""A session as an operator would have it: commands that are typed, what they print, and a transcript that can be shown."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.lake.resources import PROJECT
from tests.playbooks.pages import Page
from tests.playbooks.runner import follow, run_shell

TRANSCRIPTS = PROJECT / "build" / "operator"
WAITING = {"letters-open", "disk-low"}
"""Findings that no fault of the session made: letters of the generator's broken records, and the machine's own disk."""

Finding = dict[str, Any]


@dataclass
class Session:
    """What an operator does at a lake with the settings file `config`; `lines` is the transcript."""

    fault: str
    config: str
    lines: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def remark(self, text: str) -> None:
        """Note what is not typed."""
        self.lines += ["", f"# {text}"]

    def type(self, command: str, *exits: int) -> str:
        """Type a command line and return what it prints; it has to end with one of `exits` (default: 0)."""
        done = run_shell(command, {})
        self.lines += ["", f"$ {command}", done.stdout.rstrip()]
        if done.returncode:
            self.lines.append(f"[exit code {done.returncode}]")
        assert done.returncode in (exits or (0,)), "\n".join(self.lines[-40:])
        return done.stdout

    def doctor(self) -> list[Finding]:
        """Ask the doctor, as people do and as machines do; give the findings that somebody has to act on."""
        self.type(f"lakehouse doctor --config {self.config}", 0, 1, 3)
        found: list[Finding] = json.loads(run_shell(f"lakehouse doctor --json --config {self.config}", {}).stdout)
        return [one for one in found if one["severity"] != "info" and one["id"] not in WAITING]

    def run_commands(self, finding: Finding) -> None:
        """Type what the doctor printed, filled in as it stands; streams are run to the end of what is there."""
        self.remark(f"{finding['id']}: the commands that the doctor printed")
        for command in finding["commands"]:
            is_stream = re.match(r"lakehouse up |python pipelines/", command)
            # The daily batch says by 3 that it found what it mended, `checkpoint verify` by 1 what is wrong.
            self.type(f"{command} --trigger available-now" if is_stream else command, 0, 1, 3)

    def follow(self, page: Page, variables: Mapping[str, str]) -> None:
        """Follow a playbook that the doctor named."""
        self.remark(f"playbooks/{page.name}.md, its variables set to {dict(variables)}")
        self.lines += ["", follow(page, variables).output.rstrip()]

    def save(self) -> float:
        """Write the transcript; return the seconds since the first look at the lake."""
        TRANSCRIPTS.mkdir(parents=True, exist_ok=True)
        path = TRANSCRIPTS / f"{self.fault}.txt"
        seconds = time.monotonic() - self.began
        head = f"# {self.fault}: {seconds:.0f} s from the first look at the lake to green checks"
        path.write_text("\n".join([head, *self.lines]) + "\n", encoding="utf-8")
        return seconds
