"""I7 and I8: logs and files of every table, read without its reader where that is possible."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lakehouse.proof.lake import Lake
from lakehouse.proof.result import FIRST, Finding, Invariant
from pipelines.lake.delta_log.file_facts import file_facts
from pipelines.lake.places import place_of
from pipelines.lake.storage.arrow_storage import table_storage
from pipelines.lake.storage.local_files import told_apart

_COMMIT_DIGITS = 20
_BATCH_ROWS = 32_768
_OF_A_FILE = ("path", "size_bytes", "num_records")


def check_storage(lake: Lake) -> Invariant:
    """I7: versions are contiguous, every file of the current version is there in full, sound, and agrees with the log."""
    result = Invariant("I7", "tables are sound: versions contiguous, files there, footers and pages readable")
    files = 0
    for name, table in lake.tables.items():
        storage = table_storage(table)
        commits = dict(_commits(storage))
        problems = {
            "version missing in the log": _missing_versions(storage, list(commits), table.version()),
            "commit without a byte": [f"version={version}" for version, info in commits.items() if not info.size],
            "data file": [],
        }
        adds = file_facts(table, _OF_A_FILE).to_pylist()
        problems["data file"] = [problem for add in adds if (problem := _file_problem(storage, table, add))]
        files += len(adds)
        for problem, offenders in problems.items():
            if offenders:
                result.findings.append(Finding(f"{name}: {problem}", len(offenders), tuple(offenders[:FIRST])))
    result.counts = {"tables": len(lake.tables), "files": files}
    return result


def check_transactions(lake: Lake) -> Invariant:
    """I8: for each application id the transaction version rises with every commit that carries it."""
    result = Invariant("I8", "a sink's transaction version is monotone")
    seen = 0
    for name, table in lake.tables.items():
        storage = table_storage(table)
        last: dict[str, int] = {}
        offenders = []
        for version, info in _commits(storage):
            if version > table.version():
                continue
            for app, transaction in _transactions(storage, info.path):
                seen += 1
                if transaction <= last.get(app, -1):
                    offenders.append(f"version={version} app={app} transaction {last[app]} -> {transaction}")
                last[app] = transaction
        if offenders:
            result.findings.append(
                Finding(f"{name}: transaction version does not rise", len(offenders), tuple(offenders[:FIRST]))
            )
    result.counts = {"transactions": seen}
    return result


def _commits(storage: pa_fs.FileSystem) -> Iterator[tuple[int, pa_fs.FileInfo]]:
    """Version, and path and size, of each commit file in the log, in order."""
    for info in sorted(_log_files(storage), key=lambda info: info.base_name):
        stem, _, suffix = info.base_name.partition(".")
        if suffix == "json" and len(stem) == _COMMIT_DIGITS and stem.isdigit():
            yield int(stem), info


def _log_files(storage: pa_fs.FileSystem) -> list[pa_fs.FileInfo]:
    with told_apart("_delta_log"):
        found: list[pa_fs.FileInfo] = storage.get_file_info(pa_fs.FileSelector("_delta_log"))
    return found


def _missing_versions(storage: pa_fs.FileSystem, versions: list[int], newest: int) -> list[str]:
    """Versions without a commit file, from the first kept one on; that is 0 unless a checkpoint stands for the rest."""
    first = versions[0] if versions else 0
    if first > 0:
        names = [info.base_name for info in _log_files(storage)]
        checkpoints = [int(name[:_COMMIT_DIGITS]) for name in names if ".checkpoint" in name and name[:_COMMIT_DIGITS].isdigit()]
        if not any(first - 1 <= checkpoint for checkpoint in checkpoints):
            first = 0
    return [f"version={version}" for version in sorted(set(range(first, newest + 1)) - set(versions))]


def _file_problem(storage: pa_fs.FileSystem, table: DeltaTable, add: dict[str, Any]) -> str | None:
    path, place = add["path"], f"{place_of(table).rstrip('/')}/{add['path']}"
    with told_apart(place):
        info = storage.get_file_info([path])[0]
    if info.type != pa_fs.FileType.File:
        return f"{path} is missing"
    if info.size != add["size_bytes"]:
        return f"{path} has {info.size} bytes, the log says {add['size_bytes']}"
    try:
        with told_apart(place), storage.open_input_file(path) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            rows = parquet.metadata.num_rows
            if add.get("num_records") is not None and rows != add["num_records"]:
                return f"{path} has {rows} rows, the log says {add['num_records']}"
            return _page_problem(path, parquet)
    except (pa.ArrowException, OSError) as error:
        return f"{path} has no readable footer ({type(error).__name__})"


def _page_problem(path: str, parquet: pq.ParquetFile) -> str | None:
    """Read all columns: Spark writes a checksum with each page, which a flipped bit does not fit."""
    try:
        with told_apart(path):
            for _ in parquet.iter_batches(batch_size=_BATCH_ROWS):
                pass
    except (pa.ArrowException, OSError) as error:
        return f"{path} is damaged ({str(error).splitlines()[0][:120]})"
    return None


def _transactions(storage: pa_fs.FileSystem, path: str) -> Iterator[tuple[str, int]]:
    with told_apart(path), storage.open_input_stream(path) as stream:
        text = stream.read().decode("utf-8")
    for line in text.splitlines():
        if '"txn"' in line:
            transaction = json.loads(line).get("txn")
            if transaction:
                yield transaction["appId"], transaction["version"]
