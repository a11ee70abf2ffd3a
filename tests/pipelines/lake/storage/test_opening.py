"""Absent, not readable, not understood and damaged are four things, for files and for Delta tables."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import QueryBuilder, write_deltalake

from lakehouse.operations.status.reading import read_status
from pipelines.lake.delta_log.opening import deleted_rows, existing_table, has_table, open_table, require_plain
from pipelines.lake.delta_log.plain_read import rows_dataset
from pipelines.lake.errors import DamagedError, UnknownFeatureError, UnreadableError, UsageError, own_error
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.storage.local_files import as_unreadable, files_below, files_in, is_there, look, names_in, read_text
from pipelines.lake.tables import BRONZE

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_ROWS = {"a": [1, 2, 3, 4]}
_LISTED = {"minReaderVersion": 3, "minWriterVersion": 7}


def _z85(data: bytes) -> str:
    digits = [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]
    return "".join(_Z85[number // 85**power % 85] for number in digits for power in (4, 3, 2, 1, 0))


def _deletion_vector(rows: Sequence[int]) -> dict[str, Any]:
    """A deletion vector that stands in the log itself. Format: Delta's protocol, and the Roaring bitmap's."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + b"".join(struct.pack("<H", row) for row in rows)
    data = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    inline = _z85(data + bytes(-len(data) % 4))
    return {"storageType": "i", "pathOrInlineDv": inline, "sizeInBytes": len(data), "cardinality": len(rows)}


