"""Opens Delta tables for plain reads, and tells absent, not readable, not understood and damaged apart.

Absent is None; the other three are UnreadableError, UnknownFeatureError and DamagedError. deltalake's TableNotFoundError calls a
folder absent that this user may not search.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote

import deltalake
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from pipelines.lake.delta_log.versions import LOG_FILE
from pipelines.lake.errors import DamagedError, LakehouseError, UnknownFeatureError, UnreadableError, UsageError
from pipelines.lake.places import is_local, place_of
from pipelines.lake.playbooks import page_for_files_of, path_of, table_in
from pipelines.lake.storage.local_files import as_unreadable, is_absent, look, names_in, said_by, told_apart, unreadable

_UNKNOWN_FEATURES = re.compile(
    r"Feature '(\w[\w-]*)' is not supported|(minimum reader version \d+)|table features required: \[([^\]]*)\]"
    r"|([Cc]olumn mapping|catalog-managed)"
)


def open_table(path: str, version: int | None = None) -> DeltaTable | None:
    """Open the log of the Delta table at `path`, without reading a row; None where there is no table.

    Raises UnreadableError, UnknownFeatureError, DamagedError. What its rows need beyond that, `require_plain` looks at.
    """
    table, error = _try_open(path, version)
    if error is not None and _has_commits(path, error):
        # A table that is being made has its first commit between the two looks. What a second one does not find is lost.
        table, error = _try_open(path, version)
        if error is not None:
            raise _damaged(path, error)
    return table


def _try_open(path: str, version: int | None) -> tuple[DeltaTable | None, TableNotFoundError | None]:
    try:
        return deltalake.DeltaTable(path, version=version), None
    except TableNotFoundError as error:
        return None, error
    except (DeltaError, OSError, ValueError) as error:
        raise _told(path, error) from None


def existing_table(path: str, version: int | None = None) -> DeltaTable:
    """`open_table` where there has to be one. Raises UsageError where there is none."""
    table = open_table(path, version)
    if table is None:
        msg = f"There is no Delta table at {path}; run the job that writes it first, or correct `lake.root`."
        raise UsageError(msg)
    return table


def has_table(path: str) -> bool:
    """Whether a Delta table lies at `path`; raises as `open_table`, where nobody can tell."""
    return open_table(path) is not None


def require_plain(table: DeltaTable) -> None:
    """Raise UnknownFeatureError where the table's data files alone are not its rows.

    Read rightly: widened types, times without a zone, checkpoints of the second version; deletion vectors that are switched
    on while no file has one; column mapping that is off; variants that no column has. The version counts as well as the list:
    a table with column mapping and reader version 2 has no list.
    """
    unknown = reader_features(table) - _PLAIN
    if not maps_columns(table.metadata().configuration):
        unknown.discard("columnMapping")
    if "variantType" in unknown and not has_variants(table):
        unknown.discard("variantType")
    if "deletionVectors" in unknown and not deleted_rows(table):
        unknown.discard("deletionVectors")
    if unknown:
        raise _unknown(place_of(table), sorted(unknown))


def reader_features(table: DeltaTable) -> set[str]:
    """Table features that a reader of the table has to know; earlier protocols said it by a number, 2 is column mapping."""
    protocol = table.protocol()
    return {"columnMapping"} if protocol.min_reader_version == 2 else set(protocol.reader_features or ())


def maps_columns(properties: Mapping[str, str]) -> bool:
    """Whether a table with these properties uses column mapping: writers list the feature though it is off."""
    return properties.get(COLUMN_MAPPING, "none") != "none"


def has_variants(table: DeltaTable) -> bool:
    """Whether a column, or a part of one, is a variant: writers list the feature though none is."""
    return _is_variant(json.loads(table.schema().to_json()))


def _is_variant(part: object) -> bool:
    """Whether a part of a schema as the log has it is a variant, or holds one."""
    if isinstance(part, list):
        return any(_is_variant(one) for one in part)
    if not isinstance(part, dict):
        return part == "variant"
    return any(_is_variant(part.get(key)) for key in ("fields", "type", "elementType", "keyType", "valueType"))


COLUMN_MAPPING = "delta.columnMapping.mode"
_PLAIN = {"timestampNtz", "v2Checkpoint", "v2Checkpoint-preview", "vacuumProtocolCheck", "typeWidening", "typeWidening-preview"}
"""Features that change nothing for who reads the data files by the table's schema (each tried)."""


def deleted_rows(table: DeltaTable) -> int:
    """How many rows of the data files deletion vectors take out."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return 0

    with told_apart(place_of(table)):
        vectors = pa.table(table.deletion_vectors()).column("selection_vector")
    return sum(len(vector.values) - (pa.compute.sum(vector.values).as_py() or 0) for vector in vectors)


def _has_commits(path: str, error: Exception) -> bool:
    """Whether a log is there, where deltalake found no table; raises UnreadableError where deltalake could not look."""
    if not is_local(path):
        refused = as_unreadable(error, path)
        if refused is not None:
            raise refused
        return False
    log = f"{path}/_delta_log"
    return look(log) is not None and any(LOG_FILE.fullmatch(name) for name in names_in(log))


def _told(path: str, error: Exception) -> LakehouseError:
    text = _reason(error)
    unknown = _UNKNOWN_FEATURES.search(text)
    if unknown is not None:
        return _unknown(path, [next(group for group in unknown.groups() if group)])
    return as_unreadable(error, path) or _barred_log(path) or _damaged(path, error)


def _barred_log(path: str) -> UnreadableError | None:
    """The first part of a local table's log that is not readable: readers may say it in words of their own."""
    if not is_local(path):
        return None
    place = f"{path}/_delta_log"
    try:
        for name in names_in(place):
            with suppress(FileNotFoundError), open(f"{place}/{name}", "rb"):
                pass
    except OSError as error:
        return as_unreadable(error, place)
    except UnreadableError as error:
        return error
    return None


def require_seen(path: str) -> None:
    """Raise UnreadableError where this user may not read one of the files of the local table at `path`.

    Before it is judged by what Spark says of reading it: missing or cut files are damage, these are not.
    """
    table = open_table(path) if is_local(path) else None
    for uri in table.file_uris() if table is not None else ():
        place = unquote(uri.removeprefix("file://"))
        try:
            with open(place, "rb"):
                pass
        except OSError as error:
            if not is_absent(error):
                raise unreadable(place, error) from None


def _unknown(path: str, features: list[str]) -> UnknownFeatureError:
    place = path.removeprefix("file://").rstrip("/")
    msg = (
        f"The table {place} has {', '.join(features)}, which the readers without Spark do not understand, so its rows were not "
        "read; `lakehouse sql` reads them, and playbooks/table-contract.md says how to switch it off."
    )
    return UnknownFeatureError(msg)


def _damaged(path: str, error: Exception) -> DamagedError:
    page = path_of(page_for_files_of(table_in(path) or ""))
    msg = f"The log of the table {path} is damaged ({_reason(error)[:200]}); see {page}."
    return DamagedError(msg)


def _reason(error: Exception) -> str:
    lines = (line.strip().lstrip("↳").strip() for line in said_by(error).splitlines())
    return ": ".join(line for line in lines if line)
