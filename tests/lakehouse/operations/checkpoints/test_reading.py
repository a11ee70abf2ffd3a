"""Decoding what Spark wrote, and naming what it could not have written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from lakehouse.operations.checkpoints import lake_tables
from lakehouse.operations.checkpoints.reading import CheckpointState, read_checkpoint
from pipelines.lake.checkpoint.spark_files import DeltaPosition, KafkaPosition
from pipelines.lake.errors import CheckpointError
from pipelines.lake.job_tables import JOBS
from pipelines.lake.kafka.topic import TOPIC_ID_PROPERTY
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import BRONZE


def read(path: Path) -> CheckpointState:
    return read_checkpoint(open_storage(str(path)), checksums=True)


def test_property_is_the_one_that_the_jobs_use(lake: Any) -> None:
    table = lake.table(BRONZE)
    assert lake_tables.topic_id(table) == table.metadata().configuration[TOPIC_ID_PROPERTY] == lake.topic_id


def test_kafka_offsets_are_those_of_each_batch(lake: Any) -> None:
    state = read(lake.checkpoint("bronze", [{0: 5, 10: 7}, {0: 6, 10: 9}], commits=[0], initial={0: 2, 10: 0}))
    assert (state.last_planned, state.last_committed) == (1, 0)
    assert state.start(0) == KafkaPosition("t", {0: 2, 10: 0})
    assert state.end(1) == KafkaPosition("t", {0: 6, 10: 9})
    assert state.planned[1].planned_at.isoformat() == "2026-11-21T15:31:37.305000+00:00"
    assert state.query_id == "c7048d4d-471b-43e1-a67b-828676250c83"
    assert state.committed_at(0) is not None
    assert state.committed_at(1) is None
    assert state.broken == []


def test_versions_of_a_delta_source_are_decoded(lake: Any) -> None:
    lake.append(reading_table("bronze"))
    state = read(lake.checkpoint("silver", [(2, -1), (3, 7)]))
    end = state.end(1)
    assert isinstance(end, DeltaPosition)
    assert (end.version, end.index, end.is_snapshot) == (3, 7, False)
    assert end.table_id == state.marker.source if state.marker else False


def reading_table(job: str) -> Any:
    return JOBS[job].target


def test_only_the_last_batches_are_read_but_all_are_known(lake: Any) -> None:
    path = lake.checkpoint("bronze", [{0: number} for number in range(1, 12)])
    (path / "offsets/3").write_text("")
    state = read_checkpoint(open_storage(str(path)), last=2)
    assert sorted(state.planned) == [8, 9, 10]
    assert len(state.planned_ids) == 11
    assert state.broken == []


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("offsets/1", "", "is empty"),
        ("offsets/1", "\0\0\0\0", "is empty"),
        ("offsets/1", 'v1\n{"batchTimestampMs":1}', "is cut"),
        ("offsets/1", 'v1\n{"batchTimestampMs":1}\n{"t":{"0":', "line 3 is no JSON object"),
        ("offsets/1", 'v1\n{"batchTimestampMs":1}\n{"t":5}', "is damaged"),
        ("offsets/1", 'v1\n{}\n{"t":{"0":5}}', "when the batch was planned"),
        ("offsets/1", 'v7\n{"batchTimestampMs":1}\n{"t":{"0":5}}', "format 'v7'"),
        ("offsets/1", 'v1\n{"batchTimestampMs":1}\n{"t":{"0":5}}\n{"u":{"0":5}}', "2 sources"),
        ("commits/1", "", "is empty"),
        ("commits/1", "v1", "is cut"),
        ("commits/1", 'v1\n{"next', "line 2 is no JSON object"),
        ("sources/0/0", "\0v1", "is cut"),
        ("metadata", "{", "is no JSON object"),
        ("metadata", "{}", "no query id"),
        ("lakehouse.json", "", "is empty"),
        ("lakehouse.json", '{"job":"bronze"}', "has no generation, source, starting, target"),
        (
            "lakehouse.json",
            '{"job":"bronze","generation":"g","source":"s","target":"t","starting":"","epoch":1}',
            "was made by a newer version of this project (lakehouse.json has epoch",
        ),
        ("lakehouse.json", "[]", "is cut or damaged"),
    ],
)
def test_file_that_spark_could_not_have_written_is_named(name: str, content: str, problem: str, lake: Any) -> None:
    path = lake.checkpoint("bronze", [{0: 1}, {0: 2}])
    (path / name).write_text(content)
    ((broken),) = read(path).broken
    assert broken.name == name
    assert problem in broken.problem


def test_changed_byte_is_found_by_hadoops_checksum(lake: Any) -> None:
    path = lake.checkpoint("bronze", [{0: 1000}])
    content = (path / "offsets/0").read_bytes() + b" " * 600
    sums = [zlib.crc32(content[:512]), zlib.crc32(content[512:])]
    (path / "offsets/0").write_bytes(content)
    (path / "offsets/.0.crc").write_bytes(b"crc\0" + struct.pack(">iII", 512, *sums))
    assert read(path).broken == []
    (path / "offsets/0").write_bytes(content.replace(b"1000", b"2000"))
    assert [(file.name, "checksum" in file.problem) for file in read(path).broken] == [("offsets/0", True)]


def test_folder_that_is_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is empty or absent"):
        read(tmp_path / "none")
    (tmp_path / "photo.jpg").write_text("x")
    with pytest.raises(CheckpointError, match="holds files of something else"):
        read(tmp_path)
