"""A folder on the disk and one on S3 do the same, also inside wrappers."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.lake.errors import LakehouseError, TransientError, UsageError
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.storage.protocol import Storage, is_empty, read_all, read_if_there
from pipelines.lake.storage.wrappers import Counted, Delayed, Failing, Wrapped


@pytest.fixture(params=["local", "file-uri", "s3", "s3a", "wrapped"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty folder of each kind."""
    if request.param == "local":
        return open_storage(f"{tmp_path}/new/")
    if request.param == "file-uri":
        return open_storage(f"file://{tmp_path}/new")
    if request.param == "wrapped":
        return Counted(Delayed(Failing(Wrapped(open_storage(f"{tmp_path}/new")))))
    uri: str = request.getfixturevalue("bucket")
    return open_storage(f"{uri.replace('s3:', request.param + ':')}/new")


def test_what_is_written_is_listed_and_read_and_deleted(storage: Storage) -> None:
    assert is_empty(storage)
    assert storage.files() == {}
    storage.create("offsets/0", b"\0\xffv1")
    storage.create("metadata", b"")
    assert {name: entry.size for name, entry in storage.files().items()} == {"metadata": 0, "offsets/0": 4}
    assert storage.names() == ["metadata", "offsets"]
    assert not is_empty(storage)
    assert storage.read("offsets/0") == b"\0\xffv1"
    for name in ("offsets/0", "metadata", "metadata"):
        storage.delete(name)
    assert is_empty(storage)


def test_part_of_a_storage_is_listed_alone(storage: Storage) -> None:
    for name in ("g1/offsets/0", "g1/metadata", "g10/metadata", "g1.old"):
        storage.create(name, b"")
    assert storage.names("g1") == ["metadata", "offsets"]
    assert list(storage.files("g1")) == ["g1/metadata", "g1/offsets/0"]
    assert storage.names("g2") == []
    assert storage.files("g2") == {}
    storage.remove("g1")
    assert list(storage.files()) == ["g1.old", "g10/metadata"]
    storage.remove("g1")
    storage.remove()
    assert is_empty(storage)


def test_existing_file_is_never_overwritten_by_create(storage: Storage) -> None:
    storage.create("marker", b"first")
    with pytest.raises(FileExistsError):
        storage.create("marker", b"second")
    assert storage.read("marker") == b"first"
    assert list(storage.files()) == ["marker"]


def test_replace_writes_over_what_is_there_or_is_not(storage: Storage) -> None:
    for content in (b"first", b"", b"third"):
        storage.replace("a/count", content)
        assert storage.read("a/count") == content
    assert list(storage.files()) == ["a/count"]


def test_of_many_that_create_one_file_one_wins(storage: Storage) -> None:
    def create(number: int) -> bool:
        try:
            storage.create("lease", str(number).encode())
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(16)))
    assert won.count(True) == 1
    assert storage.read("lease") == str(won.index(True)).encode()
    assert list(storage.files()) == ["lease"]


def test_file_that_has_gone_is_left_out_of_many_and_an_error_alone(storage: Storage) -> None:
    storage.create("offsets/1", b"1")
    assert read_all(storage, ["offsets/0", "offsets/1"]) == {"offsets/1": b"1"}
    assert read_if_there(storage, "offsets/0") is None
    with pytest.raises(FileNotFoundError):
        storage.read("offsets/0")


_NAMES = st.sampled_from(["a", "b", "d/a", "d/e/b"])
_CALL = st.tuples(st.sampled_from(["create", "replace", "delete", "remove"]), _NAMES, st.binary(max_size=3))
_CALLS = st.lists(_CALL, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_CALLS)
def test_both_backends_hold_what_a_dict_would(tmp_path: Path, bucket: str, calls: list[tuple[str, str, bytes]]) -> None:
    folder = f"run-{os.urandom(6).hex()}"
    both = [open_storage(f"{tmp_path}/{folder}"), open_storage(f"{bucket}/{folder}")]
    expected: dict[str, bytes] = {}
    for call, name, content in calls:
        for storage in both:
            _do(storage, call, name, content, exists=name in expected)
        if call in ("create", "replace"):
            expected[name] = expected.get(name, content) if call == "create" else content
        elif call == "delete":
            expected.pop(name, None)
        else:
            expected = {key: value for key, value in expected.items() if not key.startswith("d/")}
    for storage in both:
        assert read_all(storage, storage.files()) == expected
        assert storage.names() == sorted({key.partition("/")[0] for key in expected})


def _do(storage: Storage, call: str, name: str, content: bytes, *, exists: bool) -> None:
    if call == "delete":
        storage.delete(name)
    elif call == "remove":
        storage.remove("d")
    elif call == "create" and exists:
        with pytest.raises(FileExistsError):
            storage.create(name, content)
    else:
        getattr(storage, call)(name, content)


def test_hadoops_checksum_goes_with_the_file_that_it_is_of(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    for name in ("deleted", "replaced"):
        storage.create(name, b"old")
        (tmp_path / f".{name}.crc").write_bytes(b"crc\0")
    storage.delete("deleted")
    storage.replace("replaced", b"new")
    assert os.listdir(tmp_path) == ["replaced"]


def test_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path))
    storage.create("old", b"old")

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    for write in (storage.create, storage.replace):
        with pytest.raises(LakehouseError, match=r"new cannot be written \(No space left on device\); .* see playbooks/"):
            write("new", b"new")
    with pytest.raises(LakehouseError):
        storage.replace("old", b"new")
    assert os.listdir(tmp_path) == ["old"]
    assert storage.read("old") == b"old"


def test_wrappers_count_and_fail_before_and_after(tmp_path: Path) -> None:
    inner = open_storage(str(tmp_path))
    lost = TransientError("The answer was lost; try again.")
    before = Failing(inner, lambda call, name: lost if (call, name) == ("create", "a") else None)
    with pytest.raises(TransientError):
        before.create("a", b"")
    assert is_empty(inner)
    after = Failing(inner, lambda call, _name: lost if call == "create" else None, is_done=True)
    counted = Counted(after)
    with pytest.raises(TransientError):
        counted.create("a", b"")
    assert counted.names() == ["a"]
    assert counted.calls == Counter(create=1, names=1)
    assert (counted.path, counted.abilities) == (inner.path, inner.abilities)


def test_neighbour_with_the_same_beginning_is_not_part_of_the_folder(bucket: str) -> None:
    open_storage(f"{bucket}/bronze/g10").create("metadata", b"{}")
    assert is_empty(open_storage(f"{bucket}/bronze/g1"))


def test_hadoops_marks_of_folders_are_no_files(bucket: str) -> None:
    client: Any = boto3.client("s3")
    name = bucket.removeprefix("s3://")
    client.put_object(Bucket=name, Key="g2/", Body=b"")
    assert is_empty(open_storage(f"{bucket}/g2"))
    client.put_object(Bucket=name, Key="g2/offsets/", Body=b"")
    assert open_storage(f"{bucket}/g2").files() == {}


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
        open_storage(path).files()


def test_store_that_does_not_answer_is_one_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(LakehouseError, match="cannot be read"):
        open_storage(f"{bucket}/x").files()


def test_file_in_the_place_of_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        is_empty(open_storage(str(tmp_path / "file")))
