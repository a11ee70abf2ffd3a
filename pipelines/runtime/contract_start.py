"""What a job does about its tables' contract before it writes: works around, sets back, or refuses by name with the command."""

from __future__ import annotations

from collections.abc import Collection

from pyspark.sql import SparkSession

from pipelines.lake.checkpoint.progress import next_position
from pipelines.lake.checkpoint.spark_files import DeltaPosition
from pipelines.lake.contract.contract import lease_layer
from pipelines.lake.contract.facts import differences_at
from pipelines.lake.contract.sentences import damage_sentence, gap_sentence, sentence
from pipelines.lake.contract.source_gaps import Gap, find_gap, find_snapshot_gap
from pipelines.lake.delta_log.derived_files import find_damage, set_aside
from pipelines.lake.delta_log.opening import existing_table
from pipelines.lake.errors import ContractError, DamagedError, LakehouseError, UnknownFeatureError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.logging import Log
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import TableDef, TableName
from pipelines.runtime import delta

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
            found = differences_at(name, absolute(path), defined.get(name))
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


def refuse_gap(settings: Settings, job: str, checkpoint: str) -> None:
    """Refuse to start the stream of `job` on `checkpoint` where its source has lost what it reads next.

    Raises ContractError with one sentence and the command that goes on without a loss.
    """
    gap = gap_of(settings, job, checkpoint)
    if gap is not None:
        raise ContractError(gap_sentence(job, gap))


def gap_of(settings: Settings, job: str, checkpoint: str) -> Gap | None:
    """What the source of `job` has lost of what the stream on `checkpoint` reads next; None where it can go on, or is new."""
    position = next_position(open_storage(checkpoint))
    source = JOBS[job].source if job in JOBS else None
    if source is None or not isinstance(position, DeltaPosition):
        return None
    table = existing_table(absolute(source.path(settings)))
    if position.is_snapshot:
        return find_snapshot_gap(table, position.version)
    return find_gap(table, position.version, change_feed=job == "gold")


def cause_in_tables(settings: Settings, job: str, checkpoint: str) -> LakehouseError | None:
    """Why a stream failed, where somebody did something to its tables; None where that is not it, or cannot be told."""
    try:
        refuse_gap(settings, job, checkpoint)
        tables = JOBS.get(job)
        for name in () if tables is None else filter(None, (*tables.outputs, tables.source)):
            damage = find_damage(name.path(settings))
            if damage is not None:
                return ContractError(damage_sentence(name, damage))
            for one in differences_at(name, absolute(name.path(settings))):
                if one.kind in ("wrong", "feature"):
                    return ContractError(sentence(one))
    except ContractError as error:
        return error
    except Exception:  # a table that cannot be read, or files: the failure itself says more
        return None
    return None
