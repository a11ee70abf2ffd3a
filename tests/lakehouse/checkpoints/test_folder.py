"""A folder on the disk and one on S3 do the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from lakehouse.checkpoints.folder import Folder, open_folder, read_all
from pipelines.lake.errors import LakehouseError, UsageError


@pytest.fixture(params=["local", "file-uri", "s3", "s3a"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """An empty folder of each kind."""
    if request.param == "local":
        return open_folder(f"{tmp_path}/new/")
    if request.param == "file-uri":
        return open_folder(f"file://{tmp_path}/new")
    uri: str = request.getfixturevalue("bucket")
    return open_folder(f"{uri.replace('s3:', request.param + ':')}/new")


def test_what_is_written_is_listed_and_read_and_deleted(folder: Folder) -> None:
    assert folder.is_empty()
    assert folder.files() == {}
    folder.write_new("offsets/0", b"\0\xffv1")
    folder.write_new("metadata", b"")
    assert {name: entry.size for name, entry in folder.files().items()} == {"metadata": 0, "offsets/0": 4}
    assert not folder.is_empty()
    assert folder.read("offsets/0") == b"\0\xffv1"
    for name in ("offsets/0", "metadata"):
        folder.delete(name)
    assert folder.is_empty()


def test_existing_file_is_never_overwritten(folder: Folder) -> None:
    folder.write_new("marker", b"first")
    with pytest.raises(FileExistsError):
        folder.write_new("marker", b"second")
    assert folder.read("marker") == b"first"


def test_file_that_has_gone_is_left_out_of_many_and_an_error_alone(folder: Folder) -> None:
    folder.write_new("offsets/1", b"1")
    assert read_all(folder, ["offsets/0", "offsets/1"]) == {"offsets/1": b"1"}
    with pytest.raises(FileNotFoundError):
        folder.read("offsets/0")


def test_neighbour_with_the_same_beginning_is_not_part_of_the_folder(bucket: str) -> None:
    open_folder(f"{bucket}/bronze/g10").write_new("metadata", b"{}")
    assert open_folder(f"{bucket}/bronze/g1").is_empty()


def test_hadoops_marks_of_folders_are_no_files(bucket: str) -> None:
    client: Any = boto3.client("s3")
    name = bucket.removeprefix("s3://")
    client.put_object(Bucket=name, Key="g2/", Body=b"")
    assert open_folder(f"{bucket}/g2").is_empty()
    client.put_object(Bucket=name, Key="g2/offsets/", Body=b"")
    assert open_folder(f"{bucket}/g2").files() == {}


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("hdfs://host/x", "has the scheme hdfs"),
        ("s3://bucket", "names no folder"),
        ("s3://no-such-bucket-here/x", "does not exist"),
    ],
)
def test_wrong_uri_is_one_sentence(path: str, sentence: str, bucket: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        open_folder(path).files()


def test_store_that_does_not_answer_is_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(LakehouseError, match="cannot be read"):
        open_folder(f"{bucket}/x").files()


def test_file_in_the_place_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        open_folder(str(tmp_path / "file")).is_empty()
