"""Follows a playbook: runs its blocks as they are written, in a shell, and takes the time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.lake.resources import PROJECT
from tests.playbooks.pages import Block, Page

TIMEOUT = 600
"""Seconds that one block may take."""


@dataclass(frozen=True)
class Followed:
    """What following a playbook took, in seconds, from the moment when the fault was over; its lines, and what they printed."""

    page: str
    diagnosis: float
    mitigation: float
    verify: float
    output: str

    @property
    def recovery(self) -> float:
        """Seconds until the mitigation had ended, and with it the lag."""
        return self.diagnosis + self.mitigation

    def __str__(self) -> str:
        return (
            f"playbook {self.page}: recovered {self.recovery:.1f} s after the fault's end "
            f"(diagnosis {self.diagnosis:.1f} s, mitigation {self.mitigation:.1f} s), verified in {self.verify:.1f} s more"
        )


def follow(page: Page, variables: Mapping[str, str]) -> Followed:
    """Run Diagnosis, Mitigation and Verify of `page`, with the variables that it declares set to `variables`.

    Raises AssertionError with the block and what it printed where one ends with another code than the page says.
    """
    unknown = set(variables) - set(page.variables)
    assert not unknown, f"{page.path.name} declares no variable {', '.join(sorted(unknown))}"
    seconds: dict[str, float] = {}
    output: list[str] = []
    for section in ("Diagnosis", "Mitigation", "Verify"):
        started = time.monotonic()
        output += [run_block(page, block, variables) for block in page.of(section)]
        seconds[section.lower()] = time.monotonic() - started
    return Followed(page.name, output="\n".join(output), **seconds)


def run_block(page: Page, block: Block, variables: Mapping[str, str]) -> str:
    """Run one block in a shell of its own, as one that is pasted, and return it with what it printed."""
    done = run_shell(f"{page.setup}\n{block.code}", variables)
    where = f"{page.path.name}, line {block.line} ({block.section})"
    assert done.returncode == block.exits, (
        f"{where} ended with {done.returncode}, expected {block.exits}:\n{block.code}\n--- printed:\n{done.stdout[-9000:]}"
    )
    return f"# {where}\n{textwrap.indent(block.code, '$ ')}\n{done.stdout}"


def run_shell(lines: str, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run shell lines in the project's folder with its commands in PATH; standard output has the errors too."""
    environ = {
        **os.environ,
        **variables,
        "PYTHONPATH": str(PROJECT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "COLUMNS": "180",
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],
        env=environ,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