def make_table(
    path: Path,
    protocol: Mapping[str, Any] | None = None,
    configuration: Mapping[str, str] | None = None,
    deleted: Sequence[int] = (),
    physical: str | None = None,
) -> str:
    """A table of four rows whose second commit has these features; `physical`: the name of the column in the data files."""
    write_deltalake(path, pa.table(_ROWS))
    log = path / "_delta_log"
    first = {
        key: action
        for line in (log / f"{0:020}.json").read_text(encoding="utf-8").splitlines()
        for key, action in json.loads(line).items()
    }
    actions: list[dict[str, Any]] = [{"commitInfo": {"operation": "SET TBLPROPERTIES", "timestamp": 1}}]
    actions += [{"protocol": dict(protocol)}] if protocol else []
    if configuration:
        metadata = {**first["metaData"], "configuration": dict(configuration)}
        if physical:
            schema = json.loads(metadata["schemaString"])
            schema["fields"][0]["metadata"] = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": physical}
            metadata["schemaString"] = json.dumps(schema)
        actions.append({"metaData": metadata})
    if deleted:
        add = first["add"]
        actions.append({"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True, "size": add["size"]}})
        actions.append({"add": {**add, "deletionVector": _deletion_vector(deleted)}})
    (log / f"{1:020}.json").write_text("\n".join(json.dumps(action) for action in actions) + "\n", encoding="utf-8")
    return str(path)


def _features(*names: str) -> dict[str, Any]:
    return {**_LISTED, "readerFeatures": list(names), "writerFeatures": list(names)}


def _values(path: str) -> list[int]:
    return sorted(rows_dataset(existing_table(path)).to_table().column("a").to_pylist())


def test_rows_that_a_deletion_vector_takes_out_are_not_counted_and_not_read(tmp_path: Path) -> None:
    settings = load_settings(None, environ={}, overrides={"lake.root": str(tmp_path), "lake.state_dir": str(tmp_path)})
    path = make_table(
        Path(BRONZE.path(settings)), _features("deletionVectors"), {"delta.enableDeletionVectors": "true"}, deleted=[1, 2]
    )
    table = existing_table(path)
    # Another reader sees two rows; the data files have four.
    others = pa.table(QueryBuilder().register("t", table).execute("SELECT a FROM t ORDER BY a").read_all())
    assert others.column("a").to_pylist() == [1, 4]
    assert deleted_rows(table) == 2
    with pytest.raises(UnknownFeatureError, match=r"has deletionVectors, .*playbooks/table-contract.md"):
        rows_dataset(table)
    (found,) = read_status(settings).tables
    assert (found.rows, found.kind) == (2, "not understood")


@pytest.mark.parametrize(
    ("protocol", "configuration"),
    [
        (_features("deletionVectors"), {"delta.enableDeletionVectors": "true"}),
        (_features("columnMapping"), {"delta.columnMapping.mode": "none"}),
        ({"minReaderVersion": 2, "minWriterVersion": 5}, {}),
        (_features("timestampNtz"), {}),
        (_features("variantType", "columnMapping", "timestampNtz"), {}),
        (_features("v2Checkpoint"), {}),
        (_features("vacuumProtocolCheck"), {}),
        (_features("typeWidening"), {"delta.enableTypeWidening": "true"}),
    ],
    ids=["no-vector", "mapping-off", "version-2", "ntz", "listed", "v2-checkpoint", "vacuum-check", "widening"],
)
def test_feature_that_changes_no_row_is_no_obstacle(
    protocol: dict[str, Any], configuration: dict[str, str], tmp_path: Path
) -> None:
    assert _values(make_table(tmp_path / "t", protocol, configuration)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("protocol", "configuration", "named"),
    [
        ({"minReaderVersion": 2, "minWriterVersion": 5}, {"delta.columnMapping.mode": "name"}, "columnMapping"),
        (_features("columnMapping"), {"delta.columnMapping.mode": "id"}, "columnMapping"),
        (_features("somethingNew"), {}, "somethingNew"),
        ({"minReaderVersion": 99, "minWriterVersion": 99}, {}, "reader version 99"),
    ],
    ids=["mapping-by-version", "mapping-by-feature", "new", "version-99"],
)
def test_feature_that_is_not_understood_is_named_and_no_row_is_guessed(
    protocol: dict[str, Any], configuration: dict[str, str], named: str, tmp_path: Path
) -> None:
    path = make_table(tmp_path / "t", protocol, configuration, physical="col-1" if configuration else None)
    with pytest.raises(UnknownFeatureError, match=named):
        require_plain(existing_table(path))


@pytest.mark.parametrize(
    "kind",
    [
        "variant",
        {"type": "array", "elementType": "variant", "containsNull": True},
        {"type": "struct", "fields": [{"name": "in", "type": "variant", "nullable": True, "metadata": {}}]},
    ],
    ids=["column", "array", "struct"],
)
def test_variants_are_refused_where_a_column_has_them(kind: Any, tmp_path: Path) -> None:
    path = make_table(tmp_path / "t", _features("variantType"))
    first = tmp_path / "t" / "_delta_log" / f"{0:020}.json"
    (line,) = [line for line in first.read_text(encoding="utf-8").splitlines() if "metaData" in line]
    metadata = json.loads(line)["metaData"]
    schema = json.loads(metadata["schemaString"])
    schema["fields"].append({"name": "v", "type": kind, "nullable": True, "metadata": {}})
    second = tmp_path / "t" / "_delta_log" / f"{2:020}.json"
    second.write_text(json.dumps({"metaData": {**metadata, "schemaString": json.dumps(schema)}}) + "\n", encoding="utf-8")

    with pytest.raises(UnknownFeatureError, match="variantType"):
        require_plain(existing_table(path))


def test_what_is_not_there_is_absent(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for place in ("nowhere", "empty", "file/below"):
        assert open_table(str(tmp_path / place)) is None
        assert not has_table(str(tmp_path / place))
        assert not [*names_in(tmp_path / place), *files_in(tmp_path / place, "*"), *files_below(tmp_path / place, "*")]
    assert (look(tmp_path / "nowhere"), is_there(tmp_path / "file")) == (None, True)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="There is no Delta table at"):
        existing_table(str(tmp_path / "nowhere"))


def _cut(log: Path) -> None:
    (log / f"{0:020}.json").write_text('{"protocol":')


def _first_commit_gone(log: Path) -> None:
    (log / f"{0:020}.json").unlink()


@pytest.mark.parametrize("damage", [_cut, _first_commit_gone])
def test_log_that_was_read_and_makes_no_sense_is_damaged(damage: Any, tmp_path: Path) -> None:
    path = make_table(tmp_path / "t", _features("v2Checkpoint"))
    damage(tmp_path / "t" / "_delta_log")
    with pytest.raises(DamagedError, match=r"is damaged \(.+\); see playbooks/full-rebuild\.md"):
        open_table(path)


@pytest.mark.parametrize("name", [f"{0:020}.json#1", f".{0:020}.json.5d0c.tmp", f"{0:020}.json.tmp", "_commit_5d0c.json.tmp"])
def test_commit_that_a_writer_prepares_is_no_table_yet(name: str, tmp_path: Path) -> None:
    log = tmp_path / "t" / "_delta_log"
    log.mkdir(parents=True)
    (log / name).write_text("{}")
    assert open_table(str(tmp_path / "t")) is None


def test_table_that_is_being_made_is_absent_and_then_there(tmp_path: Path) -> None:
    """Between two looks of a reader the folder, the log and its first commit come to be."""
    many = 200
    make = (
        "import sys, pyarrow as pa\nfrom deltalake import write_deltalake\n"
        f"for n in range({many}): write_deltalake(f'{{sys.argv[1]}}/t{{n}}', pa.table({{'a': [n]}}))"
    )
    with subprocess.Popen([sys.executable, "-c", make, str(tmp_path)]) as maker:
        deadline = time.monotonic() + 60
        for number in range(many):
            while open_table(str(tmp_path / f"t{number}")) is None:
                assert time.monotonic() < deadline
    assert maker.returncode == 0


def test_error_in_a_trace_of_java_is_the_same_error() -> None:
    for kind in (UnreadableError, UnknownFeatureError, DamagedError):
        assert type(own_error(f"pipelines.lake.errors.{kind.__name__}: A sentence.")) is kind


@contextmanager
def _no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_lack_of_file_handles_is_not_taken_for_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    said = []
    for read in (names_in, lambda path: files_in(path, "*.json"), lambda path: files_below(path, "*.json")):
        with _no_more_files():
            try:
                read(tmp_path)
            except UnreadableError as error:
                said.append(str(error))
    assert said == [f"{tmp_path} is not readable: too many open files; raise the limit (`ulimit -n 4096`), then try again."] * 3


def test_words_of_each_library_for_a_barred_file_are_understood(tmp_path: Path) -> None:
    said = [
        OSError("Kernel error -> x\n\x1b[31m↳\x1b[0m Unable to open file /lake/t/1.json\n Permission denied (os error 13)"),
        OSError("[Errno 13] Failed to open local file '/lake/t/1.json'. Detail: [errno 13] Permission denied"),
        ValueError('IO Error: Cannot open file "/lake/t/1.json": Permission denied'),
        PermissionError(13, "Permission denied", "/lake/t/1.json"),
    ]
    for error in said:
        assert str(as_unreadable(error, "t")).startswith(
            "/lake/t/1.json is not readable: permission denied; run this as the user"
        )
    for other in (OSError("Unexpected end of stream"), FileNotFoundError(2, "No such file"), ValueError("403 rows")):
        assert as_unreadable(other, "t") is None


class _Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(403, "Forbidden", "<Code>AccessDenied</Code>")

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


def test_store_that_refuses_is_not_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UnreadableError, match="s3://bucket/t is not readable: the store refuses access"):
            open_table("s3://bucket/t")
        server.shutdown()
