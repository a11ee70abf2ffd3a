"""The playbooks as data: sections, and the shell blocks that the tests run as an operator would paste them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipelines.lake.resources import PROJECT

FOLDER = PROJECT / "playbooks"
SECTIONS = ("Meaning", "Impact", "Diagnosis", "Mitigation", "Verify")
FRONT = ""
"""Section of what stands before the first heading: there the variables are set."""
NOT_PLAYBOOKS = ("README", "failure-matrix")

_FENCE = re.compile(r"^```(\S*)\s*(.*)$")
_VARIABLE = re.compile(r'^export (\w+)="\$\{\1:-(.*)\}"(?: +# .+)?$')


@dataclass(frozen=True)
class Block:
    """A block of shell lines: `exits` is the code that it has to end with, `shown` that it is an example and not run."""

    section: str
    line: int
    code: str
    exits: int = 0
    shown: bool = False


@dataclass(frozen=True)
class Page:
    """A playbook; `sections` are its headings in order, with their text."""

    path: Path
    sections: dict[str, str]
    blocks: tuple[Block, ...]

    @property
    def name(self) -> str:
        """Name by which checks, errors and other pages call it."""
        return self.path.stem

    @property
    def setup(self) -> str:
        """The lines that set the variables, each unless the environment has it already."""
        return "\n".join(block.code for block in self.blocks if block.section == FRONT)

    @cached_property
    def variables(self) -> dict[str, str]:
        """The declared variables with their defaults; raises ValueError at a line that declares none."""
        found = {}
        for line in self.setup.splitlines():
            match = _VARIABLE.match(line)
            if match is None:
                msg = f'{self.path.name}: `{line}` sets no variable as `export NAME="${{NAME:-default}}"`.'
                raise ValueError(msg)
            found[match[1]] = match[2]
        return found

    def of(self, section: str) -> list[Block]:
        """The blocks of a section that are run."""
        return [block for block in self.blocks if block.section == section and not block.shown]


def all_pages() -> list[Page]:
    """Every playbook, by name."""
    return [read_page(path.stem) for path in sorted(FOLDER.glob("*.md")) if path.stem not in NOT_PLAYBOOKS]


def read_page(name: str) -> Page:
    """Read `playbooks/<name>.md`; raises ValueError where a fence is not closed or its words are unknown."""
    path = FOLDER / f"{name}.md"
    sections: dict[str, str] = {FRONT: ""}
    blocks: list[Block] = []
    section, fence, code = FRONT, None, list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = _FENCE.match(line)
        if fence is None and match:
            fence, code = (number, match[1], match[2]), []
        elif fence is not None and match:
            if fence[1] == "sh":
                exits, shown = _words(path, fence[2])
                blocks.append(Block(section, fence[0], "\n".join(code), exits, shown))
            fence = None
        elif fence is not None:
            code.append(line)
        elif line.startswith("## "):
            section = line.removeprefix("## ").strip()
            sections[section] = ""
        else:
            sections[section] += line + "\n"
    if fence is not None:
        msg = f"{path.name}: the block of line {fence[0]} is not closed."
        raise ValueError(msg)
    return Page(path, sections, tuple(blocks))


def _words(path: Path, words: str) -> tuple[int, bool]:
    if not words:
        return 0, False
    if words == "shown":
        return 0, True
    match = re.fullmatch(r"exits (\d+)", words)
    if match is None:
        msg = f"{path.name}: a block is marked `{words}`, expected nothing, `shown` or `exits <code>`."
        raise ValueError(msg)
    return int(match[1]), False
