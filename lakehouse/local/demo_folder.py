"""The demo's own folder: claimed by one demo at a time, emptied for a fresh lake, with settings that other commands take."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from lakehouse.local.kafka_state import running_broker
from pipelines.lake.errors import UsageError
from pipelines.lake.settings import EMBEDDED, KafkaSettings, LakeSettings, LogSettings, Settings
from pipelines.lake.storage.local_files import names_in

_LOCK = "demo.lock"
_OWN = ("checkpoints", "kafka", "lake", "op_ledger", "demo.yaml", "demo.log", "spark.log", _LOCK)
"""What a demo makes; nothing else is ever removed, but for `_LEFT`."""
_LEFT = ("logs", "errors")
"""What Spark and the commands leave in a lake's state folder: a demo's only where its lock shows that there was one."""


@dataclass(frozen=True)
class DemoFolder:
    """Where one demo lies (absolute)."""

    path: Path

    @property
    def config(self) -> Path:
        """Settings file for `lakehouse ... --config`."""
        return self.path / "demo.yaml"

    @property
    def log(self) -> Path:
        """Log of the jobs."""
        return self.path / "demo.log"

    @property
    def spark_log(self) -> Path:
        """What Spark and the JVM had to say."""
        return self.path / "spark.log"

    @property
    def op_ledger(self) -> Path:
        """Folder of the op ledger."""
        return self.path / "op_ledger"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises UsageError where another demo holds it, where it holds files that no demo made, or cannot be made.
        """
        try:
            names = names_in(self.path)
            known = (*_OWN, *_LEFT) if _LOCK in names else _OWN
            strangers = [name for name in names if name not in known]
            if strangers:
                msg = f"The folder {self.path} holds {strangers[0]}, which no demo has made; give an empty folder with --folder."
                raise UsageError(msg)
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / _LOCK).open("a+", encoding="ascii")
        except OSError as error:
            msg = f"The demo's folder {self.path} cannot be used ({error.strerror}); give a writable one with --folder."
            raise UsageError(msg) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                pid = lock.read().strip() or "unknown"
                msg = f"Another demo runs in {self.path} (pid {pid}); wait for it, or give another folder with --folder."
                raise UsageError(msg) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def prepare(self, settings: Settings, *, keep: bool) -> Settings:
        """Empty the folder unless `keep`, and return `settings` moved into it; they are written to `config` too.

        Raises UsageError where a broker of an earlier demo runs on data that would be removed.
        """
        running = running_broker(self.path)
        if running is not None and not keep:
            msg = (
                f"The broker of an earlier demo runs in {self.path} (pid {running.pid}); end it with "
                f"`lakehouse kafka stop --config {shown(self.config)}`, or add to its lake with --keep."
            )
            raise UsageError(msg)
        if not keep:
            for name in (*_OWN, *_LEFT):
                if name != _LOCK:
                    _remove(self.path / name)
        moved = settings.model_copy(
            update={
                "kafka": KafkaSettings(
                    bootstrap_servers=EMBEDDED, topic=settings.kafka.topic, partitions=settings.kafka.partitions
                ),
                "lake": LakeSettings(
                    root=str(self.path / "lake"), checkpoints=str(self.path / "checkpoints"), state_dir=str(self.path)
                ),
                "schemas_dir": str(Path(settings.schemas_dir).resolve()),
                "log": LogSettings(),
            }
        )
        text = yaml.safe_dump(moved.model_dump(), sort_keys=False)
        self.config.write_text(f"# Settings of the demo's lake, written by `lakehouse demo`.\n{text}", encoding="utf-8")
        return moved


def shown(path: Path) -> str:
    """Return the path as people type it: from the working directory where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
