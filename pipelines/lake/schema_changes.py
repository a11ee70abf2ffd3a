"""What a change of the event schema does to producers and readers: pure, over two versions.

Each message picks its version by `schema_version`, and Silver's columns are the union of all versions. A change is
compatible where a producer that goes over to the new version without other changes has no event rejected, and a reader
of Silver finds what it found before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.lake.errors import UsageError
from pipelines.lake.event_schema import EventField, EventSchema

_BOUNDS = {"minimum": 1, "min_length": 1, "maximum": -1, "max_length": -1}
"""1: a larger number accepts less, -1: a smaller one does."""


@dataclass(frozen=True)
class SchemaChange:
    """One change of a field (`schema` for the file as a whole), its verdict and why."""

    field: str
    change: str
    compatible: bool
    reason: str

    def __str__(self) -> str:
        verdict = "compatible" if self.compatible else "BREAKING"
        return f"{verdict}: {self.field}: {self.change}; {self.reason}."

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def version_order(version: str) -> tuple[int, ...]:
    """Numbers of a version, so that 1.10 comes after 1.9; raises UsageError for anything else than numbers and dots."""
    if not re.fullmatch(r"\d+(\.\d+)*", version, re.ASCII):
        msg = (
            f"The schema version `{version[:40]}` cannot be put in order, expected numbers such as 1.10; rename it and its file."
        )
        raise UsageError(msg)
    return tuple(int(part) for part in version.split("."))


def compare_schemas(old: EventSchema, new: EventSchema, earlier: Sequence[EventSchema] = ()) -> list[SchemaChange]:
    """List the changes from `old` to `new`, in the order of the fields; `earlier` are versions before `old`."""
    before, after = ({field.name: field for field in schema.fields} for schema in (old, new))
    changes = list(_whole(old, new))
    for name, field in before.items():
        changes += _changed(field, after[name], new.version) if name in after else [_removed(field, new.version)]
    known = {field.name: (field.type, schema.version) for schema in earlier for field in schema.fields}
    changes += [_added(field, new.version, known) for name, field in after.items() if name not in before]
    if old.version == new.version and changes:
        reason = "events of that version are judged by whichever file is there; give the new file a number of its own"
        changes.insert(0, SchemaChange("schema", f"is {old.version} in both files", False, reason))
    return changes


def _whole(old: EventSchema, new: EventSchema) -> Iterator[SchemaChange]:
    if old.subject != new.subject:
        reason = "the versions of one folder describe one kind of event"
        yield SchemaChange("schema", f"subject changed from {old.subject} to {new.subject}", False, reason)
    if old.version != new.version and version_order(new.version) < version_order(old.version):
        reason = "compare the older version with the newer one"
        yield SchemaChange("schema", f"version goes back from {old.version} to {new.version}", False, reason)


def _removed(field: EventField, version: str) -> SchemaChange:
    reason = f"its column stays in Silver and is NULL for events of {version}: readers that count on it lose it without a word"
    return SchemaChange(field.name, "field removed", False, reason)


def _added(field: EventField, version: str, known: Mapping[str, tuple[str, str]]) -> SchemaChange:
    kind, since = known.get(field.name, (field.type, ""))
    if kind != field.type:
        reason = f"it was a {kind} in {since}, and Silver has one column for a name: the jobs refuse to start; give it a new name"
        return SchemaChange(field.name, f"field added as {field.type}", False, reason)
    if field.required:
        reason = (
            f"a producer that goes over to {version} without it has every event rejected (SLV-006), and the rows that Silver "
            "has hold NULL in it; make it optional"
        )
        return SchemaChange(field.name, "required field added", False, reason)
    return SchemaChange(field.name, "optional field added", True, "Silver gets a column that is NULL for all other events")


def _changed(old: EventField, new: EventField, version: str) -> Iterator[SchemaChange]:
    name = old.name
    if old.type != new.type:
        # Widening too: the column of a Delta table that streams read keeps its type.
        reason = "Silver has one column for a name, so the jobs refuse to start; give the new meaning a new name"
        yield SchemaChange(name, f"type changed from {old.type} to {new.type}", False, reason)
        return
    if not old.required and new.required:
        reason = f"events that leave it out or null, which {version}'s predecessor allowed, are rejected (SLV-006)"
        yield SchemaChange(name, "optional field made required", False, reason)
    if old.required and not new.required:
        reason = "its column in Silver never was NULL: readers that group by it or add it up lose events without a word"
        yield SchemaChange(name, "required field made optional", False, reason)
    for bound in _BOUNDS:
        yield from _bound(old, new, bound)
    yield from _values(name, old.enum, new.enum)
    if old.doc != new.doc:
        yield SchemaChange(name, "description changed", True, "no event is judged by it")


_REJECTED = "events that were accepted before are rejected (SLV-008)"
_ACCEPTED = "every event that was accepted before still is"


def _bound(before: EventField, after: EventField, bound: str) -> Iterator[SchemaChange]:
    name, old, new = before.name, getattr(before, bound), getattr(after, bound)
    if old == new:
        return
    if old is None:
        yield SchemaChange(name, f"{bound} {new} added", False, _REJECTED)
    elif new is None:
        yield SchemaChange(name, f"{bound} {old} removed", True, _ACCEPTED)
    else:
        narrower = (new - old) * _BOUNDS[bound] > 0
        change = f"{bound} {'raised' if new > old else 'lowered'} from {old} to {new}"
        yield SchemaChange(name, change, not narrower, _REJECTED if narrower else _ACCEPTED)


def _values(name: str, old: list[str] | None, new: list[str] | None) -> Iterator[SchemaChange]:
    if (old or None) == (new or None):
        return
    if not old:
        yield SchemaChange(name, "list of values added", False, _REJECTED)
    elif not new:
        yield SchemaChange(name, "list of values removed", True, _ACCEPTED)
    else:
        gone, more = ([value for value in left if value not in right] for left, right in ((old, new), (new, old)))
        if gone:
            yield SchemaChange(name, f"values removed: {', '.join(gone)}", False, _REJECTED)
        if more:
            yield SchemaChange(name, f"values added: {', '.join(more)}", True, _ACCEPTED)
