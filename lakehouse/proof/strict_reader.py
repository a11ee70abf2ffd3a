"""Reads an event a second time, as docs/grammar.md says: JSON by Python's parser, bounds from the schema files.

It is the checker's own reader and shares no code with the pipeline's (`events.parse`, in Java), on purpose: a mistake in one
of them shows as a difference. So do not import the pipeline's parser, bounds or range here, and change the grammar first
where the two differ. `tests/lakehouse/proof/test_two_readers.py` compares them over a generated corpus.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakehouse.proof.strict_json import strict_object
from lakehouse.proof.strict_values import Check, field_check
from pipelines.lake.storage.local_files import files_in, read_text

_BLANK = b" \t\r\n"


@dataclass(frozen=True)
class StrictReader:
    """Reads record values as events; `columns` are returned in this order."""

    versions: dict[str, dict[str, tuple[bool, Check]]]
    columns: tuple[str, ...]
    max_bytes: int

    @staticmethod
    def from_files(folder: Path, columns: tuple[str, ...], max_bytes: int) -> StrictReader:
        """Make a reader from the schema versions in `folder`."""
        schemas = _read_files(folder)
        # A field that the message's version does not have is read all the same where another version has it.
        others = {name: (False, field_check({"name": name, "type": kind})) for name, kind in field_types(folder).items()}
        versions = {
            schema["version"]: others | {field["name"]: (field["required"], field_check(field)) for field in schema["fields"]}
            for schema in schemas
        }
        return StrictReader(versions, columns, max_bytes)

    def read(self, value: bytes) -> tuple[Any, ...] | None:
        """The event's columns, timestamps in microseconds since the epoch; None where a rule rejects the value."""
        if len(value) > self.max_bytes or not value.strip(_BLANK):
            return None
        try:
            event = strict_object(value)
            version = event.get("schema_version")
            fields = self.versions.get(version) if isinstance(version, str) else None
            if fields is None:
                return None
            read = {}
            for name, (required, check) in fields.items():
                found = event.get(name)
                if found is not None:
                    read[name] = check(found)
                elif required:
                    return None
        except (ValueError, RecursionError, OverflowError):
            return None
        return tuple(read.get(name) for name in self.columns)


def field_types(folder: Path) -> dict[str, str]:
    """Names and types of all fields that any schema version in `folder` has."""
    return {field["name"]: field["type"] for schema in _read_files(folder) for field in schema["fields"]}


def _read_files(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(read_text(path)) for path in files_in(folder, "*.json")]
