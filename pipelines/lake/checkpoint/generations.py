"""Finds the generations of a job's checkpoints: the folders `<lake.checkpoints>/<job>/g<n>`."""

from __future__ import annotations

import re

from pipelines.lake.places import local_path
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage


def newest_generation_path(settings: Settings, job: str) -> str:
    """Path of the highest `g<n>`, which is the one that the job takes; `g1` where there is none.

    Raises UnreadableError where nobody can tell: a first one beside others would read everything again.
    """
    return f"{_root(settings, job)}/g{max(1, _newest(settings, job))}"


def next_generation_path(settings: Settings, job: str) -> str:
    """Path after the highest `g<n>` that the job's folder has. Raises UnreadableError where nobody can tell."""
    return f"{_root(settings, job)}/g{_newest(settings, job) + 1}"


def _root(settings: Settings, job: str) -> str:
    return f"{settings.lake.checkpoints.rstrip('/')}/{job}"


def _newest(settings: Settings, job: str) -> int:
    names = open_storage(_root(settings, job)).names()
    return max((int(found[1]) for name in names if (found := re.fullmatch(r"g([0-9]+)", name))), default=0)


def checkpoint_path_of(settings: Settings, job: str, given: str | None) -> str:
    """Path of the checkpoint: as given, or the job's newest generation `g<n>` under the settings.

    Raises UnreadableError where nobody can tell which there are.
    """
    return local_path(given).rstrip("/") if given else newest_generation_path(settings, job)
