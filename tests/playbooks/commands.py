"""The commands that stand in a playbook, as words; what they name is looked up in the CLI itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from lakehouse.commands.cli import _COMMANDS, load_command
from pipelines.lake.resources import PROJECT

_OPERATORS = re.compile(r"[;&|()<>\n]+")
_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\"\n]*$", re.MULTILINE)
_KEYWORDS = {"do", "then", "else", "if", "while", "!"}
_ENDS = {"done", "fi"}


def commands_of(code: str) -> Iterator[list[str]]:
    """The simple commands of shell lines, each a list of words; loops, conditions and pipes are taken apart."""
    lexer = shlex.shlex(_COMMENT.sub("", code.replace("\\\n", " ")), posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in lexer:
        if _OPERATORS.fullmatch(word):
            yield from _command(words)
            words = []
        else:
            words.append(word)
    yield from _command(words)


def _command(words: list[str]) -> Iterator[list[str]]:
    while words and (words[0] in _KEYWORDS or re.match(r"\w+=", words[0])):
        words = words[1:]
    if words and words[0] not in _ENDS:
        yield words


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command: one that the CLI has not, an option that it does not take, a script that is not there."""
    if words[0] == "lakehouse":
        return _complaint_about_cli(words[1:])
    if words[0] == "python":
        return _complaint_about_script(words[1:])
    return None


def _complaint_about_cli(words: list[str]) -> str | None:
    if not words or words[0] not in _COMMANDS:
        return f"there is no command `lakehouse {' '.join(words[:1])}`"
    found: Any = load_command(words[0])
    called, rest = words[0], words[1:]
    if hasattr(found, "commands"):
        if not rest or rest[0] not in found.commands:
            return f"there is no command `lakehouse {' '.join(words[:2])}`"
        found, called, rest = found.commands[rest[0]], f"{called} {rest[0]}", rest[1:]
    takes = {name for option in found.params for name in (*option.opts, *option.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word not in takes]
    return f"`lakehouse {called}` takes no {', '.join(unknown)}" if unknown else None


def _complaint_about_script(words: list[str]) -> str | None:
    script = PROJECT / words[0]
    if not script.is_file():
        return f"there is no script {words[0]}"
    source = script.read_text(encoding="utf-8")
    if words[0].startswith("pipelines/"):
        source += (PROJECT / "pipelines/runtime/flags.py").read_text(encoding="utf-8")
    unknown = [word for word in words[1:] if word.startswith("--") and f'add_argument("{word}"' not in source]
    spread = [word for word in unknown if not re.search(rf'add_argument\(\s*"{re.escape(word)}"', source)]
    return f"{words[0]} takes no {', '.join(spread)}" if spread else None
