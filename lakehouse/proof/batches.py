"""Checks I3 per batch: what `ops.batch_ledger` says of each batch adds up, and its sums are what the tables hold.

Reads the ledger's columns itself, and their JSON, a second time beside `pipelines/lake/ledger`, on purpose: a mistake in the
reader that the sinks and commands share would otherwise agree with itself here. An import contract forbids that import.
"""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

import json

from lakehouse.proof.lake import Lake
from lakehouse.proof.result import Finding, Invariant
from pipelines.lake.tables import LEDGER

BATCH = "job, generation, batch_id"

_EQUATIONS = {
    "bronze": "inserted + already_present",
    "silver": "inserted + replaced + duplicate + already_present + dead_lettered + tombstone",
}
_TOTALS = (
    ("bronze", "inserted", "SELECT count(*) FROM bronze", "Bronze rows"),
    ("silver", "inserted", "SELECT count(*) FROM silver", "Silver rows"),
    ("silver", "dead_lettered", "SELECT count(*) FROM dlq", "dead letters"),
    ("silver", "duplicate + replaced", "SELECT count(*) FROM fates WHERE fate = 'duplicate'", "duplicates"),
    ("silver", "tombstone", "SELECT count(*) FROM fates WHERE fate = 'tombstone'", "tombstones"),
)
# Offsets below x are counted by rank, because a join of 5 million rows with all ranges would not end.
_BELOW = """
    SELECT {batch}, x.p, x.{bound}, coalesce(r.rank, 0) AS below FROM ranges x
    ASOF LEFT JOIN ranks r ON x.p = r.p AND x.{bound} > r.o WHERE x.job = 'bronze'"""
_RANKS = """CREATE OR REPLACE TEMP TABLE ranks AS
    SELECT p, o, row_number() OVER (PARTITION BY p ORDER BY o) AS rank FROM (SELECT DISTINCT p, o FROM bronze)"""


def check_batches(lake: Lake, result: Invariant) -> None:
    """Add to I3: each batch's equation, its offset ranges against Bronze, and the sums over all generations.

    Needs the table `fates`.
    """
    db = lake.db
    if LEDGER not in lake.tables:
        result.skipped = f"there is no table {LEDGER}, so nothing is known per batch"
        return
    result.count(db, "batches", "SELECT count(*) FROM batch_ledger WHERE job IN ('bronze', 'silver')")
    result.expect_none(
        db,
        "batch stands more than once in the batch ledger",
        f"SELECT {BATCH}, count(*) AS rows FROM batch_ledger GROUP BY {BATCH} HAVING count(*) > 1",
    )
    for job, parts in _EQUATIONS.items():
        result.expect_none(
            db,
            f"{job} batch: rows_read is not {parts}",
            f"""SELECT {BATCH}, rows_read, {parts} AS accounted FROM batch_ledger
                WHERE job = '{job}' AND rows_read IS DISTINCT FROM {parts}""",
        )
    _load_ranges(lake)
    if db.has_expired:
        result.notes.append("the archive has given records up, so the batches' sums cannot be compared with the tables any more")
    else:
        _check_totals(lake, result)
        _check_ranges(lake, result)
    _note_lag(lake, result)


def _check_totals(lake: Lake, result: Invariant) -> None:
    for job, parts, table, what in _TOTALS:
        said = lake.db.number(f"SELECT sum({parts}) FROM batch_ledger WHERE job = '{job}'")
        held = lake.db.number(table)
        if said != held:
            problem = f"the {job} batches' sum of {parts} is not the number of {what}"
            result.findings.append(Finding(problem, abs(said - held), (f"ledger={said} tables={held}",)))


def _load_ranges(lake: Lake) -> None:
    lake.db.run(
        "CREATE OR REPLACE TEMP TABLE ranges (job VARCHAR, generation VARCHAR, batch_id BIGINT, p INT, first BIGINT, stop BIGINT)"
    )
    rows = lake.db.rows(f"SELECT {BATCH}, offsets FROM batch_ledger WHERE job IN ('bronze', 'silver')")
    ranges = [
        (job, generation, batch_id, int(partition), first, stop)
        for job, generation, batch_id, offsets in rows
        for partition, (first, stop) in json.loads(offsets or "{}").items()
    ]
    lake.db.insert("INSERT INTO ranges VALUES (?, ?, ?, ?, ?, ?)", ranges)


def _check_ranges(lake: Lake, result: Invariant) -> None:
    db = lake.db
    db.run(_RANKS)
    firsts, stops = (_BELOW.format(batch="x.job, x.generation, x.batch_id", bound=bound) for bound in ("first", "stop"))
    result.expect_none(
        db,
        "bronze batch: rows_read is not what Bronze holds of its offsets",
        f"""SELECT {BATCH}, rows_read, held FROM batch_ledger JOIN (
                SELECT {BATCH}, sum(s.below - f.below) AS held FROM ({firsts}) f JOIN ({stops}) s USING ({BATCH}, p) GROUP BY ALL
            ) USING ({BATCH}) WHERE rows_read <> held""",
    )
    result.expect_none(
        db,
        "bronze batch does not begin where the one before it ended",
        f"""SELECT {BATCH}, p AS "partition", before, first FROM (
                SELECT *, lag(stop) OVER (PARTITION BY job, generation, p ORDER BY batch_id) AS before
                FROM ranges WHERE job = 'bronze'
            ) WHERE before <> first""",
    )


def _note_lag(lake: Lake, result: Invariant) -> None:
    unread = lake.db.number(
        """SELECT count(*) FROM bronze
           LEFT JOIN (SELECT p, max(stop) AS stop FROM ranges WHERE job = 'silver' GROUP BY p) USING (p)
           WHERE o >= coalesce(stop, 0)"""
    )
    if unread:
        result.notes.append(f"Silver has not read {unread} Bronze records yet; they look like duplicates until it has")
