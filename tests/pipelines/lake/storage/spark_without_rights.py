"""Asks Spark's side about paths that bar it: prints what each question gives, as JSON. Run by `tests.without_rights`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.lake.checkpoint.generations import checkpoint_path_of
from pipelines.lake.errors import LakehouseError
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import Column, TableDef, TableName
from pipelines.runtime import delta
from pipelines.runtime.session import build_session

_TABLE = TableDef(TableName("silver", "t"), "A table.", (Column("n", "bigint", "A number."),))


def main(folder: Path) -> None:
    """Make a table, bar it at each level, and ask."""
    root = {"lake.root": str(folder / "lake"), "lake.checkpoints": str(folder / "checkpoints"), "lake.state_dir": str(folder)}
    settings = load_settings(None, environ={}, overrides={**root, "spark": {"spark.master": "local[1]"}})
    spark = build_session(settings, "without rights")
    path, checkpoint = folder / "lake" / "silver" / "t", folder / "checkpoints" / "silver" / "g3"
    delta.ensure_table(spark, _TABLE, str(path))
    checkpoint.mkdir(parents=True)
    (checkpoint / "lakehouse.json").write_text("{}")
    questions: dict[str, Callable[[], Any]] = {
        "is_delta_table": lambda: delta.is_delta_table(spark, str(path)),
        "ensure_table": lambda: delta.ensure_table(spark, _TABLE, str(path)),
        "read": lambda: open_storage(str(checkpoint)).read("lakehouse.json"),
        "names": lambda: open_storage(str(checkpoint)).names(),
        "checkpoint_path": lambda: checkpoint_path_of(settings, "silver", None),
    }

    def ask() -> dict[str, str]:
        found = {}
        for name, question in questions.items():
            try:
                found[name] = str(question())
            except LakehouseError as error:
                found[name] = f"{type(error).__name__}: {error}"
        return found

    answers = {"": ask()}
    places = [path / "_delta_log", *(one for end in (path, checkpoint) for one in (end, end.parent, end.parent.parent))]
    for place in places:
        before = os.stat(place).st_mode
        os.chmod(place, 0)
        spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # type: ignore[union-attr]
        answers[str(place)] = ask()
        os.chmod(place, before)
    sys.stdout.write(json.dumps({"answers": answers, "log": sorted(os.listdir(path / "_delta_log"))}))
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
