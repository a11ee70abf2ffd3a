"""What a rebuild would read and write, and whether there is room; read without a JVM."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from pipelines.archive.guard import refuse_archived
from pipelines.lake.delta_log.opening import open_table
from pipelines.lake.errors import DamagedError, UsageError
from pipelines.lake.event_schema import read_schemas
from pipelines.lake.job_tables import JOBS
from pipelines.lake.places import is_local
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.storage.local_files import is_there, names_in, read_text
from pipelines.lake.tables import DLQ, TableName

MANIFEST = "rebuild.json"
"""File of a rebuild's folder that says what it is: only such a folder is ever replaced or removed."""

SOURCES = {job: tables.source for job, tables in JOBS.items() if tables.source is not None}
"""The table that each layer is rebuilt from."""
_MARGIN = 1.2
_CODE = ("pipelines/**/*.py", "lakehouse/operations/rebuild/rebuild.py", "build/jars/spark/usage-lakehouse-*.jar")


@dataclass(frozen=True)
class RebuildPlan:
    """A rebuild of the tables of `layer` in `folder`, from `source_version` of the layer before; sizes are bytes.

    `is_done`: the folder holds this very rebuild already. `versions`: of the live tables that there are. `rules`: digest of the
    settings, event schemas and decisions that the result depends on.
    """

    layer: str
    folder: str
    source_path: str
    source_version: int
    records: int | None
    size: int
    free: int | None
    versions: dict[TableName, int]
    rules: str
    is_done: bool = False

    @property
    def source(self) -> TableName:
        """The table that is read."""
        return SOURCES[self.layer]

    @property
    def targets(self) -> tuple[TableName, ...]:
        """The tables that are built anew."""
        return JOBS[self.layer].outputs

    def settings(self, live: Settings) -> Settings:
        """The live settings with tables and checkpoints under the rebuild's folder."""
        lake = live.lake.model_copy(update={"root": f"{self.folder}/lake", "checkpoints": f"{self.folder}/checkpoints"})
        # A flood that was accepted is no reason to stop again, and `breaker reset` would not reach this folder.
        breaker = live.breaker.model_copy(update={"enabled": False})
        # A rebuild has no supervisor that tries a batch again: poison is looked for when it fails first.
        retries = live.retries.model_copy(update={"attempts": 1})
        return live.model_copy(update={"lake": lake, "breaker": breaker, "retries": retries})

    def manifest(self, state: str) -> str:
        """Text of the manifest: `begun`, or `built`."""
        return json.dumps(_said(self.layer, self.source_path, self.source_version, self.rules, state))


def plan_rebuild(settings: Settings, layer: str, into: str | None, *, swap: bool) -> RebuildPlan:
    """Look at source, live tables and disk; nothing is written.

    Raises UsageError: a layer that is not rebuilt, no source table, records that are in the archive alone, a folder of
    something else, no room.
    """
    if layer not in SOURCES:
        msg = f"`{layer[:40]}` cannot be rebuilt, expected silver or gold; Bronze is what they are rebuilt from."
        raise UsageError(msg)
    folder = (into or f"{settings.lake.root.rstrip('/')}.rebuild-{layer}").rstrip("/")
    source = SOURCES[layer]
    # Before the source: what a stream that still runs writes from later versions of that changes these, and is refused.
    found = {name: opened for name in JOBS[layer].outputs if (opened := _open(name.path(settings))) is not None}
    table = _open(source.path(settings))
    if table is None:
        msg = f"There is no Delta table {source} at {source.path(settings)} to rebuild {layer} from; correct `lake.root`."
        raise UsageError(msg)
    if layer == "silver":
        refuse_archived(settings)
    records, source_size = _statistics(table)
    size = max(source_size, sum(_statistics(opened)[1] for opened in found.values()))
    versions = {name: opened.version() for name, opened in found.items()}
    rules = _rules(settings, versions)
    plan = RebuildPlan(
        layer=layer,
        folder=folder,
        source_path=source.path(settings),
        source_version=table.version(),
        records=records,
        size=size,
        free=_free(folder),
        versions=versions,
        rules=rules,
        is_done=_is_done(folder, _said(layer, source.path(settings), table.version(), rules, "built")),
    )
    _refuse_full(plan, settings.lake.root, swap=swap)
    return plan


def _refuse_full(plan: RebuildPlan, root: str, *, swap: bool) -> None:
    """Raise UsageError where a disk is too small: the rebuild lies in its folder, the swap writes it once more below `root`."""
    needs = [(plan.folder, 0 if plan.is_done else plan.size), (root, plan.size if swap else 0)]
    for place, size in needs:
        free = _free(place)
        if free is None or not size:
            continue
        needed = sum(more for other, more in needs if _free(other) is not None and _device(other) == _device(place)) * _MARGIN
        if free < needed:
            msg = (
                f"The rebuild of {plan.layer} needs about {needed / 1e6:,.0f} MB at {place}, but {free / 1e6:,.0f} MB are free; "
                "make room, or give a folder on another disk with --into."
            )
            raise UsageError(msg)


def _open(path: str) -> DeltaTable | None:
    try:
        return open_table(path)
    except DamagedError as error:
        msg = f"{error} Or move the folder away: its job then makes the table anew."
        raise UsageError(msg) from None


def _statistics(table: DeltaTable) -> tuple[int | None, int]:
    """Rows (None where the log has no statistics) and bytes."""
    adds = pa.table(table.get_add_actions(flatten=True))
    rows: list[Any] = adds.column("num_records").to_pylist() if "num_records" in adds.column_names else []
    known = len(rows) == adds.num_rows and None not in rows
    return (sum(rows) if known else None), sum(adds.column("size_bytes").to_pylist())


def _said(layer: str, source: str, version: int, rules: str, state: str) -> dict[str, Any]:
    return {"layer": layer, "source": source, "source_version": version, "rules": rules, "state": state}


def _rules(settings: Settings, versions: Mapping[TableName, int]) -> str:
    # Which dead letters are discarded decides too, and the code: what a bad version built must not be taken for its mended one's.
    text = f"{settings.silver.model_dump_json()} {read_schemas(settings.schemas_dir).rules()} {versions.get(DLQ)} {_code()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code() -> str:
    """Digest of the code that a rebuild's rows depend on."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in _CODE for path in PROJECT.glob(pattern)):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(PROJECT)} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _is_done(folder: str, wanted: dict[str, Any]) -> bool:
    """Whether `folder` holds the rebuild that is `wanted`; raises UsageError where it holds something else than a rebuild."""
    if not is_local(folder) or not is_there(folder):
        return False
    try:
        said = json.loads(read_text(Path(folder) / MANIFEST))
    except (OSError, ValueError):
        if not Path(folder).is_dir() or names_in(folder):
            msg = f"The folder {folder} holds something else than a rebuild; give another one with --into."
            raise UsageError(msg) from None
        return False
    return bool(said == wanted)


def _free(folder: str) -> int | None:
    """Free bytes where `folder` will lie; None for an object store."""
    if not is_local(folder):
        return None
    return shutil.disk_usage(_existing(folder)).free


def _device(folder: str) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: str) -> Path:
    place = Path(folder).absolute()
    while not is_there(place):
        place = place.parent
    return place
