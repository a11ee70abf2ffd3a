"""I1, I2, I11: every acknowledged record is in Bronze, once, with the bytes that were sent."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

from lakehouse.proof.lake import Lake
from lakehouse.proof.result import Invariant

AT = "topic, p, o"
IS_INSTANT = "{} BETWEEN 0 AND 7258118399999"
"""Whether a number of milliseconds is an instant that the lake holds (docs/ranges.md): 1970 to 2199; written once more here."""

_HOLES = """
    SELECT topic, p, o + 1 AS first_missing, next_o - 1 AS last_missing FROM (
        SELECT topic, p, o, lead(o) OVER (PARTITION BY topic, p ORDER BY o) AS next_o
        FROM (SELECT DISTINCT topic, p, o FROM bronze)
    ) WHERE next_o > o + 1"""


def check_completeness(lake: Lake, *, oracle: bool, others_send: bool) -> Invariant:
    """I1: ledger and Bronze have the same coordinates and Kafka times; a hole in Bronze is one in the ledger too.

    With `others_send`, records that the ledger does not know are counted, not blamed.
    """
    result = Invariant("I1", "no acknowledged record is missing in Bronze")
    db = lake.db
    result.count(db, "bronze records", "SELECT count(*) FROM bronze")
    archived = db.number("SELECT count(*) FROM archived")
    if archived:
        result.notes.append(f"{archived} Bronze records are in the archive alone, and were read there")
    for table in ("bronze", "silver", "dlq"):
        result.expect_none(
            db,
            f"Kafka timestamp in {table} is not the instant of Kafka's own number",
            f"""SELECT {AT} FROM {table} WHERE raw_ms IS NOT NULL
                AND kt IS DISTINCT FROM CASE WHEN {IS_INSTANT.format("raw_ms")} THEN raw_ms * 1000 END""",
        )
    holes = result.count(db, "offset holes", f"SELECT coalesce(sum(last_missing - first_missing + 1), 0) FROM ({_HOLES})")
    if not oracle:
        result.skipped = "there is no op ledger to compare with"
        return result
    result.count(db, "acknowledged", "SELECT count(*) FROM oracle")
    result.expect_none(
        db,
        "acknowledged, but missing in Bronze",
        f"SELECT {AT} FROM oracle ANTI JOIN (SELECT DISTINCT {AT} FROM bronze) USING ({AT})",
    )
    result.expect_none(
        db,
        "Kafka timestamp in Bronze differs from the acknowledged one",
        f"SELECT {AT} FROM bronze JOIN oracle USING ({AT}) WHERE bronze.kts <> oracle.kts",
    )
    unknown = f"SELECT {AT} FROM bronze ANTI JOIN oracle USING ({AT})"
    covered = "topic IN (SELECT DISTINCT topic FROM oracle)"
    foreign = result.count(
        db, "records of others", f"SELECT count(*) FROM ({unknown} WHERE {'true' if others_send else f'NOT {covered}'})"
    )
    if foreign:
        result.notes.append(f"{foreign} Bronze records were sent by others than the ledger's producers")
    if not others_send:
        result.expect_none(db, "in Bronze, but never sent (or sent by others: --others-send)", f"{unknown} WHERE {covered}")
    if holes and not result.findings:
        result.notes.append(f"{holes} offsets are holes in Kafka too (nothing was acknowledged there)")
    return result


def check_uniqueness(lake: Lake) -> Invariant:
    """I2: each (topic, partition, offset) is in Bronze once."""
    result = Invariant("I2", "Bronze coordinates are unique")
    result.count(lake.db, "coordinates", f"SELECT count(*) FROM (SELECT DISTINCT {AT} FROM bronze)")
    result.expect_none(
        lake.db, "more than once in Bronze", f"SELECT {AT}, count(*) AS copies FROM bronze GROUP BY {AT} HAVING count(*) > 1"
    )
    return result


def check_bytes(lake: Lake, *, oracle: bool) -> Invariant:
    """I11: values and keys in Bronze equal the ones sent, and the DLQ has the bytes that Bronze has."""
    result = Invariant("I11", "bytes in Bronze and the dead-letter table equal the bytes sent")
    db = lake.db
    # Retention takes the bytes of closed letters, and of these only.
    db.run("CREATE OR REPLACE VIEW letters AS SELECT * FROM dlq WHERE value_md5 IS NOT NULL OR coalesce(status, 'open') = 'open'")
    for what in ("value", "key"):
        result.expect_none(
            db,
            f"{what} of the dead letter differs from Bronze",
            f"SELECT {AT} FROM letters JOIN bronze USING ({AT}) WHERE letters.{what}_md5 IS DISTINCT FROM bronze.{what}_md5",
        )
    result.count(db, "dead letters", "SELECT count(*) FROM letters")
    if not oracle:
        result.skipped = "there is no op ledger to compare with"
        return result
    for table, name in (("bronze", "bronze"), ("letters", "dlq")):
        for what in ("value", "key"):
            result.expect_none(
                db,
                f"{what} in {name} differs from the one sent",
                f"SELECT {AT} FROM {table} JOIN oracle USING ({AT}) WHERE {table}.{what}_md5 IS DISTINCT FROM oracle.{what}_md5",
            )
    result.count(db, "records compared", f"SELECT count(*) FROM bronze SEMI JOIN oracle USING ({AT})")
    return result
