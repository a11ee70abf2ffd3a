"""The op ledger as oracle: what was acknowledged where, and the fate that each record must have."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

from pathlib import Path

from lakehouse.proof.database import Database
from lakehouse.proof.lake import EVENT_FIELDS
from lakehouse.proof.op_ledger import fates_sql
from pipelines.lake.errors import UsageError
from pipelines.lake.storage.local_files import files_below, told_apart

_COLUMNS = """
    topic, "partition" AS p, "offset" AS o, kafka_timestamp_ms AS kts, fate, expected_rule, value_md5, key_md5,
    event_timestamp_ms AS ets_ms, event_id, customer_id, api_key_id, endpoint, method, status_code, response_time_ms,
    request_bytes, response_bytes, region, is_late AS late"""


CURABLE = "('SLV-001', 'SLV-005', 'SLV-006', 'SLV-007', 'SLV-008')"
"""Rules that look at schema files and settings: only such a dead letter can become an event."""


def load_oracle(db: Database, folder: Path) -> None:
    """Make the table `oracle` from the op ledger in `folder`.

    Raises UsageError where the folder has no ledger or the ledger has two records for one coordinate.
    """
    if not files_below(folder, "*.parquet"):
        msg = f"There is no op ledger in {folder}; give the folder that `lakehouse produce` wrote with --ledger."
        raise UsageError(msg)
    with told_apart(folder):
        db.run(f"CREATE OR REPLACE TABLE oracle AS SELECT {_COLUMNS} FROM ({fates_sql(folder)})")
    copies = db.number("SELECT count(*) - count(DISTINCT (topic, p, o)) FROM oracle")
    if copies:
        msg = (
            f"The op ledger in {folder} has {copies} coordinates twice, expected each once; the topic was made anew "
            "under the same name, so give the ledger of this topic only."
        )
        raise UsageError(msg)


def accept_replays(db: Database) -> None:
    """Expect events where dead letters were replayed and the bytes, read a second time, are events by today's schema files.

    The producer could not know them as events, so their fields are those of the table `rebuilt`; that the bytes are the
    ones sent, I11 shows. Any other replayed letter stays expected as a dead letter, and so is found missing.
    """
    db.run(f"""CREATE OR REPLACE TEMP TABLE cured AS
        SELECT r.* FROM rebuilt r SEMI JOIN (SELECT * FROM dlq WHERE status = 'replayed') d USING (topic, p, o)
        SEMI JOIN (SELECT * FROM oracle WHERE fate = 'dead_letter' AND expected_rule IN {CURABLE}) e USING (topic, p, o)
        WHERE r.fate = 'event'""")
    fields = ", ".join(f"{name} = c.{name}" for name in EVENT_FIELDS)
    db.run(f"""UPDATE oracle SET fate = 'duplicate', expected_rule = NULL, ets_ms = c.ets // 1000,
        late = oracle.kts::HUGEINT * 1000 - c.ets > 7200000000, {fields} FROM cured c
        WHERE oracle.topic = c.topic AND oracle.p = c.p AND oracle.o = c.o""")
    # Of each event that has a cured copy, the first copy by (Kafka timestamp, partition, offset) is the one to stay.
    db.run("""CREATE OR REPLACE TEMP TABLE first_copies AS
        SELECT s.first.topic AS topic, s.first.p AS p, s.first.o AS o FROM (
            SELECT min({'kts': kts, 'p': p, 'o': o, 'topic': topic}) AS first
            FROM oracle SEMI JOIN cured USING (event_id) WHERE fate IN ('silver', 'duplicate') GROUP BY event_id) s""")
    db.run("UPDATE oracle SET fate = 'duplicate' WHERE fate = 'silver' AND event_id IN (SELECT event_id FROM cured)")
    db.run("UPDATE oracle SET fate = 'silver' WHERE (topic, p, o) IN (SELECT (topic, p, o) FROM first_copies)")
