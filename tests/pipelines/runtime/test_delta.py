"""Delta tables: appends that happen once, tables that are refused, metadata that a restart finds."""

from __future__ import annotations

import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from delta.tables import DeltaTable
from pyspark.errors.exceptions.base import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from lakehouse.operations.definitions import all_definitions
from pipelines.bronze.schema import TABLE as BRONZE_TABLE
from pipelines.lake.arrow_types import arrow_schema
from pipelines.lake.checkpoint.identity import open_checkpoint
from pipelines.lake.delta_log.opening import deleted_rows, existing_table
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import UnknownFeatureError, UsageError
from pipelines.lake.kafka.topic import TOPIC_ID_PROPERTY
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import BRONZE, Column, TableDef
from pipelines.runtime import delta

SMALL = TableDef(BRONZE, "A table.", (Column("id", "bigint", "An id."), Column("name", "string", "A name.")))


def _append(spark: SparkSession, path: str, ids: list[int], app_id: str, batch_id: int) -> int:
    frame = spark.createDataFrame([(number, None) for number in ids], "id bigint, name string")
    return delta.append(frame.coalesce(1), path, app_id=app_id, batch_id=batch_id, metadata={"batch_id": batch_id, "app": app_id})


def _ids(spark: SparkSession, path: str) -> list[int]:
    return sorted(row["id"] for row in spark.read.format("delta").load(path).collect())


@pytest.fixture
def table(spark: SparkSession, tmp_path: Path) -> str:
    path = str(tmp_path / "table")
    delta.ensure_table(spark, SMALL, path, {"lakehouse.x": "y"})
    return path


def _plain_ids(path: str) -> list[int]:
    return sorted(rows_dataset(existing_table(path)).to_table().column("id").to_pylist())


def test_features_that_somebody_switched_on_are_named_and_can_be_switched_off(spark: SparkSession, table: str) -> None:
    _append(spark, table, [1, 2, 3, 4], "a", 0)
    spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')")
    assert _plain_ids(table) == [1, 2, 3, 4]
    DeltaTable.forPath(spark, table).delete("id = 2")
    assert deleted_rows(existing_table(table)) == 1
    with pytest.raises(UnknownFeatureError, match="has deletionVectors"):
        _plain_ids(table)
    # As docs/architecture.md says.
    spark.sql(f"ALTER TABLE delta.`{table}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false')")
    spark.sql(f"REORG TABLE delta.`{table}` APPLY (PURGE)")
    assert _plain_ids(table) == [1, 3, 4]

    mapping = "ALTER TABLE delta.`{}` SET TBLPROPERTIES ('delta.columnMapping.mode' = '{}')"
    spark.sql(mapping.format(table, "name"))
    spark.sql(f"ALTER TABLE delta.`{table}` ADD COLUMNS (more string)")
    DeltaTable.forPath(spark, table).update("id = 3", {"more": F.lit("x")})
    with pytest.raises(UnknownFeatureError, match="has columnMapping"):
        _plain_ids(table)
    spark.sql(mapping.format(table, "none"))
    assert _plain_ids(table) == [1, 3, 4]


def test_append_with_the_same_ids_writes_once(spark: SparkSession, table: str) -> None:
    version = _append(spark, table, [1, 2], "a", 0)

    assert _append(spark, table, [1, 2], "a", 0) == version
    assert _ids(spark, table) == [1, 2]
    assert _append(spark, table, [3], "a", 1) == version + 1
    assert _append(spark, table, [2, 1], "a", 0) == version + 1
    assert _ids(spark, table) == [1, 2, 3]


def test_append_says_that_the_table_had_the_batch(spark: SparkSession, table: str) -> None:
    frame = spark.createDataFrame([(1, None)], "id bigint, name string").coalesce(1)
    versions = [delta.append_new(frame, table, app_id="a", batch_id=batch, metadata={}) for batch in (1, 1, 0, 2)]

    assert versions == [1, None, None, 2]
    assert _ids(spark, table) == [1, 1]


def test_append_writes_once_without_checksum_files_too(spark: SparkSession, table: str) -> None:
    version = _append(spark, table, [1], "a", 0)
    found = list(Path(table, "_delta_log").glob("*.crc"))
    for checksum in found:
        checksum.unlink()
    spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]

    assert found
    assert _append(spark, table, [1], "a", 0) == version
    assert _append(spark, table, [2], "a", 1) == version + 1
    assert _ids(spark, table) == [1, 2]


def test_rivals_with_the_same_ids_write_once_together(spark: SparkSession, table: str) -> None:
    start = threading.Barrier(2)

    def write() -> bool:
        start.wait()
        try:
            _append(spark, table, [1, 2], "a", 0)
        except PySparkException as error:
            assert "concurrent" in str(error).lower()  # noqa: PT017  # the other one may have come first: then there is none
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        done = [future.result() for future in [pool.submit(write), pool.submit(write)]]

    assert any(done)
    assert _ids(spark, table) == [1, 2]


def test_rows_of_another_schema_are_refused(spark: SparkSession, table: str) -> None:
    frame = spark.createDataFrame([(1, "x", True)], "id bigint, name string, more boolean")

    with pytest.raises(PySparkException, match=r"(?i)schema mismatch"):
        delta.append(frame, table, app_id="a", batch_id=0, metadata={})
    assert _ids(spark, table) == []


