"""I3 in total: each Bronze record has exactly one fate, the oracle's."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

from lakehouse.proof.lake import HELD, Lake
from lakehouse.proof.oracle import CURABLE
from lakehouse.proof.records import AT
from lakehouse.proof.result import Invariant

_FATES = f"""
    CREATE OR REPLACE TABLE fates AS
    SELECT {AT}, CASE WHEN s.copies > 0 THEN 'silver' WHEN d.held > 0 THEN 'dead_letter'
        WHEN b.tombstone THEN 'tombstone' ELSE 'duplicate' END AS fate,
        b.tombstone, coalesce(s.copies, 0) AS in_silver, coalesce(d.copies, 0) AS in_dlq, coalesce(d.held, 0) AS held
    FROM (SELECT {AT}, any_value(tombstone) AS tombstone FROM bronze GROUP BY {AT}) b
    LEFT JOIN (SELECT {AT}, count(*) AS copies FROM silver GROUP BY {AT}) s USING ({AT})
    LEFT JOIN (SELECT {AT}, count(*) AS copies, count(*) FILTER (WHERE status IS DISTINCT FROM 'replayed') AS held
        FROM dlq GROUP BY {AT}) d USING ({AT})"""
_STATES = "('open', 'replayed', 'discarded')"


def check_fates(lake: Lake, *, oracle: bool) -> Invariant:
    """I3: Bronze = Silver + duplicates + dead letters + tombstones, record by record, and as the oracle says.

    A duplicate is a Bronze record with a value that is in neither table: that it may be one, only the oracle or I13 can tell.
    A replayed dead letter is no fate: its record has to be a Silver row or a duplicate.
    """
    result = Invariant("I3", "Bronze = Silver + duplicates + dead letters + tombstones")
    db = lake.db
    db.run(_FATES)
    result.count(db, "bronze", "SELECT count(*) FROM fates")
    for fate in ("silver", "duplicate", "dead_letter", "tombstone"):
        result.count(db, fate, f"SELECT count(*) FROM fates WHERE fate = '{fate}'")
    result.count(db, "replayed", "SELECT count(*) FROM dlq WHERE status = 'replayed'")
    result.expect_none(
        db,
        "has more than one fate",
        f"""SELECT {AT}, in_silver, in_dlq, held, tombstone FROM fates
            WHERE in_silver + held + tombstone::INTEGER > 1 OR in_dlq > 1 OR (tombstone AND in_dlq > 0)""",
    )
    result.expect_none(
        db, "dead letter has no state that there is", f"SELECT {AT}, status FROM dlq WHERE coalesce(status, '') NOT IN {_STATES}"
    )
    for table in ("silver", "dlq"):
        result.expect_none(db, f"in {table} without a Bronze record", f"SELECT {AT} FROM {table} ANTI JOIN fates USING ({AT})")
    result.expect_none(db, "dead letter names no rule", f"SELECT {AT} FROM dlq WHERE coalesce(len(flags), 0) = 0")
    if not oracle:
        result.notes.append("without an op ledger the fates are only counted here; I13 derives them from Bronze's bytes")
        return result
    result.expect_none(
        db,
        "has another fate than the oracle's",
        f"""SELECT {AT}, fates.fate AS found, oracle.fate AS expected FROM fates JOIN oracle USING ({AT})
            WHERE fates.fate <> oracle.fate""",
    )
    result.expect_none(
        db,
        "dead letter does not name the expected rule",
        f"""SELECT {AT}, array_to_string(flags, ',') AS found, expected_rule AS expected FROM {HELD} JOIN oracle USING ({AT})
            WHERE expected_rule IS NOT NULL AND NOT list_contains(flags, expected_rule)
            -- Tried again, a letter may break another of the rules that look at schema files and settings.
            AND NOT (attempts > 1 AND expected_rule IN {CURABLE})""",
    )
    return result
