"""`lakehouse verify` ends with 0, 1 or 2, and says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse.commands.cli import main
from pipelines.lake.tables import SILVER


def _config(lake: Any) -> str:
    settings = lake.settings
    path: Path = lake.folder / "conf.yaml"
    path.write_text(
        json.dumps(
            {"lake": {"root": settings.lake.root, "state_dir": settings.lake.state_dir}, "schemas_dir": settings.schemas_dir}
        )
    )
    return str(path)


def _run(*args: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["verify", *args])
    return int(ended.value.code or 0)


def test_sound_lake_ends_with_0(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hand_lake.write()
    assert _run("--config", _config(hand_lake)) == 0
    assert "Nothing is violated" in capsys.readouterr().out


def test_broken_lake_ends_with_1_and_names_the_invariant(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hand_lake.find(SILVER, 0, 1)["_arrival_delay_seconds"] = 0.0
    hand_lake.write()
    assert _run("--config", _config(hand_lake)) == 1
    shown = capsys.readouterr().out
    assert "Violated: I12." in shown
    assert "api-usage-events/0@1" in shown


def test_json_is_one_object(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hand_lake.write()
    assert _run("--json", "--config", _config(hand_lake)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["holds"] is True
    assert {result["id"]: result["verdict"] for result in found["invariants"]}["I13"] == "holds"


def test_no_lake_ends_with_2_and_one_sentence(hand_lake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--config", _config(hand_lake)) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("lakehouse: There is no Delta table bronze.api_usage_events")
    assert "Traceback" not in said
