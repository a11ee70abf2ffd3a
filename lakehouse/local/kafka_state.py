"""`broker.json`: where the embedded broker of a state folder can be reached, and whether that is still true."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lakehouse.local.kafka_process import command_line_of
from pipelines.lake.storage.local_files import read_text


@dataclass(frozen=True)
class BrokerState:
    """A broker that was started: process id, address, log file, and the configuration file that marks its process."""

    pid: int
    bootstrap_servers: str
    log: str
    config: str

    def is_running(self) -> bool:
        """Tell whether the process lives and is this broker (a pid alone may have gone to another process)."""
        return self.config in command_line_of(self.pid)


def kafka_folder(state_dir: Path) -> Path:
    """Return the broker's folder under the state folder."""
    return state_dir.resolve() / "kafka"


def state_file(state_dir: Path) -> Path:
    """Return the path of `broker.json`."""
    return kafka_folder(state_dir) / "broker.json"


def running_broker(state_dir: Path) -> BrokerState | None:
    """Return the broker that runs on `state_dir`, or None; what a dead broker left behind counts as none.

    Raises UnreadableError where nobody can tell.
    """
    try:
        state = BrokerState(**json.loads(read_text(state_file(state_dir))))
    except (OSError, ValueError, TypeError):
        return None
    return state if state.is_running() else None


def write_state(state_dir: Path, state: BrokerState) -> None:
    """Write `broker.json` in one step: a reader sees the old one or the new one."""
    path = state_file(state_dir)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)
