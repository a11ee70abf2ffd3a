"""`lakehouse rollback` says what became of each day that it had to recompute."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from rich.console import Console

from lakehouse.commands.rollback import show_done
from lakehouse.operations.rollback.plan import RollbackPlan
from lakehouse.operations.rollback.rollback import Rolled
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import GOLD_HOURLY

AT = datetime(2026, 1, 28, tzinfo=UTC)
PLAN = RollbackPlan(
    table=GOLD_HOURLY, path="p", version=4, to=2, committed_at=AT, undone_since=AT, rows=1, rows_then=1, commits=("3 MERGE",)
)
DONE = Rolled(5, days=(date(2026, 1, 27), date(2026, 1, 28)))


def said(done: Rolled, capsys: pytest.CaptureFixture[str]) -> str:
    show_done(Console(width=200), load_settings(None, environ={}, overrides={}), PLAN, done, repaired=True)
    return capsys.readouterr().out


def test_recomputed_days_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(DONE, capsys)
    assert "2 days were recomputed from Silver: 2026-01-27, 2026-01-28" in out
    assert "refused" not in out


def test_day_that_the_gate_refused_is_not_called_recomputed(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(replace(DONE, refused=(date(2026, 1, 28),)), capsys)
    assert "1 days were recomputed from Silver: 2026-01-27\n" in out
    assert "1 days were not: the gate before the bill refused them (2026-01-28)" in out
    assert out.splitlines()[-2:] == [
        "  lakehouse quality show --date 2026-01-28",
        "  python batch/reconcile_gold.py --date 2026-01-28",
    ]
