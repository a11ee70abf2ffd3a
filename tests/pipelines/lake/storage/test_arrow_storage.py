from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.resources import PROJECT

_READ = "rows_dataset(DeltaTable(sys.argv[1]))"
_IMPORTS = "import sys\nfrom deltalake import DeltaTable\nfrom pipelines.lake.delta_log.plain_read import rows_dataset\n"
_MANY_READERS = f"""{_IMPORTS}
for _ in range(300):
    try:
        {_READ}.scanner(fragment_readahead=2).to_reader().read_all()
    except FileNotFoundError:
        continue
    sys.exit("A table with a missing file was read.")
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Give a table of eight files, at a path that a URI has to quote."""
    path = tmp_path / "my lake #1 ü"
    for first in range(0, 40_000, 5_000):
        rows = range(first, first + 5_000)
        write_deltalake(path, pa.table({"n": list(rows), "text": [f"{n:050}" for n in rows]}), mode="append")
    return path


def test_rows_are_read_at_any_path(table: Path) -> None:
    found = rows_dataset(DeltaTable(table)).to_table(columns=["n"])
    assert sorted(found.column("n").to_pylist()) == list(range(40_000))


def test_reading_a_table_whose_first_file_is_missing_ends_each_time(table: Path) -> None:
    (table / pa.table(DeltaTable(table).get_add_actions()).column("path")[0].as_py()).unlink()
    run = _run(_MANY_READERS, table)
    assert (run.returncode, run.stderr) == (0, "")


def test_process_that_ends_right_after_it_has_read_a_table_ends_well(table: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: _run(f"{_IMPORTS}{_READ}.to_table()", table), range(10)))
    assert {(run.returncode, run.stderr) for run in runs} == {(0, "")}


def test_no_program_reads_a_table_through_python() -> None:
    files = [file for folder in ("pipelines", "lakehouse", "batch", "benchmarks") for file in (PROJECT / folder).glob("**/*.py")]
    assert len(files) > 100
    assert [file for file in files if "to_pyarrow_" in file.read_text()] == []


def _run(program: str, table: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(table)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
