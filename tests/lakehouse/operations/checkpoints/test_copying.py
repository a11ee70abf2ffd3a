"""A copy is exact, or goes on under a new name; what was there before is never touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse.operations.checkpoints.copying import plan_copy, write_copy
from lakehouse.operations.checkpoints.reading import read_checkpoint
from lakehouse.operations.checkpoints.verify import verify_checkpoint
from pipelines.lake.checkpoint.failures import NAME
from pipelines.lake.errors import CheckpointError, LakehouseError
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import Storage, is_empty
from pipelines.lake.tables import BRONZE


def contents(folder: Storage) -> dict[str, bytes]:
    return {name: folder.read(name) for name in folder.files()}


@pytest.fixture
def source(lake: Any) -> Storage:
    """A checkpoint of Bronze with two batches and a checksum beside two of its files."""
    path = lake.checkpoint("bronze", [{0: 1}, {0: 2}])
    for name in (".metadata.crc", "offsets/.1.crc"):
        (path / name).write_bytes(b"crc\0\0\0\2\0")
    return open_storage(str(path))


def test_copy_to_s3_and_back_is_the_same_byte_for_byte(lake: Any, source: Storage, bucket: str, tmp_path: Path) -> None:
    there, back = open_storage(f"{bucket}/backup/g1"), open_storage(str(tmp_path / "back"))
    write_copy(plan_copy(lake.settings, source, there))
    write_copy(plan_copy(lake.settings, there, back))
    assert contents(back) == contents(there) == contents(source)
    assert len(contents(back)) == 9


def test_new_generation_changes_marker_and_query_id_alone(lake: Any, source: Storage, tmp_path: Path) -> None:
    target = open_storage(str(tmp_path / "g2"))
    source.create("lakehouse-failures.json", b'{"batch": 2, "count": 5}')  # the source's stream's own story
    plan = plan_copy(lake.settings, source, target, new_generation=True)
    write_copy(plan)
    before, after = contents(source), contents(target)
    assert before.keys() - after.keys() == {".metadata.crc", NAME}
    assert {name for name in after if after[name] != before[name]} == {"lakehouse.json", "metadata"}
    old, new = (json.loads(found["lakehouse.json"]) for found in (before, after))
    assert {key for key in old if old[key] != new[key]} == {"generation"}
    assert new["generation"] == plan.generation
    assert len(new["generation"]) == 12
    assert read_checkpoint(source).query_id != read_checkpoint(target).query_id


def test_new_generation_is_out_of_the_trap_in_which_the_copy_is(lake: Any, source: Storage, tmp_path: Path) -> None:
    lake.append(BRONZE, batch=5)
    exact, fresh = open_storage(str(tmp_path / "exact")), open_storage(str(tmp_path / "fresh"))
    write_copy(plan_copy(lake.settings, source, exact))
    write_copy(plan_copy(lake.settings, source, fresh, new_generation=True))
    ids = [[one.id for one in verify_checkpoint(lake.settings, folder).findings] for folder in (exact, fresh)]
    assert "behind-table" in ids[0]
    assert "behind-table" not in ids[1]


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_target_that_is_not_empty_is_refused_and_stays(
    kind: str, lake: Any, source: Storage, request: Any, tmp_path: Path
) -> None:
    root = request.getfixturevalue("bucket") if kind == "s3" else str(tmp_path)
    target = open_storage(f"{root}/taken")
    target.create("something", b"else")
    with pytest.raises(CheckpointError, match="is not empty"):
        plan_copy(lake.settings, source, target)
    assert contents(target) == {"something": b"else"}


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_copy_that_meets_a_rival_takes_its_own_files_back(
    kind: str, lake: Any, source: Storage, request: Any, tmp_path: Path
) -> None:
    root = request.getfixturevalue("bucket") if kind == "s3" else str(tmp_path)
    target = open_storage(f"{root}/contested")
    plan = plan_copy(lake.settings, source, target)
    target.create("offsets/1", b"the rival's")
    with pytest.raises(CheckpointError, match="Somebody else writes"):
        write_copy(plan)
    assert contents(target) == {"offsets/1": b"the rival's"}


def test_source_that_changes_meanwhile_is_not_copied(lake: Any, source: Storage, tmp_path: Path) -> None:
    target = open_storage(str(tmp_path / "new"))
    plan = plan_copy(lake.settings, source, target)
    source.delete("offsets/0")
    with pytest.raises(LakehouseError, match="offsets/0 is gone"):
        write_copy(plan)
    assert is_empty(target)


def test_checkpoint_without_marker_or_query_id_gets_no_new_generation(lake: Any, source: Storage, tmp_path: Path) -> None:
    target = open_storage(str(tmp_path / "new"))
    (Path(source.path) / "metadata").write_text("")
    with pytest.raises(CheckpointError, match="no readable file `metadata`"):
        plan_copy(lake.settings, source, target, new_generation=True)
    source.delete("lakehouse.json")
    with pytest.raises(CheckpointError, match=r"no readable file lakehouse\.json"):
        plan_copy(lake.settings, source, target, new_generation=True)
    assert plan_copy(lake.settings, source, target).files == 8


def test_marker_of_a_newer_version_is_copied_as_it_is_and_never_written_anew(lake: Any, source: Storage, tmp_path: Path) -> None:
    newer = {**json.loads(source.read("lakehouse.json")), "epoch": 7}
    source.replace("lakehouse.json", json.dumps(newer).encode())
    target = open_storage(str(tmp_path / "new"))
    with pytest.raises(CheckpointError, match=r"no readable file lakehouse\.json"):
        plan_copy(lake.settings, source, target, new_generation=True)
    write_copy(plan_copy(lake.settings, source, target))
    assert json.loads(target.read("lakehouse.json")) == newer
