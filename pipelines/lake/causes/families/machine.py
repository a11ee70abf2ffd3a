"""Lists the errors of the machine and the program: limits, permissions, memory, missing or wrong versions."""

from __future__ import annotations

from pipelines.lake import playbooks
from pipelines.lake.causes import reasons
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.families.family import Family

LIMIT = Family(
    Kind.PERMANENT,
    reasons.LIMIT,
    playbooks.ENVIRONMENT,
    (
        r"Too many open files",
        r"unable to create (?:new )?native thread",
        r"[Cc]an't start new thread",
        r"File name too long",
        # Hadoop says no more where the kernel lists no folder; one that may not be listed shows itself elsewhere first.
        r"Invalid directory or I/O error occurred for dir",
        r"Malformed input or input contains unmappable characters",
    ),
)
WRONG_PROGRAM = Family(
    Kind.PERMANENT,
    "the program is not whole, or not the right version",
    playbooks.ENVIRONMENT,
    (
        r"ClassNotFoundException",
        r"NoClassDefFoundError",
        r"NoSuchMethodError",
        r"UnsupportedClassVersionError",
        r"DATA_SOURCE_NOT_FOUND",
        r"JAVA_GATEWAY_EXITED",
        r"'JavaPackage' object is not callable",
        r"ModuleNotFoundError|ImportError",
        r"FileNotFoundError(?=: [^\n]*'(?:[^'\n]*/)?(?:java|spark-submit)')",
    ),
)
NO_PERMISSION = Family(
    Kind.PERMANENT,
    reasons.REFUSED,
    playbooks.PERMISSION,
    (
        r"FileNotFoundException(?=: [^\n]*\(Permission denied\))",
        r"AccessDeniedException(?=: (?:file:)?/)",
        r"AccessControlException(?=: (?:Permission denied|[^\n]*file:/))",
        r"(?:PermissionError|OSError|DeltaError)(?=[^\n]*Permission denied)",
        r"PermissionError",
        r"Permission denied",
        r"Operation not permitted",
    ),
)
NO_MEMORY = Family(
    Kind.PERMANENT,
    reasons.NO_MEMORY,
    playbooks.PROCESS,
    (
        r"OutOfMemoryError",
        r"MemoryError",
        r"Cannot allocate memory",
    ),
)
