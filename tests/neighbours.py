"""What other programs and people do to a table between the batches, lawfully or by accident."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from deltalake import CommitProperties, DeltaTable

from pipelines.lake.tables import BRONZE, DLQ, GOLD_DAILY, GOLD_HOURLY, LEDGER, SILVER

METADATA = (
    "Nightly compaction, see the wiki.",
    "[1]",
    "17",
    "null",
    '{"job": "silver", "generation": 7, "batch_id": "0"}',
    '{"rollback": 3, "rebuild": [true]}',
    '{"a":' * 3_000,
)
"""Words that others put into their commits; some look like ours."""
STREAMED = (BRONZE, SILVER, DLQ, GOLD_HOURLY, GOLD_DAILY, LEDGER)
"""Tables that the streams write."""
Act = Callable[[str, random.Random], None]
"""Does something to the table at a path."""


def commit(path: str, chance: random.Random) -> None:
    """A commit that changes no row, with words of its own."""
    commit_words(path, chance.choice(METADATA))


def commit_words(path: str, text: str) -> None:
    """A commit that changes no row, with these words."""
    table = DeltaTable(path)
    owner = {"owner": f"the owner of version {table.version()}"}
    table.alter.set_table_properties(owner, raise_if_not_exists=False, commit_properties=_words(text))


def _words(text: str) -> CommitProperties:
    """A commit's free text."""
    return CommitProperties(custom_metadata={"userMetadata": text})


def compact(path: str, chance: random.Random) -> None:
    """OPTIMIZE."""
    DeltaTable(path).optimize.compact(commit_properties=_words(chance.choice(METADATA)))


def vacuum(path: str, _chance: random.Random) -> None:
    """VACUUM that keeps what the table's retention asks for."""
    DeltaTable(path).vacuum(dry_run=False)


def vacuum_all(path: str) -> None:
    """OPTIMIZE, and VACUUM of all that is not of the newest version."""
    DeltaTable(path).optimize.compact()
    DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False)


def break_checkpoint(path: str, chance: random.Random) -> None:
    """A checkpoint of the log that is cut or gone, and named by `_last_checkpoint`."""
    DeltaTable(path).create_checkpoint()
    newest = max((Path(path) / "_delta_log").glob("*.checkpoint.parquet"))
    if chance.random() < 0.5:
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    else:
        newest.unlink()


def break_last_checkpoint(path: str, chance: random.Random) -> None:
    """A `_last_checkpoint` that is cut, or names one that is not there."""
    DeltaTable(path).create_checkpoint()
    pointer = Path(path) / "_delta_log" / "_last_checkpoint"
    text = pointer.read_text()
    pointer.write_text(text[: len(text) // 2] if chance.random() < 0.5 else json.dumps({"version": 900, "size": 1}))


def break_checksum(path: str, chance: random.Random) -> None:
    """Wrong `.crc` files, without Hadoop's own beside them: as on an object store."""
    log = Path(path) / "_delta_log"
    for file in log.glob("[!.]*.crc"):
        tree = json.loads(file.read_text())
        for one in tree.get("setTransactions") or []:
            one["version"] += chance.choice((-3, 1, 50))
        file.write_text(json.dumps(tree))
        (log / f".{file.name}.crc").unlink(missing_ok=True)
