"""The line between what needs a JVM and what needs none, and the other contracts of who may import whom.

`make lint` checks the tree; here each contract is broken in a copy, and has to say which import, and where it should live.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.lake.resources import PROJECT

LINT = str(Path(sys.executable).with_name("lint-imports"))
BROKEN = {
    "pyspark in a function of the lake": (
        "pipelines/lake/storage/intruder.py",
        "def read():\n    from pyspark.sql import SparkSession\n    return SparkSession\n",
        ("pipelines.lake.storage.intruder -> pyspark", "needs Spark lives in pipelines.runtime"),
    ),
    "the runtime in the lake": (
        "pipelines/lake/intruder.py",
        "import pipelines.runtime.session\n",
        ("pipelines.lake.intruder -> pipelines.runtime.session", "needs Spark lives in pipelines.runtime"),
    ),
    "one layer in another": (
        "pipelines/bronze/intruder.py",
        "from pipelines.gold import schema\n",
        ("pipelines.bronze.intruder -> pipelines.gold.schema", "what two layers share lives in pipelines.runtime"),
    ),
    "a command in a layer": (
        "pipelines/silver/intruder.py",
        "from lakehouse.operations.status.reading import read_status\n",
        ("pipelines.silver.intruder -> lakehouse.operations.status.reading", "imports only rooms below it"),
    ),
    "Spark in a decision of Silver": (
        "pipelines/silver/batch.py",
        "from pipelines.silver import transforms\n",
        ("pipelines.silver.batch -> pipelines.silver.transforms", "Silver decides and counts without a JVM"),
    ),
    "Spark in the gate's results": (
        "pipelines/gold/gate/results.py",
        "def read():\n    from pipelines.gold.gate.candidate import read_candidate\n    return read_candidate\n",
        ("pipelines.gold.gate.results -> pipelines.gold.gate.candidate", "suites and results are read without a JVM"),
    ),
    "Great Expectations in a measure": (
        "pipelines/gold/gate/figures.py",
        "def evaluate():\n    import great_expectations\n    return great_expectations\n",
        ("pipelines.gold.gate.figures -> great_expectations", "what else needs it lives in one of the two"),
    ),
    "an audit's pages in an operation": (
        "lakehouse/operations/pages.py",
        "from pipelines.gold.gate.pages import write_pages\n",
        ("lakehouse.operations.pages -> pipelines.gold.gate.pages", "ask that module for an audit"),
    ),
    "a script in an operation": (
        "lakehouse/operations/intruder.py",
        "from batch.dlq_retention import main\n",
        ("lakehouse.operations.intruder -> batch.dlq_retention", "are started, not imported"),
    ),
    "a cycle of rooms": (
        "pipelines/lake/storage/circle.py",
        "from pipelines.lake.delta_log.opening import open_table\n",
        ("Rooms have no cycle", ".delta_log", ".storage"),
    ),
    "the ledger in the proof": (
        "lakehouse/proof/intruder.py",
        "from pipelines.lake.ledger.ledger import Ledger\n",
        ("lakehouse.proof.intruder -> pipelines.lake.ledger.ledger", "The proof shares no logic"),
    ),
}
WITHOUT_JVM = """
import pkgutil, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "py4j", "delta"):
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Refuse())
import pipelines.lake
names = [found.name for found in pkgutil.walk_packages(pipelines.lake.__path__, "pipelines.lake.")]
for name in names:
    __import__(name)
print(len(names))
"""

WITHOUT_GREAT_EXPECTATIONS = """
import importlib, pkgutil, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "great_expectations":
            raise AssertionError(f"{name} is imported")
sys.meta_path.insert(0, Refuse())
import batch, lakehouse, pipelines
rooms = (pipelines, batch, lakehouse)
names = [found.name for room in rooms for found in pkgutil.walk_packages(room.__path__, room.__name__ + ".")]
others = set(names) - {"pipelines.gold.gate.great", "pipelines.gold.gate.pages", "lakehouse.__main__"}
for name in others:
    importlib.import_module(name)
print(len(names) - len(others))
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of a copy of the tree in which every case has broken its contract."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pipelines", "lakehouse", "batch"):
        shutil.copytree(PROJECT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", tree)
    for path, source, _ in BROKEN.values():
        with (tree / path).open("a", encoding="utf-8") as file:
            file.write(source)
    # A narrow terminal would fold the names.
    environ = {"PYTHONPATH": str(tree), "COLUMNS": "400", "PATH": ""}
    done = subprocess.run([LINT, "--no-cache"], check=False, cwd=tree, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("case", BROKEN)
def test_broken_contract_names_the_import_and_the_right_place(case: str, answer: str) -> None:
    for words in BROKEN[case][2]:
        assert words in answer


def test_lake_is_imported_where_there_is_no_spark() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JVM], check=False, cwd=PROJECT, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 25


def test_great_expectations_is_imported_by_a_run_that_audits_alone() -> None:
    # The linter does not tell an import in a function from one that every start of the batch would pay for.
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_GREAT_EXPECTATIONS], check=False, cwd=PROJECT, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 3


def test_lake_imports_nothing_by_name() -> None:
    # The linter cannot see these.
    found = [
        f"{path.relative_to(PROJECT)}:{node.lineno}"
        for path in sorted((PROJECT / "pipelines" / "lake").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Name)) and _is_by_name(node)
    ]

    assert not found, "import modules by import statements alone: " + ", ".join(found)


def _is_by_name(node: ast.Import | ast.ImportFrom | ast.Name) -> bool:
    if isinstance(node, ast.Name):
        return node.id == "__import__"
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
    return any(name in ("importlib", "importlib.util", "runpy", "pkgutil") for name in names)
