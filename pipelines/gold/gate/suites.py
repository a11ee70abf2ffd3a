"""Reads the suites of expectations, files that an analyst changes, and checks them against the audited columns. Needs no JVM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.lake.errors import SettingsError
from pipelines.lake.resources import PROJECT
from pipelines.lake.storage.local_files import files_in, is_there, read_text

BLOCKS, WARNS = "blocks", "warns"
_PATTERNS = ("*.yaml", "*.yml", "*.json")
_SINGLE, _SEVERAL = ("column", "column_A", "column_B"), ("column_list", "column_set")
"""Arguments of an expectation that name a column, and those that name several."""


class Expectation(BaseModel):
    """One expectation: `type` and `kwargs` as Great Expectations has them, and what an operator has to know of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=80)
    type: str = Field(pattern=r"^[a-z_]+$")
    kwargs: dict[str, Any] = Field(default_factory=dict)
    severity: Literal["blocks", "warns"]
    says: str = Field(min_length=1)
    playbook: str = Field(pattern=r"^[a-z-]+$")

    @property
    def columns(self) -> list[str]:
        """Columns that it speaks of."""
        named = [self.kwargs[key] for key in _SINGLE if isinstance(self.kwargs.get(key), str)]
        for key in _SEVERAL:
            several = self.kwargs.get(key)
            named += [name for name in several if isinstance(name, str)] if isinstance(several, list) else []
        return named


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    audits: str
    expectations: list[Expectation] = Field(min_length=1)


class Suite(BaseModel):
    """The expectations of one file, on one audited set of rows; `name` is the file's."""

    model_config = ConfigDict(frozen=True)

    name: str
    audits: str
    expectations: tuple[Expectation, ...]


def read_suites(folder: str, columns: Mapping[str, Sequence[str]]) -> list[Suite]:
    """Read every suite of `folder`; `columns`: those of each audited set of rows.

    Raises SettingsError, one sentence that names file, expectation and what to do: no file, no YAML or JSON, a key or value that
    is none, a set of rows or a column that is not audited, an id that stands twice, a playbook that is not there.
    """
    paths = sorted(path for pattern in _PATTERNS for path in files_in(folder, pattern))
    if not paths:
        msg = (
            f"The folder {folder} holds no suite of expectations; put a file such as day.yaml there or correct `quality.suites`."
        )
        raise SettingsError(msg)
    suites = [_read(path, columns) for path in paths]
    seen: dict[str, str] = {}
    for suite in suites:
        for one in suite.expectations:
            if one.id in seen:
                msg = f"The expectation `{one.id}` stands in {seen[one.id]} and in {suite.name}; give each an id of its own."
                raise SettingsError(msg)
            seen[one.id] = suite.name
    return suites


def _read(path: Path, columns: Mapping[str, Sequence[str]]) -> Suite:
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        msg = f"{path} is no YAML or JSON{where}, expected a suite of expectations; correct it (docs/quality.md)."
        raise SettingsError(msg) from None
    try:
        found = _File.model_validate(content)
    except ValidationError as error:
        msg = f"{path} is no suite of expectations: {_first_problem(error, content)}; correct it (docs/quality.md)."
        raise SettingsError(msg) from None
    if found.audits not in columns:
        msg = f"{path} audits `{found.audits}`, expected one of {', '.join(columns)}; correct it."
        raise SettingsError(msg)
    suite = Suite(name=path.stem, audits=found.audits, expectations=tuple(found.expectations))
    for problem in _problems(suite, columns[suite.audits]):
        msg = f"{path}: {problem}."
        raise SettingsError(msg)
    return suite


def _problems(suite: Suite, columns: Sequence[str]) -> Iterator[str]:
    for one in suite.expectations:
        for name in one.columns:
            if name not in columns:
                known = ", ".join(columns)
                yield f"`{one.id}` speaks of the column `{name}`, which `{suite.audits}` does not have; use one of {known}"
        if not is_there(PROJECT / "playbooks" / f"{one.playbook}.md"):
            yield f"`{one.id}` names the playbook `{one.playbook}`, which is not in playbooks/; name one that is"


def _first_problem(error: ValidationError, content: Any) -> str:
    """The first thing that is wrong, by its place and never by its value."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = list(first["loc"])
    if len(place) > 1 and place[0] == "expectations" and isinstance(place[1], int):
        row = content["expectations"][place[1]]
        name = row.get("id") if isinstance(row, dict) else None
        place = [f"expectation `{name}`" if isinstance(name, str) else f"expectation {place[1] + 1}", *place[2:]]
    where = ", ".join(f"`{part}`" if isinstance(part, str) and "`" not in part else str(part) for part in place)
    return f"{where + ': ' if where else ''}{first['msg'][0].lower()}{first['msg'][1:]}"
