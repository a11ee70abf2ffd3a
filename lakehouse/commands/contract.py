"""`lakehouse contract`: whether the tables are as their contract says, and what sets them back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipelines.lake.contract.contract import Difference
    from pipelines.lake.settings import Settings
    from pipelines.lake.tables import TableDef, TableName

app = typer.Typer(no_args_is_help=True, add_completion=False)
_Config = Annotated[Path, typer.Option(help="Settings file.")]
_DEFAULT = Path("conf/local.yaml")


@app.callback()
def _root() -> None:
    """Say what somebody changed in the tables' properties, features and log files, and set it back."""


@app.command()
def check(config: _Config = _DEFAULT) -> None:
    """Compare each table with its contract; exit code 1 where one differs. Needs no JVM, and changes nothing."""
    from lakehouse.operations.definitions import definitions  # noqa: PLC0415
    from pipelines.lake.settings import process_settings  # noqa: PLC0415 - keeps `--help` fast
    from pipelines.lake.storage.access import require_lake  # noqa: PLC0415
    from pipelines.lake.tables import ALL_TABLES  # noqa: PLC0415

    settings = process_settings(config)
    require_lake(settings)
    defined = definitions(settings)
    said = [line for name in ALL_TABLES for line in _check(settings, name, defined.get(name))]
    typer.echo("\n".join(said) if said else "All tables are as their contract says.")
    raise typer.Exit(1 if said else 0)


@app.command()
def restore(
    table: Annotated[str, typer.Argument(help="Table, such as silver.api_usage_events.")], config: _Config = _DEFAULT
) -> None:
    """Set back what differs in one table: damaged derived files, properties, and table features (these by Spark)."""
    from pipelines.lake.settings import process_settings  # noqa: PLC0415
    from pipelines.lake.tables import ALL_TABLES  # noqa: PLC0415

    name = next((one for one in ALL_TABLES if str(one) == table), None)
    if name is None:
        from pipelines.lake.errors import UsageError  # noqa: PLC0415

        msg = f"`{table[:80]}` is not a table of the lake; give one of {', '.join(map(str, ALL_TABLES))}."
        raise UsageError(msg)
    from pipelines.lake.contract.contract import lease_layer  # noqa: PLC0415
    from pipelines.lake.lease.layers import lease_of  # noqa: PLC0415

    settings = process_settings(config)
    _require_table(settings, name)
    with lease_of(settings, lease_layer(name), job="contract", run=name.table).hold():
        done = list(_restore(settings, name))
    typer.echo("\n".join(done) if done else f"{name} is as its contract says; nothing was changed.")


def _require_table(settings: Settings, name: TableName) -> None:
    from pipelines.lake.delta_log.opening import has_table  # noqa: PLC0415
    from pipelines.lake.errors import DamagedError, UsageError  # noqa: PLC0415

    path = name.path(settings)
    try:
        is_there = has_table(path)
    except DamagedError:  # is what the command is for
        is_there = True
    if not is_there:
        msg = f"There is no table {name} at {path} yet: its job makes it; correct `lake.root`, or run the job."
        raise UsageError(msg)


def _check(settings: Settings, name: TableName, defined: TableDef | None) -> Iterator[str]:
    from pipelines.lake.contract.sentences import damage_sentence, sentence  # noqa: PLC0415
    from pipelines.lake.delta_log.derived_files import find_damage  # noqa: PLC0415

    damage = find_damage(name.path(settings))
    if damage is not None:
        yield damage_sentence(name, damage)
    for one in _differences(settings, name, defined):
        yield sentence(one)


def _differences(settings: Settings, name: TableName, defined: TableDef | None) -> list[Difference]:
    from pipelines.lake.contract.facts import differences_at  # noqa: PLC0415
    from pipelines.lake.errors import DamagedError  # noqa: PLC0415

    try:
        return differences_at(name, name.path(settings), defined)
    except DamagedError:  # said already
        return []


def _restore(settings: Settings, name: TableName) -> Iterator[str]:
    from lakehouse.operations.definitions import definitions  # noqa: PLC0415
    from pipelines.lake.contract.sentences import damage_sentence, sentence  # noqa: PLC0415
    from pipelines.lake.delta_log.derived_files import ASIDE, find_damage, set_aside  # noqa: PLC0415
    from pipelines.lake.errors import ContractError, DataLossError  # noqa: PLC0415

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
    from pipelines.lake.contract.contract import CONSTRAINTS  # noqa: PLC0415
    from pipelines.lake.delta_log.commits import marked  # noqa: PLC0415
    from pipelines.lake.delta_log.opening import existing_table  # noqa: PLC0415

    table, mark = existing_table(path), marked("contract restore")
    for key in properties:
        if key.startswith(CONSTRAINTS):
            table.alter.drop_constraint(key.removeprefix(CONSTRAINTS), commit_properties=mark)
    values = {key: value for key, value in properties.items() if not key.startswith(CONSTRAINTS)}
    if values:
        table.alter.set_table_properties(values, raise_if_not_exists=False, commit_properties=mark)


def _drop_features(settings: Settings, path: str, features: list[str]) -> None:
    """By Spark, which rewrites the files that need it."""
    from pipelines.lake.storage.places import absolute  # noqa: PLC0415
    from pipelines.runtime.delta import commits_are_ours  # noqa: PLC0415
    from pipelines.runtime.session import build_session  # noqa: PLC0415

    spark = build_session(settings, "contract")
    with commits_are_ours(spark, "contract restore"):
        for feature in features:
            spark.sql(f"ALTER TABLE delta.`{absolute(path)}` DROP FEATURE `{feature}`")
