"""Names the reasons that several families of errors, or the code that judges by them, have in common."""

from __future__ import annotations

CUT_CHECKPOINT = "a checkpoint is cut"
DISK_FULL = "a disk is full"
IO_ERROR = "the disk or the mount reports an error"
LIMIT = "a limit of the machine is reached"
LOST_JVM = "the JVM of this process is gone"
LOST_WORKER = "a worker was lost"
NO_ANSWER = "the object store or the network does not answer"
NO_MEMORY = "memory is exhausted"
REFUSED = "access is refused"
TABLE_FILE = "a file of a table is missing or cut"
