"""Commands as an operator would type them, with this lake's settings file and paths filled in."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

DEFAULT_CONFIG = "conf/local.yaml"
_SCRIPTS = {
    "bronze": "pipelines/bronze/bronze_ingestion.py",
    "silver": "pipelines/silver/silver_processing.py",
    "gold": "pipelines/gold/gold_aggregation.py",
}


@dataclass(frozen=True)
class Commands:
    """Builds command lines; `checkpoints` is the settings' folder of checkpoints."""

    config: str
    checkpoints: str

    def lakehouse(self, *words: str) -> str:
        """`lakehouse WORDS`, with `--config` unless it is the default."""
        return shlex.join(["lakehouse", *words, *self._config()])

    def python(self, script: str, *words: str) -> str:
        """A script of the project."""
        return shlex.join(["python", script, *self._config(), *words])

    def start(self, job: str, path: str | None = None) -> str:
        """Start the job's stream on the checkpoint at `path` (default: its first generation)."""
        if path is None or path == f"{self.checkpoints.rstrip('/')}/{job}/g1":
            return self.lakehouse("up", "--only", job)
        return self.python(_SCRIPTS[job], "--checkpoint-path", path)

    def _config(self) -> list[str]:
        return [] if self.config == DEFAULT_CONFIG else ["--config", self.config]
