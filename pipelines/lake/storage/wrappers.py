"""Wrappers around any storage: counts of its calls, a delay before each, faults before or after them.

They are storages too, so that they can be put around one another and given to whatever takes a storage.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from pipelines.lake.storage.protocol import Abilities, Entry, Storage

_T = TypeVar("_T")


@dataclass
class Wrapped:
    """A storage that does what the `inner` one does; a wrapper says in `around` what happens beside that."""

    inner: Storage

    @property
    def path(self) -> str:
        """Path of the inner storage."""
        return self.inner.path

    @property
    def abilities(self) -> Abilities:
        """What the inner storage can do."""
        return self.inner.abilities

    def around(self, call: str, name: str, work: Callable[[], _T]) -> _T:
        """Do `work`, the call `call` for the file or folder `name`."""
        return work()

    def files(self, folder: str = "") -> dict[str, Entry]:
        """All files below `folder`."""
        return self.around("files", folder, lambda: self.inner.files(folder))

    def names(self, folder: str = "") -> list[str]:
        """Names in `folder` itself."""
        return self.around("names", folder, lambda: self.inner.names(folder))

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        return self.around("read", name, lambda: self.inner.read(name))

    def create(self, name: str, content: bytes) -> None:
        """Write a new file."""
        self.around("create", name, lambda: self.inner.create(name, content))

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, over the one that is there."""
        self.around("replace", name, lambda: self.inner.replace(name, content))

    def delete(self, name: str) -> None:
        """Delete a file."""
        self.around("delete", name, lambda: self.inner.delete(name))

    def remove(self, folder: str = "") -> None:
        """Delete a folder with all that is in it."""
        self.around("remove", folder, lambda: self.inner.remove(folder))


@dataclass
class Counted(Wrapped):
    """Counts calls, by their names."""

    calls: Counter[str] = field(default_factory=Counter)

    def around(self, call: str, name: str, work: Callable[[], _T]) -> _T:
        """Count the call, also one that fails."""
        self.calls[call] += 1
        return work()


@dataclass
class Delayed(Wrapped):
    """Waits `seconds` before each call."""

    seconds: float = 0.0

    def around(self, call: str, name: str, work: Callable[[], _T]) -> _T:
        """Wait, then do it."""
        time.sleep(self.seconds)
        return work()


@dataclass
class Failing(Wrapped):
    """Raises what `fault` gives for a call and a name; with `is_done`, after the call was done: its answer is lost."""

    fault: Callable[[str, str], Exception | None] = lambda _call, _name: None
    is_done: bool = False

    def around(self, call: str, name: str, work: Callable[[], _T]) -> _T:
        """Raise the fault, before or after the call."""
        error = self.fault(call, name)
        if error is None:
            return work()
        if self.is_done:
            work()
        raise error
