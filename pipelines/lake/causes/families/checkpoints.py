"""Lists the errors of checkpoints: a file is cut or changed, or the checkpoint does not fit the stream."""

from __future__ import annotations

from pipelines.lake import playbooks
from pipelines.lake.causes import reasons
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.families.family import Family

WRONG_CHECKSUM = Family(
    Kind.PERMANENT,
    reasons.CUT_CHECKPOINT,
    playbooks.CHECKPOINTS,
    (
        # Hadoop's own checksum, of a file of the checkpoint: a table's is `tables.LOST_OR_CUT_FILE`.
        r"ChecksumException(?=[^\n]*/(?:offsets|commits|sources|state|metadata|lakehouse\.json)\b)",
    ),
)
CUT = Family(
    Kind.PERMANENT,
    reasons.CUT_CHECKPOINT,
    playbooks.CHECKPOINTS,
    (
        r"(?:Incomplete|Malformed) log file",
        r"CANNOT_LOAD_STATE_STORE[.\w]*",
        r"STATE_STORE_\w*CHECKSUM\w*",
        r"InvalidProtocolBufferException",
        r"FileNotFoundException(?=:[^\n]*/(?:offsets|commits|sources|state)/)",
    ),
)
NO_FIT = Family(
    Kind.PERMANENT,
    "a checkpoint does not fit",
    playbooks.CHECKPOINTS,
    (
        r"STREAMING_CHECKPOINT\w*|\bCHECKPOINT_\w+",
        r"INVALID_LOG_VERSION[.\w]*",
        r"batch \d+ doesn't exist",
        r"DELTA_LOG_FILE_NOT_FOUND_FOR_STREAMING\w*",
        r"DELTA_STREAMING_\w+|DIFFERENT_DELTA_TABLE_READ_BY_STREAMING_SOURCE",
        r"_LEGACY_ERROR_TEMP_30\d\d",
    ),
)
