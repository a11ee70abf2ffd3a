"""The event schema as files: what is read from them, and one sentence with the place where they are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.common.errors import SettingsError
from pipelines.common.event_schema import read_schemas

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
    assert rules["1.0"] == {"schema_version": {"required": True}, "size": {"required": False, "minimum": 0}}
    assert "cached" in rules["1.1"]


def test_the_projects_schema_is_read() -> None:
    schemas = read_schemas("conf/schemas/api_usage_events")

    assert list(schemas.versions) == ["1.0"]
    assert schemas.fields["event_timestamp"] == "timestamp"


@pytest.mark.parametrize(
    ("change", "where"),
    [({"type": "decimal"}, "fields.1.type"), ({"minimun": 1}, "fields.1.minimun"), ({"required": "yes"}, "fields.1.required")],
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
