"""No reader asks what answers "absent" where it may not look: Python's own questions, and deltalake's."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from pipelines.lake.resources import PROJECT

BELIEVES = {"exists", "glob", "rglob", "iterdir", "is_file", "isfile", "isdir", "listdir", "scandir", "is_deltatable"}
"""They give False or nothing for what is not readable, or an error that no command expects; `local_files` tells the two apart."""
ALLOWED = {
    ("pipelines/lake/storage/local_files.py", "listdir"): "it tells apart",
    ("lakehouse/operations/rebuild/plan.py", "glob"): "the project's own code",
    ("lakehouse/local/demo_process.py", "glob"): "/proc",
    ("lakehouse/local/demo_report.py", "exists"): "how to write a command",
    ("lakehouse/commands/sql.py", "exists"): "the prompt's history",
}


def _calls() -> Iterator[tuple[str, str, int]]:
    for path in sorted(path for folder in ("pipelines", "lakehouse", "batch") for path in (PROJECT / folder).rglob("*.py")):
        name = path.relative_to(PROJECT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                yield name, called, node.lineno
            elif isinstance(node, ast.ExceptHandler) and "TableNotFoundError" in ast.dump(node.type or ast.Pass()):
                yield name, "except TableNotFoundError", node.lineno


def test_only_one_module_asks_whether_something_is_there() -> None:
    found = [f"{name}:{line} {called}" for name, called, line in _calls() if called in BELIEVES and (name, called) not in ALLOWED]
    assert not found, "use pipelines.lake.storage.local_files: " + ", ".join(found)


def test_only_one_module_opens_the_log_of_a_table() -> None:
    opening = "pipelines/lake/delta_log/opening.py"
    found = [
        f"{name}:{line} {called}"
        for name, called, line in _calls()
        if called in {"DeltaTable", "except TableNotFoundError"} and name != opening
    ]
    assert not found, f"use {opening}: " + ", ".join(found)


def test_only_one_module_asks_a_path_for_its_scheme() -> None:
    places = "pipelines/lake/places.py"
    found = [
        f"{path.relative_to(PROJECT)}:{number}"
        for folder in ("pipelines", "lakehouse", "batch")
        for path in sorted((PROJECT / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if '"://"' in line and path.relative_to(PROJECT).as_posix() != places
    ]
    assert not found, f"use {places}: " + ", ".join(found)
