"""The list of a job's tables names every transaction id that the job's code gives a commit."""

from __future__ import annotations

import ast

import pytest

from pipelines.lake.errors import UsageError
from pipelines.lake.job_tables import JOBS, job_tables
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, DLQ, GOLD_HOURLY, SILVER


def _parts(job: str) -> set[str]:
    """The parts of app ids that a layer's code names."""
    found: set[str] = set()
    for path in (PROJECT / "pipelines" / job).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "app_id":
                texts = {one.value for arg in node.args for one in ast.walk(arg) if isinstance(one, ast.Constant)}
                found |= {text for text in texts if isinstance(text, str)} if node.args else {""}
    return found


@pytest.mark.parametrize("job", JOBS)
def test_every_part_of_an_app_id_is_listed(job: str) -> None:
    assert _parts(job) <= set(JOBS[job].transactions)


def test_parts_are_seen_where_the_layers_name_them() -> None:
    assert "" in _parts("bronze")
    assert {"", "dlq", "dlq-poison"} >= _parts("silver")


def test_tables_of_a_job_are_named_once() -> None:
    settings = load_settings(None, environ={}, overrides={"lake.root": "lake"})

    assert [JOBS[job].written for job in JOBS] == [(BRONZE,), (SILVER, DLQ), ()]
    assert [JOBS[job].target for job in JOBS] == [BRONZE, SILVER, GOLD_HOURLY]
    assert JOBS["silver"].written_paths(settings) == {str(SILVER): SILVER.path(settings), str(DLQ): DLQ.path(settings)}
    assert JOBS["silver"].transaction_paths(settings)["dlq-poison"] == DLQ.path(settings)
    with pytest.raises(UsageError, match="expected one of bronze, silver, gold"):
        job_tables("platinum")