def test_new_checkpoint_that_counts_from_0_again_loses_nothing(spark: SparkSession, table: str, tmp_path: Path) -> None:
    checkpoints = [open_checkpoint(str(tmp_path / name), job="silver", source="s", target="t") for name in ("g1", "g2")]
    ids = [checkpoint.app_id() for checkpoint in checkpoints]
    _append(spark, table, [1], ids[0], 0)
    _append(spark, table, [2], ids[0], 1)
    _append(spark, table, [3], ids[1], 0)

    assert _ids(spark, table) == [1, 2, 3]
    assert [delta.transaction_version(spark, table, app_id) for app_id in (*ids, "other")] == [1, 0, None]
    assert checkpoints[0].app_id("dlq") not in ids


def test_versions_are_those_of_the_last_append(spark: SparkSession, table: str) -> None:
    versions = [_append(spark, table, [n], "a", n) for n in range(3)]

    assert (delta.last_version(spark, table), delta.current_version(spark, table)) == (versions[2], versions[2])


@pytest.mark.parametrize("said", [50, -2])
def test_wrong_checksum_file_neither_skips_a_batch_nor_writes_it_twice(spark: SparkSession, table: str, said: int) -> None:
    """One that says another transaction id than the commits do; without Hadoop's own checksum, as on an object store."""
    for number in range(3):
        _append(spark, table, [number], "a", number)
    other = Path(f"{table}-{said}")
    shutil.copytree(table, other)
    log = other / "_delta_log"
    for path in log.glob("[0-9]*.crc"):
        tree = json.loads(path.read_text())
        for one in tree.get("setTransactions") or []:
            one["version"] += said
        path.write_text(json.dumps(tree))
        (log / f".{path.name}.crc").unlink(missing_ok=True)

    _append(spark, str(other), [2], "a", 2)
    assert _ids(spark, str(other)) == [0, 1, 2]
    _append(spark, str(other), [3], "a", 3)
    assert _ids(spark, str(other)) == [0, 1, 2, 3]


def test_properties_are_set_where_they_differ_and_not_again(spark: SparkSession, table: str) -> None:
    wanted = {"delta.checkpointInterval": "200", "delta.dataSkippingStatsColumns": "id"}
    _append(spark, table, [1], "a", 0)
    version = delta.current_version(spark, table)

    assert delta.ensure_properties(spark, table, wanted) == {"delta.dataSkippingStatsColumns": None}
    assert delta.ensure_properties(spark, table, wanted) == {}
    assert delta.table_property(spark, table, "delta.dataSkippingStatsColumns") == "id"
    assert delta.current_version(spark, table) == version + 1
    assert _ids(spark, table) == [1]


def test_table_is_made_once_with_its_properties(spark: SparkSession, table: str) -> None:
    before = delta.current_version(spark, table)
    delta.ensure_table(spark, SMALL, table)

    assert delta.current_version(spark, table) == before
    assert delta.table_property(spark, table, "lakehouse.x") == "y"
    assert delta.table_property(spark, table, "delta.enableDeletionVectors") == "false"
    assert delta.table_property(spark, table, "nothing") is None


def test_table_is_made_at_a_path_that_begins_with_a_dot(spark: SparkSession, tmp_path: Path) -> None:
    # As conf/local.yaml has it: Delta takes such a location for the name of a column.
    relative = os.path.relpath(tmp_path / "table")
    assert relative.startswith(".")

    delta.ensure_table(spark, SMALL, relative)

    assert delta.current_version(spark, str(tmp_path / "table")) == 0


def test_folder_with_other_files_is_refused_and_untouched(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(UsageError, match=r"holds files but no Delta table, expected bronze\.api_usage_events or nothing"):
        delta.ensure_table(spark, SMALL, str(tmp_path))
    with pytest.raises(UsageError, match="No Delta table lies at"):
        delta.require_table(spark, str(tmp_path), "the Bronze table")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_bronze_is_append_only_and_knows_its_topic(spark: SparkSession, tmp_path: Path) -> None:
    path = str(tmp_path / "bronze")
    delta.ensure_table(spark, BRONZE_TABLE, path, {TOPIC_ID_PROPERTY: "id-1"})

    assert delta.table_property(spark, path, "delta.appendOnly") == "true"
    assert delta.table_property(spark, path, TOPIC_ID_PROPERTY) == "id-1"
    assert spark.read.format("delta").load(path).columns == BRONZE_TABLE.column_names


def test_columns_that_are_missing_are_added_at_the_end(spark: SparkSession, table: str) -> None:
    _append(spark, table, [1], "a", 0)
    wider = TableDef(BRONZE, "A table.", (Column("more", "boolean", "More."), *SMALL.columns))
    delta.ensure_columns(spark, wider, table)

    assert spark.read.format("delta").load(table).dtypes == [("id", "bigint"), ("name", "string"), ("more", "boolean")]
    assert _ids(spark, table) == [1]


def test_definition_gives_arrow_the_table_that_spark_makes(spark: SparkSession, tmp_path: Path) -> None:
    settings = load_settings(None, environ={}, overrides={"schemas_dir": str(PROJECT / "conf/schemas/api_usage_events")})
    for name, table in all_definitions(settings).items():
        path = str(tmp_path / str(name))
        delta.ensure_table(spark, table, path)
        made = pa.schema(existing_table(path).schema().to_arrow())
        expected = arrow_schema(table)
        assert made.names == expected.names, name
        assert [field.nullable for field in made] == [field.nullable for field in expected], name
        for field in made:
            assert field.type == expected.field(field.name).type, (name, field.name)
