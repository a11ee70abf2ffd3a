"""Mends what a job may mend by itself before it writes: damaged derived files of a log, properties that alter no row."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pyspark.sql import SparkSession

from pipelines.lake.contract.contract import Difference, lease_layer
from pipelines.lake.delta_log.derived_files import find_damage, set_aside
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.logging import Log
from pipelines.lake.settings import Settings
from pipelines.lake.tables import TableName
from pipelines.runtime import delta

_LOG = Log("contract")


def set_damage_aside(settings: Settings, names: Collection[TableName]) -> None:
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


def set_properties_back(spark: SparkSession, settings: Settings, differences: Mapping[TableName, Sequence[Difference]]) -> None:
    """Set back what is harmless of what differs in the tables that a job writes."""
    for name, found in differences.items():
        back = {one.key: one.expected for one in found if one.kind == "harmless"}
        if back:
            with lease_of(settings, lease_layer(name), job="contract", run=name.table).hold():
                delta.ensure_properties(spark, name.path(settings), back)
            _LOG.warning("property of a table set back", table=str(name), properties=", ".join(back))
