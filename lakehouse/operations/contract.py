"""Compares tables with their contract, and sets back what differs."""

from __future__ import annotations

from collections.abc import Iterator

from lakehouse.operations.definitions import definitions
from pipelines.lake.access import require_lake
from pipelines.lake.contract.contract import CONSTRAINTS, Difference, lease_layer
from pipelines.lake.contract.facts import differences_at
from pipelines.lake.contract.sentences import damage_sentence, sentence
from pipelines.lake.delta_log.derived_files import ASIDE, find_damage, set_aside
from pipelines.lake.delta_log.marks import marked
from pipelines.lake.delta_log.opening import existing_table, has_table
from pipelines.lake.errors import ContractError, DamagedError, DataLossError, UsageError
from pipelines.lake.lease.layers import lease_of
from pipelines.lake.places import absolute
from pipelines.lake.settings import Settings
from pipelines.lake.tables import ALL_TABLES, TableDef, TableName


def differing(settings: Settings) -> list[str]:
    """A sentence for each difference between a table and its contract; a lake without tables is a UsageError."""
    require_lake(settings)
    defined = definitions(settings)
    return [line for name in ALL_TABLES for line in _check(settings, name, defined.get(name))]


def restore_table(settings: Settings, name: TableName) -> list[str]:
    """Set back what differs in one table, and say what was done.

    Raises UsageError where there is no such table, DataLossError where its log has lost commits, ContractError where a column
    differs.
    """
    _require_there(settings, name)
    with lease_of(settings, lease_layer(name), job="contract", run=name.table).hold():
        return list(_restore(settings, name))


def _require_there(settings: Settings, name: TableName) -> None:
    path = name.path(settings)
    try:
        is_there = has_table(path)
    except DamagedError:  # is what the command is for
        is_there = True
    if not is_there:
        msg = f"There is no table {name} at {path} yet: its job makes it; correct `lake.root`, or run the job."
        raise UsageError(msg)


def _check(settings: Settings, name: TableName, defined: TableDef | None) -> Iterator[str]:
    damage = find_damage(name.path(settings))
    if damage is not None:
        yield damage_sentence(name, damage)
    for one in _differences(settings, name, defined):
        yield sentence(one)


def _differences(settings: Settings, name: TableName, defined: TableDef | None) -> list[Difference]:
    try:
        return differences_at(name, name.path(settings), defined)
    except DamagedError:  # said already
        return []


def _restore(settings: Settings, name: TableName) -> Iterator[str]:
    path = name.path(settings)
    damage = find_damage(path)
    if damage is not None and damage.is_lost:
        raise DataLossError(damage_sentence(name, damage))
    if damage is not None:
        set_aside(path, damage)
        yield f"Set aside in the log of {name}, as {ASIDE}...: {', '.join(damage.names)}."
    found = _differences(settings, name, definitions(settings).get(name))
    for one in found:
        if one.kind == "column":
            raise ContractError(sentence(one))
    properties = {one.key: one.expected for one in found if one.kind != "feature"}
    if properties:
        _set(path, properties)
        yield from (f"{name}: {key} is {value} again." for key, value in properties.items())
    features = [one.key for one in found if one.kind == "feature"]
    if features:
        _drop_features(settings, path, features)
        yield from (f"{name}: the table feature {feature} is off again." for feature in features)


def _set(path: str, properties: dict[str, str]) -> None:
    table, mark = existing_table(path), marked("contract restore")
    for key in properties:
        if key.startswith(CONSTRAINTS):
            table.alter.drop_constraint(key.removeprefix(CONSTRAINTS), commit_properties=mark)
    values = {key: value for key, value in properties.items() if not key.startswith(CONSTRAINTS)}
    if values:
        table.alter.set_table_properties(values, raise_if_not_exists=False, commit_properties=mark)


def _drop_features(settings: Settings, path: str, features: list[str]) -> None:
    """By Spark, which rewrites the files that need it."""
    from pipelines.runtime.delta import commits_are_ours  # noqa: PLC0415
    from pipelines.runtime.session import build_session  # noqa: PLC0415

    spark = build_session(settings, "contract")
    with commits_are_ours(spark, "contract restore"):
        for feature in features:
            spark.sql(f"ALTER TABLE delta.`{absolute(path)}` DROP FEATURE `{feature}`")
