"""`lakehouse schema check`: verdicts as lines, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse.commands.cli import main
from pipelines.lake.resources import PROJECT

FIRST: dict[str, Any] = json.loads((PROJECT / "conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
CACHED = {"name": "cached", "type": "boolean", "required": False, "doc": "Served from a cache."}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of schemas with version 1.0, which the settings name."""
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    _write(schemas, "1.0", FIRST["fields"])
    (tmp_path / "conf.yaml").write_text(json.dumps({"schemas_dir": str(schemas)}))
    monkeypatch.chdir(tmp_path)
    return schemas


def _write(folder: Path, version: str, fields: list[dict[str, Any]]) -> None:
    (folder / f"{version}.json").write_text(json.dumps({**FIRST, "version": version, "fields": fields}), encoding="utf-8")


def _check(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["schema", "check", *arguments, "--config", "conf.yaml"])
    return int(ended.value.code or 0)


def test_the_projects_versions_are_compatible(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    with pytest.raises(SystemExit) as ended:
        main(["schema", "check"])
    assert not ended.value.code, capsys.readouterr().out


def test_each_version_is_compared_with_the_one_before_by_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(folder, "1.9", [*FIRST["fields"], CACHED])
    _write(folder, "1.10", [*FIRST["fields"], CACHED, {**CACHED, "name": "region_2"}])
    assert _check() == 0
    assert capsys.readouterr().out.splitlines() == [
        "1.0 -> 1.9: 1 change",
        "  compatible: cached: optional field added; Silver gets a column that is NULL for all other events.",
        "1.9 -> 1.10: 1 change",
        "  compatible: region_2: optional field added; Silver gets a column that is NULL for all other events.",
        "Compatible.",
    ]


def test_breaking_change_ends_with_1_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(folder, "2.0", [*FIRST["fields"][:-2], FIRST["fields"][-1], {**CACHED, "required": True}])
    assert _check("1.0", str(folder / "2.0.json")) == 1
    out = capsys.readouterr().out
    assert "BREAKING: region: field removed; its column stays in Silver and is NULL" in out
    assert "BREAKING: cached: required field added" in out
    assert _check("--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["compatible"], [change["field"] for change in found["steps"][0]["changes"]]) == (False, ["region", "cached"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["1.0"], "expected two files or versions"),
        (["1.0", "3.0"], "neither a file nor a version"),
        (["1.0", "conf.yaml"], "is wrong at `subject`"),
    ],
)
def test_wrong_arguments_are_one_sentence(
    folder: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.is_dir()
    assert _check(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_file_that_is_no_utf8_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "1.0.json").write_bytes("{'größe'}".encode("latin-1"))
    assert _check() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be read as JSON (UnicodeDecodeError)" in line


def test_folder_without_versions_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "1.0.json").unlink()
    assert _check() == 2
    assert "holds no event schema" in capsys.readouterr().err
