"""What a job does about its tables' contract before it writes: works around, sets back, or refuses by name with the command."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from pyspark.sql import SparkSession

from pipelines.lake.contract.contract import WRITTEN_BY, lease_layer
from pipelines.lake.contract.facts import differences_at
from pipelines.lake.contract.sentences import damage_sentence, gap_sentence, sentence
from pipelines.lake.delta_log.derived_files import find_damage, set_aside
from pipelines.lake.delta_log.source_gaps import Gap, find_gap, find_snapshot_gap
from pipelines.lake.errors import ContractError, DamagedError, LakehouseError, UnknownFeatureError
from pipelines.lake.lease.leases import lease_of
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings
from pipelines.lake.storage.opening import existing_table
from pipelines.lake.tables import BRONZE, SILVER, TableDef, TableName
from pipelines.runtime import delta, files

_LOG = Log("contract")


def work_around_damage(settings: Settings, names: Collection[TableName]) -> None:
    """Set damaged derived files of the tables' logs aside, before anything reads them; a log that lost commits is left as it is.

    Under the lease of each table's layer, since a writer may be making such a file.
    """
    for name in names:
        path = name.path(settings)
        damage = find_damage(path)
        if damage is None or damage.is_lost:
            continue
        with lease_of(settings, lease_layer(name), job="contract", run=name.table).hold():
            damage = find_damage(path)
            if damage is not None and not damage.is_lost:
                set_aside(path, damage)
                _LOG.warning("damaged file of a log set aside", table=str(name), files=", ".join(damage.names))


def refuse_differences(
    spark: SparkSession, settings: Settings, written: Collection[TableDef], read: Collection[TableName] = ()
) -> None:
    """Set back what is harmless in the tables that a job writes, and refuse what else differs from their contract.

    Of the tables that it only reads, table features count. Raises ContractError with one sentence and the command that mends it.
    """
    defined = {table.name: table for table in written}
    for name in (*defined, *read):
        path = name.path(settings)
        try:
            found = differences_at(name, files.absolute(path), defined.get(name))
        except (DamagedError, UnknownFeatureError):  # what is wrong with its log, the job's own checks say
            continue
        for one in found:
            if one.kind == "feature" or (one.kind in ("wrong", "column") and name in defined):
                raise ContractError(sentence(one))
        back = {one.key: one.expected for one in found if one.kind == "harmless"}
        if back and name in defined:
            with lease_of(settings, lease_layer(name), job="contract", run=name.table).hold():
                delta.ensure_properties(spark, path, back)
            _LOG.warning("property of a table set back", table=str(name), properties=", ".join(back))


def refuse_gap(spark: SparkSession, settings: Settings, job: str, checkpoint: str) -> None:
    """Refuse to start the stream of `job` on `checkpoint` where its source has lost what it reads next.

    Raises ContractError with one sentence and the command that goes on without a loss.
    """
    gap = gap_of(spark, settings, job, checkpoint)
    if gap is not None:
        raise ContractError(gap_sentence(job, gap))


def gap_of(spark: SparkSession, settings: Settings, job: str, checkpoint: str) -> Gap | None:
    """What the source of `job` has lost of what the stream on `checkpoint` reads next; None where it can go on, or is new."""
    position = _position(spark, checkpoint)
    source = {"silver": BRONZE, "gold": SILVER}.get(job)
    if position is None or source is None:
        return None
    table = existing_table(files.absolute(source.path(settings)))
    if position.get("isStartingVersion"):
        return find_snapshot_gap(table, int(position["reservoirVersion"]))
    return find_gap(table, int(position["reservoirVersion"]), change_feed=job == "gold")


def cause_in_tables(spark: SparkSession, settings: Settings, job: str, checkpoint: str) -> LakehouseError | None:
    """Why a stream failed, where somebody did something to its tables; None where that is not it, or cannot be told."""
    try:
        refuse_gap(spark, settings, job, checkpoint)
        for name in (*WRITTEN_BY.get(job, ()), *{"silver": (BRONZE,), "gold": (SILVER,)}.get(job, ())):
            damage = find_damage(name.path(settings))
            if damage is not None:
                return ContractError(damage_sentence(name, damage))
            for one in differences_at(name, files.absolute(name.path(settings))):
                if one.kind in ("wrong", "feature"):
                    return ContractError(sentence(one))
    except ContractError as error:
        return error
    except Exception:  # a table that cannot be read, or files: the failure itself says more
        return None
    return None


def _position(spark: SparkSession, checkpoint: str) -> Mapping[str, Any] | None:
    """Where the next batch of a stream over a Delta table begins; None where none was committed, or its file is damaged."""
    committed = [int(name) for name in files.list_names(spark, f"{checkpoint}/commits") if name.isdigit()]
    if not committed:
        return None
    try:
        last_line = files.read_text(spark, f"{checkpoint}/offsets/{max(committed)}").strip().splitlines()[-1]
        found = json.loads(last_line)
    except Exception:  # a file that is missing or cut: Spark and the checkpoint's own checks say it
        return None
    return found if isinstance(found, dict) and isinstance(found.get("reservoirVersion"), int) else None
