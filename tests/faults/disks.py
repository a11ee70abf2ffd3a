"""Small file systems of a test's own, which may be full or read-only."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest


@dataclass(frozen=True)
class Disk:
    """A tmpfs at `path` of some MB; skips the test where this process may not mount one."""

    path: Path
    megabytes: int = 64

    def __enter__(self) -> Self:
        self.path.mkdir(parents=True)
        done = self._call("mount", "-t", "tmpfs", "-o", f"size={self.megabytes}m", "tmpfs", str(self.path))
        if done.returncode:
            pytest.skip(f"A file system of its own cannot be mounted here ({done.stderr.strip()}); run as root to see this case.")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Lazily: what a killed process had open goes with it.
        self._call("umount", "-l", str(self.path))

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Take all the room that is left."""
        with (self._ballast).open("ab") as file:
            while (room := self.free_bytes) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), room)
                except OSError:  # somebody else took some of it meanwhile
                    break
                file.seek(0, os.SEEK_END)

    def clear(self) -> None:
        """Give the room back."""
        self._ballast.unlink()

    def remount(self, mode: str) -> bool:
        """Make it `ro` or `rw`; False where somebody is just writing."""
        return self._call("mount", "-o", f"remount,{mode}", str(self.path)).returncode == 0

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"

    @staticmethod
    def _call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, check=False)
