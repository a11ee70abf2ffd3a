"""Is a checkpoint sound? Its files, then the tables and the ledger, then the source."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

from lakehouse.operations.checkpoints.findings import LOG_LOST, RUN_BACK, Finding
from lakehouse.operations.checkpoints.reading import CheckpointState, read_checkpoint
from lakehouse.operations.checkpoints.topic import ask_aside
from lakehouse.operations.checkpoints.verify_files import check_files
from lakehouse.operations.checkpoints.verify_lake import check_lake
from lakehouse.operations.checkpoints.verify_source import check_source
from pipelines.lake.errors import LakehouseError
from pipelines.lake.kafka.topic import TopicState
from pipelines.lake.settings import Settings
from pipelines.lake.storage.protocol import Storage

_ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Verdict:
    """What was looked at and what was found, the worst first."""

    state: CheckpointState
    findings: list[Finding]

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing worse than an info was found."""
        return all(finding.severity == "info" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        marker = self.state.marker
        return {
            "path": self.state.path,
            "sound": self.is_sound,
            "job": marker.job if marker else None,
            "generation": marker.generation if marker else None,
            "planned": self.state.last_planned,
            "committed": self.state.last_committed,
            "findings": [asdict(finding) for finding in self.findings],
        }


def verify_checkpoint(settings: Settings, folder: Storage, asked: Future[TopicState | LakehouseError] | None = None) -> Verdict:
    """Verify the checkpoint in `folder` without a JVM; nothing is written. `asked`: what `ask_aside` gave, if it was called.

    Raises CheckpointError where it holds no checkpoint, LakehouseError where a table's log cannot be read.
    """
    asked = asked or ask_aside(settings)
    state = read_checkpoint(folder, checksums=True)
    findings = [*check_files(state), *check_lake(settings, state)]
    kafka = asked.result() if state.marker and state.marker.job == "bronze" else None
    findings += check_source(settings, state, kafka)
    if any(finding.id == LOG_LOST for finding in findings):
        # It is why the offsets run back: nothing is wrong with the files, and rebuilding them would mend nothing.
        findings = [finding for finding in findings if finding.id != RUN_BACK]
    return Verdict(state, sorted(findings, key=lambda finding: _ORDER[finding.severity]))
