"""Runs all invariants over one lake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lakehouse.proof.batches import check_batches
from lakehouse.proof.digest import check_replay, gold_digest, read_digest, write_digest
from lakehouse.proof.events import check_events, check_lateness
from lakehouse.proof.fates import check_fates
from lakehouse.proof.gold import check_gold
from lakehouse.proof.lake import Lake, open_lake
from lakehouse.proof.oracle import accept_replays, load_oracle
from lakehouse.proof.rebuild import check_rebuild, later_fields, load_rebuilt
from lakehouse.proof.records import check_bytes, check_completeness, check_uniqueness
from lakehouse.proof.result import Invariant
from lakehouse.proof.storage import check_storage, check_transactions
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import files_below


@dataclass(frozen=True)
class VerifyOptions:
    """What to compare with; `ledger` None means the producer's default folder, if it is there."""

    ledger: Path | None = None
    gold_digest: Path | None = None
    write_digest: Path | None = None
    others_send: bool = False


def verify(settings: Settings, options: VerifyOptions, progress: Callable[[str], None] = lambda _: None) -> list[Invariant]:
    """Check every invariant; `progress` hears what is being done.

    Raises UsageError for a missing table, ledger or digest file, before anything is checked. Broken storage (I7) ends the
    run: what cannot be read cannot be compared.
    """
    before = read_digest(options.gold_digest) if options.gold_digest else None
    with open_lake(settings) as lake:
        oracle = _load_oracle(lake, settings, options)
        progress("logs and files")
        storage = [check_storage(lake), check_transactions(lake)]
        if storage[0].findings:
            return storage
        progress("reading tables")
        lake.load(later_fields(settings))
        if options.write_digest:
            write_digest(gold_digest(lake), options.write_digest)
        found = _check(lake, settings, options, oracle=oracle, progress=progress)
        replay = check_replay(lake, before)
        return sorted([*storage, *found, replay], key=lambda result: int(result.id[1:]))


def _load_oracle(lake: Lake, settings: Settings, options: VerifyOptions) -> bool:
    default = Path(settings.lake.state_dir) / "op_ledger"
    if options.ledger is None and not files_below(default, "*.parquet"):
        return False
    load_oracle(lake.db, options.ledger or default)
    return True


def _check(
    lake: Lake, settings: Settings, options: VerifyOptions, *, oracle: bool, progress: Callable[[str], None]
) -> list[Invariant]:
    progress("Silver from Bronze")
    load_rebuilt(lake, settings)
    if oracle:
        accept_replays(lake.db)
    progress("records and bytes")
    results = [
        check_completeness(lake, oracle=oracle, others_send=options.others_send),
        check_uniqueness(lake),
        check_bytes(lake, oracle=oracle),
    ]
    progress("fates")
    fates = check_fates(lake, oracle=oracle)
    check_batches(lake, fates)
    progress("events")
    results += [
        fates,
        check_events(lake, oracle=oracle, others_send=options.others_send),
        check_lateness(lake, oracle=oracle, late_after_seconds=settings.silver.late_after_seconds),
    ]
    progress("Gold from Silver")
    results.append(check_gold(lake))
    progress("Silver and dead letters against the second reading")
    results.append(check_rebuild(lake, later_fields(settings)))
    return results
