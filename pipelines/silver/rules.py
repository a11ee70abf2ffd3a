"""Silver's rules: objects with an id; each gives NULL where the record is fine, else a sentence without payload values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

from pipelines.common.ranges import MISSING_BELOW_MS
from pipelines.common.settings import SilverSettings

POISON_RULE = "SLV-009"
_SECONDS_IN_TEN_YEARS = 3653 * 86_400


@dataclass(frozen=True)
class Rule:
    """A rule over the columns of `parse_events`; `sentence` is NULL where the rule is met or does not apply."""

    id: str
    name: str
    title: str
    sentence: Column


def rejecting_rules() -> list[Rule]:
    """Rules whose failure makes a record a dead letter. A NULL value (tombstone) fails none of them.

    `events.parse` finds out; the rules give it an id and a sentence.
    """
    return [
        _problem(
            "SLV-001", "oversize", "The value is small enough to be read", "the value is larger than silver.max_event_bytes"
        ),
        _problem("SLV-002", "invalid_utf8", "The value is UTF-8", "the value is not valid UTF-8"),
        _problem("SLV-003", "empty_value", "The value is not empty", "the value has no characters but white space"),
        _problem(
            "SLV-004",
            "malformed_json",
            "The value is one JSON object",
            "the value is not one well-formed JSON object (cut, trailing text, a duplicate key, NaN, or nested too deep)",
        ),
        _problem(
            "SLV-005",
            "schema_not_found",
            "The schema_version has a schema",
            "field schema_version is missing or names a version that has no schema file; add the file <version>.json and replay",
        ),
        _fields(
            "SLV-006", "missing_field", "Every required field is there", "missing", "these required fields are missing or null"
        ),
        _fields("SLV-007", "wrong_type", "Every field has its type", "wrong_type", "these fields are of the wrong type"),
        _fields("SLV-008", "out_of_range", "Every value is within its bounds", "out_of_range", "these fields are out of range"),
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
    ids = F.array_compact(F.array(*(F.when(rule.sentence.isNotNull(), F.lit(rule.id)) for rule in rules)))
    # array_compact is a lambda that Spark interprets: as slow as writing the row, so only for the few that need it.
    return F.when(any_failed(rules), ids).otherwise(F.array().cast("array<string>"))


def failed_sentences(rules: list[Rule]) -> Column:
    """One sentence for each rule that fails, with its id and name."""
    return F.concat_ws("; ", *(F.concat(F.lit(f"{rule.id} {rule.name}: "), rule.sentence) for rule in rules))


def any_failed(rules: list[Rule]) -> Column:
    """Whether any rule fails; never NULL."""
    return reduce(lambda left, right: left | right, (rule.sentence.isNotNull() for rule in rules))


def _rule(rule_id: str, name: str, title: str, failed: Column, sentence: str) -> Rule:
    return Rule(rule_id, name, title, F.when(failed, F.lit(sentence)))


def _problem(rule_id: str, name: str, title: str, sentence: str) -> Rule:
    return _rule(rule_id, name, title, F.col("problem") == name, sentence)


def _fields(rule_id: str, name: str, title: str, column: str, sentence: str) -> Rule:
    names = F.col(column)
    return Rule(rule_id, name, title, F.when(names.isNotNull(), F.concat(F.lit(f"{sentence}: "), names)))
