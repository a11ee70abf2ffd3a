"""Silver's rules: objects with an id; each gives NULL where the record is fine, else a sentence without payload values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.common.event_schema import EventField, EventSchema, EventSchemas
from pipelines.common.settings import SilverSettings

_SECONDS_IN_TEN_YEARS = 3653 * 86_400


@dataclass(frozen=True)
class Rule:
    """A rule over the columns of `parse_events`; `sentence` is NULL where the rule is met or does not apply."""

    id: str
    name: str
    title: str
    sentence: Column


def rejecting_rules(schemas: EventSchemas, settings: SilverSettings) -> list[Rule]:
    """Rules whose failure makes a record a dead letter. A NULL value (tombstone) fails none of them."""
    limit = settings.max_event_bytes
    return [
        _rule("SLV-001", "oversize", "The value is small enough to be read", _oversize(limit), f"the value is larger than {limit} bytes"),
        _rule("SLV-002", "invalid_utf8", "The value is UTF-8", _problem("invalid_utf8"), "the value is not valid UTF-8"),
        _rule("SLV-003", "empty_value", "The value is not empty", _problem("empty_value"), "the value has no characters but white space"),
        _rule(
            "SLV-004",
            "malformed_json",
            "The value is one JSON object",
            _problem("malformed_json"),
            "the value is not one well-formed JSON object (cut, trailing text, a duplicate key, NaN, or nested too deep)",
        ),
        _rule(
            "SLV-005",
            "schema_not_found",
            "The schema_version has a schema",
            _schema_not_found(schemas),
            "field schema_version is missing or names a version that has no schema file; add conf/schemas/<version>.json and replay",
        ),
        Rule("SLV-006", "missing_field", "Every required field is there", _fields_sentence("missing or null", _missing_fields(schemas))),
        Rule("SLV-007", "wrong_type", "Every field has its type", _fields_sentence("of the wrong type", F.col("bad_fields"))),
        Rule(
            "SLV-008", "out_of_range", "Every value is within its bounds", _fields_sentence("out of range", _fields_out_of_range(schemas))
        ),
    ]


def warning_rules(settings: SilverSettings) -> list[Rule]:
    """Rules whose failure only flags the row."""
    delay = F.col("_arrival_delay_seconds")
    return [
        _rule(
            "SLV-101",
            "clock_skew",
            "The event is not from the future",
            delay < -settings.skew_after_seconds,
            f"event_timestamp is more than {settings.skew_after_seconds} s after Kafka's timestamp",
        ),
        _rule("SLV-102", "unknown_field", "Every field is in the schema", F.col("unknown_field"), "the event has a field that no schema has"),
        _rule(
            "SLV-103",
            "ancient_timestamp",
            "The event is not older than ten years",
            delay > _SECONDS_IN_TEN_YEARS,
            "event_timestamp is more than ten years before Kafka's timestamp",
        ),
    ]


def failed_ids(rules: list[Rule]) -> Column:
    """Ids of the rules that fail, an empty array where none does."""
    return F.array_compact(F.array(*(F.when(rule.sentence.isNotNull(), F.lit(rule.id)) for rule in rules)))


def failed_sentences(rules: list[Rule]) -> Column:
    """One sentence for each rule that fails, with its id and name."""
    return F.concat_ws("; ", *(F.concat(F.lit(f"{rule.id} {rule.name}: "), rule.sentence) for rule in rules))


def any_failed(rules: list[Rule]) -> Column:
    """Whether any rule fails; never NULL."""
    return reduce(lambda left, right: left | right, (rule.sentence.isNotNull() for rule in rules))


def _rule(rule_id: str, name: str, title: str, failed: Column, sentence: str) -> Rule:
    return Rule(rule_id, name, title, F.when(failed, F.lit(sentence)))


def _problem(name: str) -> Column:
    return F.col("problem") == name


def _oversize(limit: int) -> Column:
    return F.length("_raw_value") > limit


def _schema_not_found(schemas: EventSchemas) -> Column:
    known = F.coalesce(F.col("event.schema_version").isin(list(schemas.versions)), F.lit(False))
    return F.col("event").isNotNull() & ~known


def _is_bad(name: str) -> Column:
    """Whether the reader said that the field has the wrong type; then it is NULL, but not missing."""
    return F.coalesce(F.find_in_set(F.lit(name), F.col("bad_fields")) > 0, F.lit(False))


def _missing_fields(schemas: EventSchemas) -> Column:
    def missing(field: EventField) -> Column | None:
        return F.col(f"event.{field.name}").isNull() & ~_is_bad(field.name) if field.required else None

    return _per_version(schemas, missing)


def _fields_out_of_range(schemas: EventSchemas) -> Column:
    return _per_version(schemas, lambda field: reduce(lambda left, right: left | right, bounds) if (bounds := list(_bounds(field))) else None)


def _bounds(field: EventField) -> Iterator[Column]:
    value = F.col(f"event.{field.name}")
    if field.minimum is not None:
        yield value < field.minimum
    if field.maximum is not None:
        yield value > field.maximum
    if field.min_length is not None:
        yield F.length(value) < field.min_length
    if field.max_length is not None:
        yield F.length(value) > field.max_length
    if field.enum is not None:
        yield ~value.isin(field.enum)


def _per_version(schemas: EventSchemas, failed: Callable[[EventField], Column | None]) -> Column:
    """Names of the fields that fail under the schema which the message's version picks; NULL where none does."""
    cases: Column | None = None
    for version, schema in schemas.versions.items():
        names = _names(schema, failed)
        if names is None:
            continue
        condition = F.col("event.schema_version") == version
        cases = F.when(condition, names) if cases is None else cases.when(condition, names)
    return cases if cases is not None else F.lit(None).cast("string")


def _names(schema: EventSchema, failed: Callable[[EventField], Column | None]) -> Column | None:
    conditions = [(field.name, condition) for field in schema.fields if (condition := failed(field)) is not None]
    if not conditions:
        return None
    anything = reduce(lambda left, right: left | right, (F.coalesce(condition, F.lit(False)) for _, condition in conditions))
    # The list is built only for the few rows that need it.
    return F.when(anything, F.concat_ws(",", *(F.when(condition, F.lit(name)) for name, condition in conditions)))


def _fields_sentence(what: str, names: Column) -> Column:
    return F.when(names.isNotNull(), F.concat(F.lit("these fields are "), F.lit(what + ": "), names))
