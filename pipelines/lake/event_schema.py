"""The event schema as files: `<dir>/<version>.json`; the read schema of Silver is built from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pipelines.lake.errors import SettingsError
from pipelines.lake.ranges import END_INSTANT_MS, FIRST_INSTANT_MS, LARGEST_SUMMED
from pipelines.lake.storage.local_files import files_in, read_text

PAGE = "playbooks/schema-change.md"
SUMMED_FIELDS = ("request_bytes", "response_bytes")
"""Fields that Gold adds up."""
_BOUNDS_OF = {
    "minimum": ("int", "long", "double"),
    "maximum": ("int", "long", "double"),
    "min_length": ("string",),
    "max_length": ("string",),
    "enum": ("string",),
}

FieldType = Literal["string", "int", "long", "double", "boolean", "timestamp"]


class EventField(BaseModel):
    """A field of one schema version; bounds are inclusive, lengths are in characters.

    Each reader knows what a bound means for the types of `_BOUNDS_OF` alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    type: FieldType
    required: bool
    doc: str
    minimum: int | float | None = None
    maximum: int | float | None = None
    min_length: int | None = None
    max_length: int | None = None
    enum: list[str] | None = None

    @model_validator(mode="after")
    def _bounds_fit_the_type(self) -> Self:
        for bound, types in _BOUNDS_OF.items():
            if getattr(self, bound) is not None and self.type not in types:
                msg = f"a field of type {self.type} has no `{bound}`"
                raise ValueError(msg)
        return self

    def asked(self) -> dict[str, Any]:
        """What the file asks of the field, cut to what the lake holds."""
        return self.model_dump(exclude={"name", "type", "doc"}, exclude_none=True) | held(
            self.name, self.type, self.minimum, self.maximum
        )


def held(name: str, kind: FieldType, minimum: float | None = None, maximum: float | None = None) -> dict[str, float]:
    """Bounds of a field that the lake sets whatever a file says, cut further by the file's; none for most fields.

    Instants are in microseconds since the epoch.
    """
    if kind == "timestamp":
        return {"minimum": FIRST_INSTANT_MS * 1000, "maximum": END_INSTANT_MS * 1000 - 1}
    if name in SUMMED_FIELDS and kind in ("int", "long", "double"):
        return {
            "minimum": 0 if minimum is None else max(0, minimum),
            "maximum": LARGEST_SUMMED if maximum is None else min(LARGEST_SUMMED, maximum),
        }
    return {}


class EventSchema(BaseModel):
    """One version of the event schema."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    subject: str
    version: str
    description: str
    fields: list[EventField]


@dataclass(frozen=True)
class EventSchemas:
    """All versions, by name; `fields` is their union in order of first appearance."""

    versions: dict[str, EventSchema]
    fields: dict[str, FieldType]

    def ddl(self) -> str:
        """Spark DDL of the union, all nullable: what `events.parse` reads."""
        return ", ".join(f"`{name}` {'bigint' if kind == 'long' else kind}" for name, kind in self.fields.items())

    def rules(self) -> str:
        """What each version asks of each field of any version, as JSON: what `events.parse` checks.

        A field that a version does not have is read all the same where a record has it: the lake's own bounds hold for it.
        """
        lakes = {name: held(name, kind) for name, kind in self.fields.items()}
        versions = {
            version: lakes | {field.name: field.asked() for field in schema.fields} for version, schema in self.versions.items()
        }
        return json.dumps(versions, separators=(",", ":"))


def read_schemas(folder: str | Path) -> EventSchemas:
    """Read every `<version>.json` of `folder`.

    Raises SettingsError where a file is no schema, its name is not its version, or two versions give a field two types.
    """
    paths = files_in(folder, "*.json")
    if not paths:
        msg = f"The folder {folder} holds no event schema; put a file such as 1.0.json there or correct `schemas_dir`."
        raise SettingsError(msg)
    versions: dict[str, EventSchema] = {}
    fields: dict[str, FieldType] = {}
    for path in paths:
        schema = read_schema(path)
        versions[schema.version] = schema
        for field in schema.fields:
            known = fields.setdefault(field.name, field.type)
            if known != field.type:
                msg = (
                    f"Field `{field.name}` is a {field.type} in {path.name} and a {known} in an older version; "
                    f"give the new meaning a new name ({PAGE})."
                )
                raise SettingsError(msg)
    return EventSchemas(versions, fields)


def read_schema(path: Path) -> EventSchema:
    """Read one version; raises SettingsError where the file is no schema or its name is not its version."""
    try:
        schema = EventSchema.model_validate(json.loads(read_text(path)))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"The event schema {path} cannot be read as JSON ({type(error).__name__}); correct the file ({PAGE})."
        raise SettingsError(msg) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        msg = f"The event schema {path} is wrong at `{where}`: {first['msg']}; correct the file ({PAGE})."
        raise SettingsError(msg) from None
    if schema.version != path.stem:
        msg = (
            f"The event schema {path} says version {schema.version}, expected {path.stem} as its file name says; "
            f"rename it ({PAGE})."
        )
        raise SettingsError(msg)
    return schema
