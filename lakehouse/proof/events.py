"""I4 and I12: Silver holds each event once, as the oracle has it, with the right late flag."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

from collections.abc import Iterable

from lakehouse.proof.lake import EVENT_FIELDS, Lake
from lakehouse.proof.records import AT, IS_INSTANT
from lakehouse.proof.result import Invariant

_SURVIVORS = "(SELECT * FROM oracle WHERE fate = 'silver')"
_KNOWN = f"(SELECT * FROM silver SEMI JOIN oracle USING ({AT}))"


def check_events(lake: Lake, *, oracle: bool, others_send: bool) -> Invariant:
    """I4: event_id is unique, and ids, surviving records and every field equal the oracle's.

    With `others_send`, Silver rows of records that the ledger does not know are left out.
    """
    result = Invariant("I4", "Silver event_id is unique and Silver equals the oracle")
    db = lake.db
    result.count(db, "silver rows", "SELECT count(*) FROM silver")
    result.expect_none(
        db,
        "the same event_id in several rows",
        """SELECT first(topic ORDER BY kts, p, o) AS topic, first(p ORDER BY kts, p, o) AS p, first(o ORDER BY kts, p, o) AS o,
            count(*) AS copies FROM silver GROUP BY event_id HAVING count(*) > 1""",
    )
    result.expect_none(db, "event_id is NULL", f"SELECT {AT} FROM silver WHERE event_id IS NULL")
    if not oracle:
        result.skipped = "there is no op ledger to compare with"
        return result
    result.count(db, "oracle events", f"SELECT count(*) FROM {_SURVIVORS}")
    result.expect_none(
        db, "event of the oracle missing in Silver", f"SELECT {AT} FROM {_SURVIVORS} ANTI JOIN silver USING (event_id)"
    )
    rows = _KNOWN if others_send else "silver"
    result.expect_none(
        db, "event in Silver that the oracle does not have", f"SELECT {AT} FROM {rows} ANTI JOIN {_SURVIVORS} USING (event_id)"
    )
    result.expect_none(
        db,
        "another copy survived than the first by Kafka timestamp, partition, offset",
        f"""SELECT s.topic, s.p, s.o, e.topic || '/' || e.p || '@' || e.o AS expected
            FROM {rows} s JOIN {_SURVIVORS} e USING (event_id) WHERE (s.topic, s.p, s.o) IS DISTINCT FROM (e.topic, e.p, e.o)""",
    )
    result.expect_none(db, "fields differ from the event sent", differing(_SURVIVORS, "e.ets_ms IS DISTINCT FROM s.ets // 1000"))
    return result


def differing(expected: str, timestamps_differ: str, later_fields: Iterable[str] = ()) -> str:
    """SQL for Silver rows `s` that differ from the row `e` of `expected` with the same coordinates, with the fields' names.

    `later_fields` are compared beside EVENT_FIELDS.
    """
    tests = {"event_timestamp": timestamps_differ, "_kafka_timestamp": "e.kts IS DISTINCT FROM s.kts"}
    tests |= {name: f'e."{name}" IS DISTINCT FROM s."{name}"' for name in (*EVENT_FIELDS, *later_fields)}
    names = ", ".join(f"CASE WHEN {test} THEN '{name}' END" for name, test in tests.items())
    return f"""SELECT * FROM (SELECT {AT}, concat_ws(',', {names}) AS fields FROM silver s JOIN {expected} e USING ({AT}))
        WHERE fields <> ''"""


def check_lateness(lake: Lake, *, oracle: bool, late_after_seconds: int) -> Invariant:
    """I12: the late flag and the delay follow from the two timestamps, and the flag equals the oracle's."""
    result = Invariant("I12", "the late flag equals the oracle's")
    db = lake.db
    result.count(db, "late", "SELECT count(*) FROM silver WHERE late")
    limit = late_after_seconds * 1_000_000
    result.expect_none(
        db,
        "late flag does not follow from the row's timestamps",
        f"SELECT {AT} FROM silver WHERE late IS DISTINCT FROM coalesce(kt - ets > {limit}, false)",
    )
    result.expect_none(
        db,
        "delay does not follow from the row's timestamps",
        # Of a delay of centuries the double that holds its seconds has not every microsecond.
        f"""SELECT {AT} FROM silver
            WHERE NOT coalesce(abs(delay * 1e6 - (kt - ets)) < greatest(1, abs(delay) * 1e-9), kt IS NULL AND delay IS NULL)""",
    )
    if not oracle:
        result.skipped = "there is no op ledger to compare with"
        return result
    # The ledger's own flag is for two hours; with another limit its timestamps say the same. Without a time no event is late.
    flag = "e.late" if late_after_seconds == 7200 else f"(e.kts::HUGEINT - e.ets_ms > {late_after_seconds * 1000})"
    expected = f"({IS_INSTANT.format('e.kts')} AND {flag})"
    result.expect_none(
        db,
        "late flag differs from the oracle's",
        f"SELECT {AT} FROM silver s JOIN {_SURVIVORS} e USING ({AT}) WHERE s.late IS DISTINCT FROM {expected}",
    )
    return result
