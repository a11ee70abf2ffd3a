"""What the demo shows while it works: a bar for each stage at a terminal, a line for each elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

_NAME, _BAR, _SAID = 11, 14, 34
"""Widths; with the seconds a line takes less than 80 columns."""


class _Seconds(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Show how long the task has run, or has taken."""
        seconds = task.finished_time if task.finished else task.elapsed
        return Text(f"{seconds or 0:>6.1f} s", style="dim")


@dataclass
class Stage:
    """A stage under way; `say` and `advance_to` may come from any thread."""

    name: str
    _progress: Progress | None
    _task: TaskID | None
    said: str = ""

    def advance_to(self, done: int, total: int | None) -> None:
        """Show that `done` of `total` records are through; before the first ones the bar only moves."""
        if self._progress is not None and self._task is not None and done:
            self._progress.update(self._task, completed=done, total=total and max(done, total), said=f"{done:,}")

    def say(self, text: str) -> None:
        """Set the words beside the bar."""
        self.said = text
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, said=text)


@dataclass
class Screen:
    """Stages one after the other on `console`; `seconds` tells how long each took."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)
    _progress: Progress | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(finished_text="[green]✓[/green]"),
                TextColumn(f"{{task.description:<{_NAME}}}"),
                BarColumn(_BAR),
                TextColumn(f"{{task.fields[said]:<{_SAID}}}", markup=False),
                _Seconds(),
            )
            self._progress = Progress(*columns, console=self.console, refresh_per_second=5)
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Show a stage from here to the block's end; one that raises stays unfinished on the screen."""
        task = self._progress.add_task(name, total=None, said="") if self._progress is not None else None
        stage = Stage(name, self._progress, task)
        began = time.monotonic()
        yield stage
        self.seconds[name] = time.monotonic() - began
        if self._progress is None:
            self.console.print(Text(f"{name:<{_NAME}} {stage.said:<{_SAID}} {self.seconds[name]:>6.1f} s"), soft_wrap=True)
        elif task is not None:
            self._progress.update(task, total=1, completed=1, said=stage.said)

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        (self._progress.console if self._progress is not None else self.console).print(Text(text), soft_wrap=True)
