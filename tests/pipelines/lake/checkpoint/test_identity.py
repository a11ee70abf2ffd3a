"""Checkpoints know whose they are, and refuse everybody else before anything is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake.checkpoint.identity import MARKER, open_checkpoint
from pipelines.lake.checkpoint.progress import planned_offsets
from pipelines.lake.errors import EXIT_USAGE, CheckpointError, UsageError
from pipelines.lake.lease.checkpoints import checkpoint_holder
from pipelines.lake.storage.backends import open_storage

OWN: dict[str, Any] = {"job": "silver", "source": "bronze-id", "target": "silver-id"}


def test_checkpoint_keeps_its_generation(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    first = open_checkpoint(path, **OWN)
    first.lock.release()
    again = open_checkpoint(path, **OWN)
    again.lock.release()
    other = open_checkpoint(str(tmp_path / "b"), **OWN)

    assert first.is_new
    assert (again.generation, again.app_id()) == (first.generation, first.app_id())
    assert other.generation != first.generation
    offsets = tmp_path / "a" / "offsets"
    offsets.mkdir()
    (offsets / ".0.tmp").touch()  # what a driver that died at its start leaves
    assert open_checkpoint(path, **OWN).is_new
    (offsets / "0").touch()
    assert not open_checkpoint(path, **OWN).is_new


def test_second_run_on_a_checkpoint_is_refused_in_the_same_process_too(tmp_path: Path) -> None:
    with (
        open_checkpoint(str(tmp_path), **OWN).lock,
        pytest.raises(UsageError, match=rf"in use by silver \(.*, pid {os.getpid()} "),
    ):
        open_checkpoint(str(tmp_path), **OWN)
    held = open_checkpoint(str(tmp_path), **OWN)
    with held.lock.released_on_error():
        assert open_checkpoint(str(tmp_path), **OWN, lock=held.lock).generation == held.generation
    assert checkpoint_holder(str(tmp_path)) is not None
    with pytest.raises(KeyError), held.lock.released_on_error():
        raise KeyError
    assert checkpoint_holder(str(tmp_path)) is None


@pytest.mark.parametrize("key", ["job", "source", "target"])
def test_checkpoint_of_somebody_else_is_refused(tmp_path: Path, key: str) -> None:
    open_checkpoint(str(tmp_path), **OWN)
    before = (tmp_path / MARKER).read_bytes()

    with pytest.raises(CheckpointError, match=f"belongs to {key} {OWN[key]}, expected other") as caught:
        open_checkpoint(str(tmp_path), **{**OWN, key: "other"})
    assert caught.value.exit_code == EXIT_USAGE
    assert (tmp_path / MARKER).read_bytes() == before


def test_checkpoint_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    open_checkpoint(str(tmp_path), **OWN)
    marker = tmp_path / MARKER
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 2, "epoch": 1}))
    (tmp_path / f".{MARKER}.crc").unlink()
    before = marker.read_bytes()

    with pytest.raises(
        CheckpointError, match=r"newer version of this project \(lakehouse.json has epoch, format, which"
    ) as caught:
        open_checkpoint(str(tmp_path), **OWN)
    assert caught.value.exit_code == EXIT_USAGE
    assert marker.read_bytes() == before


def test_starting_offsets_on_a_used_checkpoint_are_refused_unless_its_own(tmp_path: Path) -> None:
    open_checkpoint(str(tmp_path), **OWN, starting='{"0":5}')

    assert open_checkpoint(str(tmp_path), **OWN, starting='{"0":5}').starting == '{"0":5}'
    assert open_checkpoint(str(tmp_path), **OWN).starting == '{"0":5}'
    with pytest.raises(CheckpointError, match="other offsets, dates or --on-conflict have no effect"):
        open_checkpoint(str(tmp_path), **OWN, starting='{"0":6}')


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x", encoding="utf-8")

    with pytest.raises(CheckpointError, match="holds files of something else, expected a checkpoint of silver"):
        open_checkpoint(str(tmp_path), **OWN)
    assert not (tmp_path / MARKER).exists()


def test_planned_offsets_are_read_from_sparks_log(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(tmp_path), **OWN)
    for path, offsets in (("sources/0/0", [5, 7]), ("offsets/0", [10, 7]), ("offsets/1", [12, 9, 4])):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        by_partition = {str(partition): offset for partition, offset in enumerate(offsets)}
        about = "" if path == "sources/0/0" else '{"batchTimestampMs":1}\n'
        (tmp_path / path).write_text(f"v1\n{about}{json.dumps({'topic': by_partition})}\n", encoding="utf-8")

    assert planned_offsets(checkpoint.path, 0) == ({0: 5, 1: 7}, {0: 10, 1: 7})
    assert planned_offsets(checkpoint.path, 1) == ({0: 10, 1: 7}, {0: 12, 1: 9, 2: 4})


@pytest.mark.parametrize("text", ["", '{"job": "sil', "[]", '{"job": "silver"}'])
def test_cut_marker_is_one_sentence_and_stays(tmp_path: Path, text: str) -> None:
    open_checkpoint(str(tmp_path), **OWN)
    (tmp_path / MARKER).write_text(text)
    (tmp_path / f".{MARKER}.crc").unlink()

    with pytest.raises(CheckpointError, match=r"lakehouse\.json of the checkpoint .*checkpoint-lost\.md") as caught:
        open_checkpoint(str(tmp_path), **OWN)
    assert "\n" not in str(caught.value)
    assert (tmp_path / MARKER).read_text() == text


def test_flipped_bit_is_found_by_the_checksum_beside_it(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(tmp_path), **OWN)
    marker = tmp_path / MARKER
    marker.write_text(marker.read_text().replace(checkpoint.generation, "0123456789ab"))

    with pytest.raises(CheckpointError, match=r"lakehouse\.json of the checkpoint .* differs from Hadoop's checksum"):
        open_checkpoint(str(tmp_path), **OWN)


def test_marker_that_was_being_written_when_its_driver_died_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f".{MARKER}.0123.tmp").write_text('{"job": "sil')

    assert open_checkpoint(str(tmp_path), **OWN).is_new
    assert json.loads((tmp_path / MARKER).read_text())["job"] == "silver"
    with pytest.raises(FileExistsError):
        open_storage(str(tmp_path)).create(MARKER, b"{}")
