"""One finder of generations, on the disk and on S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.lake.checkpoint.generations import checkpoint_path_of, newest_generation_path, next_generation_path
from pipelines.lake.settings_sources import load_settings
from pipelines.lake.storage.backends import open_storage


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the checkpoints lie."""
    return str(tmp_path) if request.param == "local" else str(request.getfixturevalue("bucket")) + "/checkpoints"


@pytest.mark.parametrize(
    ("folders", "newest"),
    [((), 1), (("g1",), 1), (("g1", "g2", "g10"), 10), (("g7", "replay", "gx", "g1.old", "backup/g99"), 7)],
)
def test_job_goes_on_with_the_newest_and_a_rebuild_makes_the_next(root: str, folders: tuple[str, ...], newest: int) -> None:
    settings = load_settings(None, environ={}, overrides={"lake.checkpoints": root})
    for folder in folders:
        open_storage(f"{root}/silver/{folder}").create("lakehouse.json", b"{}")

    assert newest_generation_path(settings, "silver") == f"{root}/silver/g{newest}"
    assert checkpoint_path_of(settings, "silver", None) == f"{root}/silver/g{newest}"
    assert next_generation_path(settings, "silver") == f"{root}/silver/g{newest + 1 if folders else 1}"
    assert checkpoint_path_of(settings, "silver", f"{root}/silver/g3/") == f"{root}/silver/g3"
