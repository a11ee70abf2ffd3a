"""What a statement would do, read from the plan that Spark's own parser makes of it, before anything of it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.lake.errors import LakehouseError
from pipelines.lake.tables import ALL_TABLES, DLQ, TableName

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from pipelines.lake.settings import Settings

_QUERY = frozenset(
    "Aggregate Distinct Except Filter Generate GlobalLimit Intersect Join LateralJoin LocalLimit LocalRelation Offset "
    "OneRowRelation PipeOperator Pivot Project Range RelationTimeTravel RepartitionByExpression Sample Sort SubqueryAlias Tail "
    "Union UnresolvedHaving UnresolvedHint UnresolvedInlineTable UnresolvedRelation UnresolvedSubqueryColumnAliases "
    "UnresolvedTVFAliases UnresolvedTableValuedFunction UnresolvedWith Unpivot WithWindowDefinition".split()
)
"""Steps of a plan that only read. All that is not named here is taken for a write: a new version of Spark may bring more."""
_INSPECTION = frozenset(
    "DescribeColumn DescribeDeltaDetailCommand DescribeDeltaHistory DescribeFunction DescribeNamespace DescribeRelation "
    "DescribeRelationJsonCommand SetCatalogAndNamespace ShowCatalogsCommand ShowColumns ShowCreateTable "
    "ShowCurrentNamespaceCommand ShowFunctions ShowNamespaces ShowNamespacesCommand ShowPartitions ShowTableProperties "
    "ShowTables ShowTablesExtended ShowViews".split()
)
"""Statements that show what is there, and USE."""
READING_OPTIONS = frozenset(
    {
        "spark.sql.ansi.enabled",
        "spark.sql.casesensitive",
        "spark.sql.session.timezone",
        "spark.sql.shuffle.partitions",
    }
)
"""Options that change how a query reads, and nothing about how tables are written."""
_ONE_TARGET = {
    "AppendData": "table",
    "DeleteFromTable": "table",
    "InsertIntoStatement": "table",
    "MergeIntoTable": "targetTable",
    "OverwriteByExpression": "table",
    "OverwritePartitionsDynamic": "table",
    "UpdateTable": "table",
}
_LAYERS = ("bronze", "silver", "gold")
_FOREIGN_CODE = ("reflect", "java_method", "try_reflect")
"""Functions that call any Java method: with them a query could do anything."""


def forbid_foreign_code(spark: SparkSession) -> None:
    """Take away from this session the functions by which a query could do more than read."""
    jvm: Any = spark._jvm
    registry = spark._jsparkSession.sessionState().functionRegistry()
    some = jvm.scala.Option.apply
    for name in _FOREIGN_CODE:
        builtin = jvm.org.apache.spark.sql.catalyst.FunctionIdentifier(name, some("builtin"), some("system"))
        if not registry.dropFunction(builtin):
            msg = (
                f"Spark's function {name} was not found, so it cannot be kept from the prompt; use the project's Spark version "
                "(playbooks/bad-deploy.md)."
            )
            raise LakehouseError(msg)


def parse(spark: SparkSession, text: str) -> Any:
    """Spark's plan of the statement, not yet resolved; raises PySpark's ParseException where it is none."""
    return spark._jsparkSession.sessionState().sqlParser().parsePlan(text)


def what_it_writes(plan: Any) -> str | None:
    """The step that makes the statement more than a query, such as `INSERT INTO`; None where it only reads."""
    name = _name(plan)
    if name in _INSPECTION:
        return None
    if name == "ExplainCommand":
        return what_it_writes(plan.logicalPlan())
    if name == "DescribeQueryCommand":
        return _foreign_step(plan.plan())
    if name == "SetCommand":
        return _option_set(plan)
    if name == "CreateViewCommand" and _name(plan.viewType()) == "LocalTempView":
        return _foreign_step(plan.plan())
    return _foreign_step(plan)


def tables_written(spark: SparkSession, settings: Settings, plan: Any) -> list[TableName]:
    """The lake's tables that the statement writes; empty where that cannot be told."""
    targets = list(_targets(plan)) or list(_names(plan))
    database = spark.catalog.currentDatabase()
    known = [_lake_table(parts if len(parts) > 1 else [database, *parts], settings) for parts in targets]
    return sorted({name for name in known if name is not None}, key=str) if known and None not in known else []


def leases_for(tables: list[TableName]) -> list[str]:
    """The leases to hold for a write of `tables`, in the order in which they are taken.

    Dead letters are Silver's to write. Every layer's batches write `ops`, and where a table is not known any may be meant:
    then nobody else may write at all.
    """
    layers = {"silver" if table == DLQ else table.layer for table in tables}
    return [layer for layer in _LAYERS if layer in layers] if layers and layers <= set(_LAYERS) else list(_LAYERS)


def _foreign_step(plan: Any) -> str | None:
    """The first step that no query has."""
    return next((_in_words(name) for step in _steps(plan) if (name := _name(step)) not in _QUERY), None)


def _option_set(plan: Any) -> str | None:
    if plan.kv().isEmpty() or plan.kv().get()._2().isEmpty():
        return None  # it only shows
    option = str(plan.kv().get()._1())
    return None if option.lower() in READING_OPTIONS else f"SET {option}"


def _targets(plan: Any) -> Iterator[list[str]]:
    """Names of the tables that INSERT, UPDATE, DELETE and MERGE write, wherever they stand in the statement."""
    for step in _steps(plan):
        if (name := _name(step)) in _ONE_TARGET:
            yield from _names(getattr(step, _ONE_TARGET[name])())


def _names(plan: Any) -> Iterator[list[str]]:
    """Names of all tables in a plan."""
    for step in _steps(plan):
        name = _name(step)
        if name == "UnresolvedIdentifier":
            yield _sequence(step.nameParts())
        elif name in ("UnresolvedRelation", "UnresolvedTable", "UnresolvedTableOrView"):
            yield _sequence(step.multipartIdentifier())


def _lake_table(parts: list[str], settings: Settings) -> TableName | None:
    if parts[-2].lower() == "delta":
        path = Path(re.sub(r"^file:(?://)?(?=/)", "", parts[-1])).resolve()
        return next((table for table in ALL_TABLES if Path(table.path(settings)).resolve() == path), None)
    wanted = ".".join(parts[-2:]).lower()
    return next((table for table in ALL_TABLES if str(table) == wanted), None)


def _steps(plan: Any) -> Iterator[Any]:
    """A plan's step and all below it: its inputs, the queries of its WITH, and those within its expressions."""
    # Not by recursion: people and programs write UNIONs of a thousand queries.
    waiting = [plan]
    while waiting:
        step = waiting.pop()
        yield step
        # For most steps the inner ones are the subqueries; WITH has others.
        for below in (step.children(), step.innerChildren(), step.subqueries() if _name(step) == "UnresolvedWith" else None):
            waiting += _sequence(below) if below is not None else []


def _sequence(items: Any) -> list[Any]:
    return [items.apply(at) for at in range(items.size())]


def _name(plan: Any) -> str:
    return str(plan.getClass().getSimpleName()).rstrip("$")


def _in_words(name: str) -> str:
    """A class of Spark's plans as the words of SQL that it stands for."""
    bare = re.sub(r"(Statement|Command|Unresolved)", "", name) or name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", bare).upper()
