"""Each error that can end a job has a way out: it names a playbook, or its own sentence is the way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.lake import errors
from pipelines.lake.errors import LakehouseError, StoppedError, TransientError, UsageError
from pipelines.lake.resources import PROJECT
from tests.playbooks.pages import FOLDER

LAPTOP = PROJECT / "lakehouse" / "local"
"""The embedded broker and the demo: their sentences name the log file, no operator meets them."""
_FOR_DEVELOPERS = {"pipelines/lake/failpoints.py", "lakehouse/proof/checks.py", "lakehouse/commands/demo.py"}


def _kinds(kind: type[LakehouseError] = LakehouseError) -> Iterator[type[LakehouseError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _kinds(child)


def _needs_page() -> set[str]:
    """Names of the classes whose sentence has to name the page: a usage error's says itself what to correct."""
    return {
        kind.__name__ for kind in _kinds() if kind.usual_playbook is None and not issubclass(kind, UsageError | StoppedError)
    } - {"StreamFailedError"}


def _sentences(path: Path, kinds: set[str]) -> Iterator[tuple[int, str]]:
    """Line and source of what is raised as one of these classes; where it is a variable, of what was assigned to it last."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        assigned = [node for node in ast.walk(function) if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
        for node in ast.walk(function):
            call = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in kinds:
                continue
            said = ast.unparse(call.args[0])
            before = [one for one in assigned if ast.unparse(one.targets[0]) == said and one.lineno < call.lineno]
            yield call.lineno, ast.unparse(max(before, key=lambda one: one.lineno).value) if before else said


def test_each_error_that_is_raised_names_its_page() -> None:
    kinds = _needs_page()
    assert {"LakehouseError", "DataLossError", "TransientError"} <= kinds
    checked, missing = 0, []
    for folder in ("pipelines", "batch", "lakehouse"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            if path.is_relative_to(LAPTOP) or str(path.relative_to(PROJECT)) in _FOR_DEVELOPERS:
                continue
            for line, sentence in _sentences(path, kinds):
                checked += 1
                # `page` and `playbook` are names of what page_for and classify give; contract_sentences.py names its own.
                if not re.search(r"playbooks/[\w-]+\.md|\{page\}|\.playbook\}|\{page_for\(|^(?:gap|damage)_sentence\(", sentence):
                    missing.append(f"{path.relative_to(PROJECT)}:{line}")
    assert checked > 30
    assert missing == []


def test_usual_pages_are_there() -> None:
    usual = {kind.usual_playbook for kind in _kinds()} - {None}
    assert usual
    assert all((FOLDER / f"{page}.md").is_file() for page in usual)


def test_page_is_read_off_the_sentence_wherever_it_went() -> None:
    error = TransientError("Nobody answers; see playbooks/kafka-outage.md.")
    assert error.playbook == "kafka-outage"
    through_java = errors.own_error(f"py4j.Py4JException: x\npipelines.lake.errors.TransientError: {error}\n\tat java")
    assert through_java is not None
    assert through_java.playbook == "kafka-outage"
    assert errors.BreakerOpenError("Open.").playbook == "poison-flood"
    assert errors.SettingsError("Wrong.").playbook is None
