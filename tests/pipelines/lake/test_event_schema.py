"""The event schema as files: what is read from them, and one sentence with the place where they are wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake.errors import SettingsError
from pipelines.lake.event_schema import read_schemas

FIELDS: list[dict[str, Any]] = [
    {"name": "schema_version", "type": "string", "required": True, "doc": "Version."},
    {"name": "size", "type": "long", "required": False, "doc": "Size.", "minimum": 0},
]


def _write(folder: Path, version: str, fields: list[dict[str, Any]], *, name: str | None = None) -> None:
    schema = {"subject": "s", "version": version, "description": "d", "fields": fields}
    (folder / f"{name or version}.json").write_text(json.dumps(schema), encoding="utf-8")


def test_versions_join_in_order_of_first_appearance(tmp_path: Path) -> None:
    _write(tmp_path, "1.0", FIELDS)
    _write(tmp_path, "1.1", [*FIELDS, {"name": "cached", "type": "boolean", "required": True, "doc": "Cached."}])
    schemas = read_schemas(tmp_path)

    assert schemas.ddl() == "`schema_version` string, `size` bigint, `cached` boolean"
    rules = json.loads(schemas.rules())
    assert rules["1.0"] == {"schema_version": {"required": True}, "size": {"required": False, "minimum": 0}, "cached": {}}
    assert "cached" in rules["1.1"]


SUMMED = {"minimum": 0, "maximum": 2**35 - 1}
INSTANTS = {"minimum": 0, "maximum": int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000 - 1}


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ({"name": "at", "type": "timestamp"}, INSTANTS),
        ({"name": "request_bytes", "type": "long"}, SUMMED),
        ({"name": "request_bytes", "type": "long", "minimum": -5, "maximum": 2**40}, SUMMED),
        ({"name": "response_bytes", "type": "long", "minimum": 7, "maximum": 9}, {"minimum": 7, "maximum": 9}),
        ({"name": "response_bytes", "type": "string", "max_length": 9}, {"max_length": 9}),
        ({"name": "other", "type": "long", "maximum": 2**40}, {"maximum": 2**40}),
        ({"name": "other", "type": "long"}, {}),
    ],
)
def test_bounds_are_cut_to_what_the_lake_holds(tmp_path: Path, field: dict[str, Any], asked: dict[str, Any]) -> None:
    _write(tmp_path, "1.0", [FIELDS[0], {"required": False, "doc": "x", **field}])
    _write(tmp_path, "1.1", [FIELDS[0]])
    rules = json.loads(read_schemas(tmp_path).rules())

    assert rules["1.0"][field["name"]] == {"required": False, **asked}
    # A version that does not have the field leaves the lake's bounds: its records may have it all the same.
    lakes = {"at": INSTANTS, "request_bytes": SUMMED, "response_bytes": SUMMED if field["type"] == "long" else {}}
    assert rules["1.1"][field["name"]] == lakes.get(field["name"], {})


def test_the_projects_schema_is_read() -> None:
    schemas = read_schemas("conf/schemas/api_usage_events")

    assert list(schemas.versions) == ["1.0"]
    assert schemas.fields["event_timestamp"] == "timestamp"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"type": "decimal"}, "fields.1.type"),
        ({"minimun": 1}, "fields.1.minimun"),
        ({"required": "yes"}, "fields.1.required"),
        ({"max_length": 3}, "fields.1"),
        ({"enum": ["1"]}, "fields.1"),
        ({"type": "timestamp", "minimum": None, "maximum": 5}, "fields.1"),
        ({"type": "string"}, "fields.1"),
    ],
)
def test_wrong_schema_names_the_place(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    _write(tmp_path, "1.0", [FIELDS[0], {**FIELDS[1], **change}])

    with pytest.raises(SettingsError, match=f"1.0.json is wrong at `{where}`"):
        read_schemas(tmp_path)


def test_field_with_two_types_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "1.0", FIELDS)
    _write(tmp_path, "1.1", [FIELDS[0], {**FIELDS[1], "type": "double"}])

    with pytest.raises(SettingsError, match=r"Field `size` is a double in 1\.1\.json and a long in an older version"):
        read_schemas(tmp_path)


def test_file_that_is_no_schema_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no event schema"):
        read_schemas(tmp_path)
    _write(tmp_path, "1.0", FIELDS, name="2.0")
    with pytest.raises(SettingsError, match=r"says version 1\.0, expected 2\.0"):
        read_schemas(tmp_path)
    for content in (b"{", b'{"subject": "\xff"}'):
        (tmp_path / "2.0.json").write_bytes(content)
        with pytest.raises(SettingsError, match="cannot be read as JSON"):
            read_schemas(tmp_path)
