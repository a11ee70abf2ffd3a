"""The op ledger as oracle: what was acknowledged where, and the fate that each record must have."""

# ruff: noqa: S608 - the SQL is built from constants of this package

from __future__ import annotations

from pathlib import Path

from lakehouse.local.op_ledger import fates_sql
from lakehouse.verify.database import Database
from pipelines.common.errors import UsageError

_COLUMNS = """
    topic, "partition" AS p, "offset" AS o, kafka_timestamp_ms * 1000 AS kts, fate, expected_rule, value_md5, key_md5,
    event_timestamp_ms AS ets_ms, event_id, customer_id, api_key_id, endpoint, method, status_code, response_time_ms,
    request_bytes, response_bytes, region, is_late AS late"""


def load_oracle(db: Database, folder: Path) -> None:
    """Make the table `oracle` from the op ledger in `folder`.

    Raises UsageError where the folder has no ledger or the ledger has two records for one coordinate.
    """
    if not any(folder.glob("**/*.parquet")):
        msg = f"There is no op ledger in {folder}; give the folder that `lakehouse produce` wrote with --ledger."
        raise UsageError(msg)
    db.run(f"CREATE OR REPLACE TABLE oracle AS SELECT {_COLUMNS} FROM ({fates_sql(folder)})")
    copies = db.number("SELECT count(*) - count(DISTINCT (topic, p, o)) FROM oracle")
    if copies:
        msg = (
            f"The op ledger in {folder} has {copies} coordinates twice, expected each once; the topic was made anew "
            "under the same name, so give the ledger of this topic only."
        )
        raise UsageError(msg)
