"""Another version of the project or its settings comes to an old checkpoint; a source beside the data path is down."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession

from lakehouse.local.kafka_broker import EmbeddedBroker
from lakehouse.operations.streams import STREAMS, run_to_end
from pipelines.lake.checkpoint.identity import MARKER
from pipelines.lake.errors import EXIT_USAGE, CheckpointError, StreamFailedError
from pipelines.lake.resources import PROJECT
from pipelines.lake.settings import Settings
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.tables import ALL_TABLES, LEDGER, SILVER
from tests.faults.conftest import LakeCase, make_case
from tests.faults.evidence import Evidence
from tests.faults.live import Driver, await_no_lag, produce, read_so_far, until, up

pytestmark = pytest.mark.faults

SCHEMAS = PROJECT / "conf/schemas/api_usage_events"


def _schemas_in(folder: Path) -> Path:
    shutil.copytree(SCHEMAS, folder / "schemas")
    return folder / "schemas"


def _add_version(schemas: Path) -> Path:
    first = json.loads((schemas / "1.0.json").read_text(encoding="utf-8"))
    cached = {"name": "cached", "type": "boolean", "required": False, "doc": "Whether a cache answered."}
    path = schemas / "1.1.json"
    path.write_text(json.dumps({**first, "version": "1.1", "fields": [*first["fields"], cached]}), encoding="utf-8")
    return path


def _rewrite(path: Path, text: str) -> None:
    """Write a file of a checkpoint anew; Hadoop's checksum of the old one goes."""
    path.write_text(text)
    path.with_name(f".{path.name}.crc").unlink(missing_ok=True)


def _run(spark: SparkSession, settings: Settings) -> None:
    run_to_end(spark, settings, list(STREAMS), threading.Event())


def _versions(case: LakeCase) -> dict[str, int]:
    paths = {str(name): name.path(case.settings) for name in ALL_TABLES}
    return {name: DeltaTable(path).version() for name, path in paths.items() if DeltaTable.is_deltatable(path)}


@pytest.mark.case("C5")
def test_upgrade_and_rollback_go_on_at_the_old_checkpoint(
    spark: SparkSession, broker: EmbeddedBroker, tmp_path: Path, fault_seed: int, evidence: Evidence
) -> None:
    schemas = _schemas_in(tmp_path)
    case = make_case(tmp_path, broker.bootstrap_servers, events=600, seed=fault_seed, schemas_dir=str(schemas))
    _run(spark, case.settings)
    # As the first versions wrote it: without the tables' versions.
    for marker in Path(case.settings.lake.checkpoints).glob(f"*/g1/{MARKER}"):
        tree = json.loads(marker.read_text())
        tree.pop("versions", None)
        _rewrite(marker, json.dumps(tree))

    # The upgrade: other batches, other shuffles, a field more, a ledger with a column that this version does not know.
    added = _add_version(schemas)
    ledger = LEDGER.path(case.settings)
    none = DeltaTable(ledger).to_pyarrow_table().slice(0, 0).append_column("told_by", pa.array([], pa.string()))
    write_deltalake(ledger, none, mode="append", schema_mode="merge")
    tree = yaml.safe_load(case.config.read_text())
    tree |= {"bronze": {"max_offsets_per_trigger": 77}, "silver": {"max_bytes_per_trigger": "1g"}}
    tree["spark"]["spark.sql.shuffle.partitions"] = "5"
    config = tmp_path / "upgraded.yaml"
    config.write_text(yaml.safe_dump(tree))
    produce(case, fault_seed + 1, 300)
    with up(LakeCase(tmp_path, config, load_settings(config, environ={})), "--trigger", "available-now") as upgraded:
        assert upgraded.process.wait(200) == 0, upgraded.said[-2000:]
    assert "cached" in {field.name for field in DeltaTable(SILVER.path(case.settings)).schema().fields}
    # And back: the file of the new version is gone, its column stays.
    added.unlink()
    produce(case, fault_seed + 2, 300)
    _run(spark, case.settings)

    assert len(list(Path(case.settings.lake.checkpoints).glob("*/g*"))) == len(STREAMS)
    evidence.fired("batch sizes, shuffles, an event field, the marker's and the ledger's columns changed, and back again")
    evidence.holds(case.verdicts())


@pytest.mark.case("C5")
def test_what_a_newer_version_wrote_is_refused_by_name(
    spark: SparkSession, lake_case: Callable[[int], LakeCase], fault_seed: int, evidence: Evidence
) -> None:
    case = lake_case(300)
    _run(spark, case.settings)
    produce(case, fault_seed, 30)
    root = Path(case.settings.lake.checkpoints)
    versions = _versions(case)

    marker = root / "silver" / "g1" / MARKER
    own = marker.read_text()
    _rewrite(marker, json.dumps({**json.loads(own), "format": 2}))
    with pytest.raises(CheckpointError, match=r"made by a newer version of this project \(lakehouse.json has format") as caught:
        run_to_end(spark, case.settings, ["silver"], threading.Event())
    assert caught.value.exit_code == EXIT_USAGE
    marker.write_text(own)

    newest = max((root / "bronze" / "g1" / "offsets").glob("[0-9]*"), key=lambda path: int(path.name))
    planned = newest.read_text()
    _rewrite(newest, planned.replace("v1", "v99", 1))
    with pytest.raises(StreamFailedError, match=r"Stream bronze failed.*see playbooks/checkpoint-lost") as failed:
        run_to_end(spark, case.settings, ["bronze"], threading.Event())
    assert failed.value.exit_code == 1
    newest.write_text(planned)
    assert _versions(case) == versions

    _run(spark, case.settings)
    evidence.loud("a marker and an offset log of a newer format: refused by name, nothing written; with the old ones it goes on")
    evidence.holds(case.verdicts())


@pytest.mark.case("C6")
def test_schema_folder_gone(
    spark: SparkSession, broker: EmbeddedBroker, tmp_path: Path, fault_seed: int, evidence: Evidence
) -> None:
    schemas = _schemas_in(tmp_path)
    quick = {"trigger": "1 second"}
    case = make_case(tmp_path, broker.bootstrap_servers, events=600, seed=fault_seed, schemas_dir=str(schemas), gold=quick)
    away = tmp_path / "away"
    with Driver(spark, case.settings) as driver:
        until(lambda: read_so_far(case.settings, "silver") == 600, 120)
        schemas.rename(away)
        produce(case, fault_seed + 1, 600)
        with evidence.recovery():
            await_no_lag(case.settings)
        assert driver.is_running
    assert driver.error is None

    versions = _versions(case)
    said = case.command("up", "--trigger", "available-now")
    assert said.returncode == EXIT_USAGE
    assert said.stderr.strip() == (
        f"lakehouse: The folder {schemas} holds no event schema; put a file such as 1.0.json there or correct `schemas_dir`."
    )
    away.rename(schemas)
    (schemas / "1.0.json").write_text('{"subject":')
    said = case.command("up", "--trigger", "available-now")
    assert said.returncode == EXIT_USAGE
    assert "cannot be read as JSON" in said.stderr
    assert _versions(case) == versions
    shutil.copy(SCHEMAS / "1.0.json", schemas / "1.0.json")
    evidence.fired(
        "schema files gone under running streams: 600 events more went through; a start without them is refused by name"
    )
    evidence.holds(case.verdicts())
