"""Suites are files that an analyst changes: each mistake in one is a sentence that names file, expectation and way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.gold.gate.audited import audited_columns
from pipelines.gold.gate.gate import check_suites, open_suites
from pipelines.gold.gate.suites import read_suites
from pipelines.lake.errors import SettingsError
from pipelines.lake.settings_sources import load_settings

COLUMNS = {"silver": ["event_id", "region"], "day": ["events"]}
GOOD: dict[str, Any] = {
    "id": "silver-id",
    "type": "expect_column_values_to_not_be_null",
    "kwargs": {"column": "event_id"},
    "severity": "blocks",
    "says": "An event has an id.",
    "playbook": "null-keys",
}


def _suite(*changes: dict[str, Any], audits: str = "silver") -> dict[str, Any]:
    return {"audits": audits, "expectations": [{**GOOD, **change} for change in changes]}


def _write(folder: Path, name: str, content: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")


def _sentence(folder: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        read_suites(str(folder), COLUMNS)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


def test_suites_of_the_project_fit_the_audited_columns_and_the_library() -> None:
    suites = open_suites(load_settings(None, environ={}))

    assert {suite.audits for suite in suites} == {"silver", "gold", "customers", "day"}
    assert sum(one.severity == "blocks" for suite in suites for one in suite.expectations) > 20
    check_suites(suites)


def test_yaml_and_json_are_read_alike(tmp_path: Path) -> None:
    _write(tmp_path / "a", "silver.yaml", _suite({}))
    _write(tmp_path / "b", "silver.json", json.dumps(_suite({})))

    assert read_suites(str(tmp_path / "a"), COLUMNS) == read_suites(str(tmp_path / "b"), COLUMNS)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("audits: [silver\nexpectations: {", ("silver.yaml is no YAML or JSON (line ",)),
        ("\x00\x01", ("silver.yaml is no YAML or JSON",)),
        ("", ("no suite of expectations",)),
        ("just text", ("no suite of expectations",)),
        ("[1, 2]", ("no suite of expectations",)),
        ({"audits": "silver"}, ("`expectations`",)),
        ({"audits": "silver", "expectations": []}, ("`expectations`",)),
        ({"audits": "silver", "expectations": ["x"]}, ("expectation 1",)),
        (_suite({}, audits="silber"), ("audits `silber`", "silver, day")),
        (_suite({"kwargs": {"column": "regoin"}}), ("`silver-id`", "`regoin`", "event_id, region")),
        (_suite({"kwargs": {"column_A": "event_id", "column_B": "nope"}}), ("`nope`",)),
        (_suite({"kwargs": {"column_list": ["event_id", "nope"]}}), ("`nope`",)),
        (_suite({"severity": "fatal"}), ("expectation `silver-id`", "`severity`", "blocks")),
        (_suite({"playbook": "no-such-page"}), ("`no-such-page`", "playbooks/")),
        (_suite({"says": ""}), ("`says`",)),
        (_suite({"colour": "red"}), ("`colour`",)),
        (_suite({}, {}), ("`silver-id` stands in silver and in silver",)),
    ],
    ids=str,
)
def test_mistake_in_a_suite_is_one_sentence(tmp_path: Path, content: Any, named: tuple[str, ...]) -> None:
    _write(tmp_path, "silver.yaml", content)
    said = _sentence(tmp_path)

    assert all(part in said for part in named), said


def test_folder_without_a_suite_is_no_gate_that_lets_all_pass(tmp_path: Path) -> None:
    assert "holds no suite" in _sentence(tmp_path)
    assert "holds no suite" in _sentence(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "expect_column_values_to_be_uniqe"}, ("does not know", "did you mean `expect_column_values_to_be_unique`")),
        ({"kwargs": {"column": "event_id", "minimum": 3}}, ("does not take", "minimum")),
        ({"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "region"}}, ("does not take", "value_set")),
        (
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "region", "min_value": 2, "max_value": 1}},
            ("can never hold",),
        ),
        (
            {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": "SELECT 1"}},
            ("reads rows into the driver",),
        ),
    ],
    ids=["type", "argument", "missing", "bounds", "rows"],
)
def test_expectation_that_the_library_does_not_take_is_one_sentence(
    tmp_path: Path, change: dict[str, Any], named: tuple[str, ...]
) -> None:
    _write(tmp_path, "silver.yaml", _suite(change))
    suites = read_suites(str(tmp_path), COLUMNS)
    with pytest.raises(SettingsError) as caught:
        check_suites(suites)

    said = str(caught.value)
    assert "\n" not in said
    assert "`silver-id`" in said
    assert all(part in said for part in named), said


def test_audited_columns_follow_the_event_schemas(tmp_path: Path) -> None:
    folder = tmp_path / "schemas"
    folder.mkdir()
    settings = load_settings(None, environ={}, overrides={"schemas_dir": str(folder)})
    schema = json.loads(Path("conf/schemas/api_usage_events/1.0.json").read_text(encoding="utf-8"))
    schema["fields"].append({"name": "plan", "type": "string", "required": False, "doc": "Plan of the customer."})
    (folder / "1.0.json").write_text(json.dumps(schema), encoding="utf-8")

    assert "plan" in [column.name for column in audited_columns(settings)["silver"]]
