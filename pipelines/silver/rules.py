"""Silver's rules: objects with an id; each gives NULL where the record is fine, else a sentence without payload values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.lake.ranges import MISSING_BELOW_MS
from pipelines.lake.settings import SilverSettings

POISON_RULE = "SLV-009"
_SECONDS_IN_TEN_YEARS = 3653 * 86_400

ENCODINGS = {
    "byte_order_mark": "it begins with a byte order mark; send UTF-8 without one",
    "utf16": "it is UTF-16; send UTF-8",
    "utf32": "it is UTF-32; send UTF-8",
    "gzip": "it is compressed by gzip; send it plain and let the Kafka producer compress (compression.type)",
    "zstd": "it is compressed by zstd; send it plain and let the Kafka producer compress (compression.type)",
    "lz4": "it is compressed by lz4; send it plain and let the Kafka producer compress (compression.type)",
    "snappy": "it is compressed by snappy; send it plain and let the Kafka producer compress (compression.type)",
    "registry_frame": "it begins with the frame of a schema registry (magic byte 0, schema id {}); "
    "send plain JSON, by a serializer without a registry",
}
"""What bytes are that are no UTF-8, or UTF-8 by chance: details of `invalid_utf8` and `malformed_json`."""
MALFORMED = {
    **ENCODINGS,
    "array": "it is a JSON array; send a record for each object",
    "several_objects": "another object follows the first; send a record for each",
    "json_string": "it is a JSON string, perhaps an object that was encoded twice; send the object itself",
    "json_number": "it is a JSON number",
    "json_literal": "it is true, false or null",
    "not_json": "it begins like no JSON",
    "cut": "it ends in the middle",
    "trailing_text": "text follows the object, at byte {}",
    "duplicate_key": "an object has a name twice, the second time at byte {}",
    "not_a_number": "NaN or Infinity stands at byte {}, which JSON does not have; send null",
    "bad_number": "the number at byte {} is not written as JSON writes it (such as a leading zero or a digit that is missing)",
    "double_too_large": "the number in field {} is too large for a double",
    "lone_surrogate": "the text in field {} holds half a surrogate pair, such as an emoji that was cut",
    "control_character": "a string holds a control character, at byte {}; JSON escapes it",
    "bad_escape": "a string holds an escape that JSON does not have, at byte {}",
    "too_deep": "it is nested deeper than 64 levels",
    "syntax": "from byte {} on it is no JSON (such as a comma too many, single quotes or a comment)",
}
"""Details of `malformed_json`; `{}` stands for the argument: a byte's number, a schema id, a field's name."""
EXPECTED = {
    "STRING": "holds no text",
    "INT": "holds no whole number of 32 bits",
    "LONG": "holds no whole number of 64 bits",
    "DOUBLE": "holds no number",
    "BOOLEAN": "holds neither true nor false",
    "TIMESTAMP": "holds no instant with an offset (such as 2026-01-28T10:15:30Z)",
}
"""By type, what a field of the wrong type has instead."""
BOUNDS = {
    "blank": "is empty or blank",
    "short": "is shorter than its min_length",
    "long": "is longer than its max_length",
    "enum": "is none of the values of its list",
    "below": "is below its minimum",
    "above": "is above its maximum",
    "instant": "is no instant from 1970-01-01 to 2199-12-31",
}
"""By the bound that it breaks, what a field out of range does."""


@dataclass(frozen=True)
class Rule:
    """A rule over the columns of `parse_events`.

    `failed` may be NULL where the rule is met; `sentence` is NULL where and only where the rule is met or does not apply.
    """

    id: str
    name: str
    title: str
    failed: Column
    sentence: Column


@dataclass(frozen=True)
class Rules:
    """The rules of a run, built once: `rejecting` ones make a record a dead letter, `warning` ones only flag its row."""

    rejecting: list[Rule]
    warning: list[Rule]

    @staticmethod
    def of(settings: SilverSettings) -> Rules:
        """All rules, with the bounds of the settings."""
        return Rules(rejecting_rules(), warning_rules(settings))


def rejecting_rules() -> list[Rule]:
    """Rules whose failure makes a record a dead letter. A NULL value (tombstone) fails none of them.

    `events.parse` finds out; the rules give it an id and a sentence.
    """
    return [
        _problem(
            "SLV-001", "oversize", "The value is small enough to be read", "the value is larger than silver.max_event_bytes"
        ),
        _problem("SLV-002", "invalid_utf8", "The value is UTF-8", "the value is not valid UTF-8", ENCODINGS),
        _problem("SLV-003", "empty_value", "The value is not empty", "the value has no characters but white space"),
        _problem(
            "SLV-004", "malformed_json", "The value is one JSON object", "the value is not one well-formed JSON object", MALFORMED
        ),
        _problem(
            "SLV-005",
            "schema_not_found",
            "The schema_version has a schema",
            "field schema_version is missing or names a version that has no schema file; add the file <version>.json and replay",
        ),
        _fields(
            "SLV-006",
            "missing_field",
            "Every required field is there",
            F.col("missing"),
            F.concat(F.lit("these required fields are missing or null: "), F.col("missing")),
        ),
        _fields(
            "SLV-007", "wrong_type", "Every field has its type", F.col("wrong_type"), _each("wrong_type", "expected", EXPECTED)
        ),
        _fields(
            "SLV-008",
            "out_of_range",
            "Every value is within its bounds",
            F.col("out_of_range"),
            _each("out_of_range", "bounds", BOUNDS),
        ),
        _problem(
            "SLV-009",
            "poison",
            "The record can be processed",
            "processing the record fails with an error; it was found by bisection and set aside, so that its batch could go on",
        ),
    ]


def warning_rules(settings: SilverSettings) -> list[Rule]:
    """Rules whose failure only flags the row."""
    delay = F.col("_arrival_delay_seconds")
    kafka_time_missing = F.col("_kafka_timestamp").isNull() | (F.col("_kafka_timestamp_ms") < MISSING_BELOW_MS)
    return [
        _rule(
            "SLV-101",
            "clock_skew",
            "The event is not from the future",
            (delay < -settings.skew_after_seconds) & ~kafka_time_missing,
            f"event_timestamp is more than {settings.skew_after_seconds} s after Kafka's timestamp",
        ),
        _rule(
            "SLV-102",
            "unknown_field",
            "Every field is in the schema",
            F.col("unknown_field"),
            "the event has a field that no schema has",
        ),
        _rule(
            "SLV-103",
            "ancient_timestamp",
            "The event is not older than ten years",
            delay > _SECONDS_IN_TEN_YEARS,
            "event_timestamp is more than ten years before Kafka's timestamp",
        ),
        _rule(
            "SLV-104",
            "kafka_time_missing",
            "Kafka's time is one",
            kafka_time_missing,
            "Kafka's timestamp is missing, or a number that is no time of today in milliseconds",
        ),
    ]


def failed_ids(rules: list[Rule]) -> Column:
    """Ids of the rules that fail, an empty array where none does."""
    ids = F.array_compact(F.array(*(F.when(rule.failed, F.lit(rule.id)) for rule in rules)))
    # array_compact is a lambda that Spark interprets: as slow as writing the row, so only for the few that need it.
    return F.when(any_failed(rules), ids).otherwise(F.array().cast("array<string>"))


def failed_sentences(rules: list[Rule]) -> Column:
    """One sentence for each rule that fails, with its id and name."""
    return F.concat_ws("; ", *(F.concat(F.lit(f"{rule.id} {rule.name}: "), rule.sentence) for rule in rules))


def any_failed(rules: list[Rule]) -> Column:
    """Whether any rule fails; never NULL."""
    return reduce(lambda left, right: left | right, (F.coalesce(rule.failed, F.lit(False)) for rule in rules))


def _rule(rule_id: str, name: str, title: str, failed: Column, sentence: str) -> Rule:
    return Rule(rule_id, name, title, failed, F.when(failed, F.lit(sentence)))


def _problem(rule_id: str, name: str, title: str, sentence: str, details: dict[str, str] | None = None) -> Rule:
    failed = F.col("problem") == name
    said = F.lit(sentence)
    if details:
        code, argument = F.substring_index("detail", ":", 1), F.expr("substr(detail, instr(detail, ':') + 1)")
        cause = F.replace(_looked_up(details, code), F.lit("{}"), argument)
        said = F.concat(said, F.coalesce(F.concat(F.lit(": "), cause), F.lit("")))
    return Rule(rule_id, name, title, failed, F.when(failed, said))


def _fields(rule_id: str, name: str, title: str, names: Column, sentence: Column) -> Rule:
    return Rule(rule_id, name, title, names.isNotNull(), F.when(names.isNotNull(), F.coalesce(sentence, names)))


def _each(names: str, codes: str, phrases: dict[str, str]) -> Column:
    """Name each field with the phrase of its code."""
    told = F.zip_with(
        F.split(names, ","), F.split(codes, ","), lambda name, code: F.concat_ws(" ", name, _looked_up(phrases, code))
    )
    return F.array_join(told, ", ")


def _looked_up(phrases: dict[str, str], code: Column) -> Column:
    """The phrase of a code; NULL for a code that has none."""
    literals = F.create_map(*(F.lit(text) for item in phrases.items() for text in item))
    return F.try_element_at(literals, code)
