"""Which changes of the event schema break somebody, and that the reason says whom."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.lake.errors import UsageError
from pipelines.lake.event_schema import EventSchema
from pipelines.lake.schema_changes import compare_schemas, version_order

SIZE: dict[str, Any] = {
    "name": "size",
    "type": "long",
    "required": False,
    "doc": "Size.",
    "minimum": 0,
    "maximum": 9,
}
WORD: dict[str, Any] = {"name": "word", "type": "string", "required": True, "doc": "Word.", "min_length": 1, "max_length": 8}


def _schema(*fields: dict[str, Any], version: str = "1.0", subject: str = "s") -> EventSchema:
    return EventSchema.model_validate({"subject": subject, "version": version, "description": "d", "fields": list(fields)})


def _found(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[tuple[str, str, bool]]:
    changes = compare_schemas(_schema(*old), _schema(*new, version="1.1"))
    assert all(change.reason for change in changes)
    return [(change.field, change.change, change.compatible) for change in changes]


def _without(field: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in field.items() if key != name}


def test_same_fields_are_no_change() -> None:
    assert _found([SIZE, WORD], [WORD, SIZE]) == []


@pytest.mark.parametrize(
    ("old", "new", "change", "compatible"),
    [
        ([WORD], [WORD, SIZE], "optional field added", True),
        ([SIZE], [SIZE, WORD], "required field added", False),
        ([WORD, SIZE], [WORD], "field removed", False),
        ([SIZE], [{**SIZE, "type": "int"}], "type changed from long to int", False),
        ([SIZE], [{**SIZE, "type": "double"}], "type changed from long to double", False),
        ([SIZE], [{**SIZE, "required": True}], "optional field made required", False),
        ([WORD], [{**WORD, "required": False}], "required field made optional", False),
        ([SIZE], [{**SIZE, "minimum": 1}], "minimum raised from 0 to 1", False),
        ([SIZE], [{**SIZE, "minimum": -1}], "minimum lowered from 0 to -1", True),
        ([SIZE], [_without(SIZE, "minimum")], "minimum 0 removed", True),
        ([_without(SIZE, "minimum")], [SIZE], "minimum 0 added", False),
        ([SIZE], [{**SIZE, "maximum": 8}], "maximum lowered from 9 to 8", False),
        ([SIZE], [{**SIZE, "maximum": 10}], "maximum raised from 9 to 10", True),
        ([WORD], [{**WORD, "min_length": 2}], "min_length raised from 1 to 2", False),
        ([WORD], [{**WORD, "max_length": 7}], "max_length lowered from 8 to 7", False),
        ([WORD], [{**WORD, "max_length": 9}], "max_length raised from 8 to 9", True),
        ([WORD], [{**WORD, "enum": ["a"]}], "list of values added", False),
        ([{**WORD, "enum": ["a"]}], [WORD], "list of values removed", True),
        ([{**WORD, "enum": ["a", "b"]}], [{**WORD, "enum": ["b"]}], "values removed: a", False),
        ([{**WORD, "enum": ["a"]}], [{**WORD, "enum": ["b", "a"]}], "values added: b", True),
        ([WORD], [{**WORD, "doc": "Another."}], "description changed", True),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else None,
)
def test_change_has_its_verdict(old: list[dict[str, Any]], new: list[dict[str, Any]], change: str, compatible: bool) -> None:
    ((_, found, verdict),) = _found(old, new)
    assert (found, verdict) == (change, compatible)


def test_every_change_of_a_field_has_its_own_line() -> None:
    found = _found([WORD], [{**WORD, "min_length": 2, "max_length": 9, "enum": ["ab"]}, SIZE])
    assert [(field, compatible) for field, _, compatible in found] == [
        ("word", False),
        ("word", True),
        ("word", False),
        ("size", True),
    ]


def test_file_in_use_is_not_edited() -> None:
    changes = compare_schemas(_schema(WORD), _schema(WORD, SIZE))
    assert [(change.field, change.compatible) for change in changes] == [("schema", False), ("size", True)]


def test_field_that_comes_back_with_another_type_is_breaking() -> None:
    first, second = _schema(WORD, SIZE), _schema(WORD, version="1.1")
    third = _schema(WORD, {**SIZE, "type": "int"}, version="1.2")
    (change,) = compare_schemas(second, third, [first])
    assert (change.change, change.compatible) == ("field added as int", False)
    assert "a long in 1.0" in change.reason


def test_another_subject_and_an_older_version_are_breaking() -> None:
    changes = compare_schemas(_schema(WORD, version="1.10"), _schema(WORD, version="1.9", subject="t"))
    assert [change.compatible for change in changes] == [False, False]


def test_versions_are_ordered_by_number() -> None:
    assert sorted(["1.10", "1.9", "2.0", "1.0"], key=version_order) == ["1.0", "1.9", "1.10", "2.0"]
    with pytest.raises(UsageError, match="cannot be put in order"):
        version_order("1.0-rc1")
