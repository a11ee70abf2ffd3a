"""Lists the errors of Spark itself: its JVM, its workers, its own files, and records that its tasks cannot process."""

from __future__ import annotations

from pipelines.lake import playbooks
from pipelines.lake.causes import reasons
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.chain import JVM_IS_SILENT
from pipelines.lake.causes.families.family import Family

LOST_JVM = Family(
    Kind.PERMANENT,
    reasons.LOST_JVM,
    playbooks.PROCESS,
    (
        r"Py4JNetworkError",
        JVM_IS_SILENT,
        # What Python is told where the answer was cut; with a trace it is an error of a JVM that lives.
        r"protocol\.Py4JError(?=: An error occurred while calling (?!.*Trace:))",
    ),
)
LOST_WORKER = Family(
    Kind.TRANSIENT,
    reasons.LOST_WORKER,
    playbooks.PROCESS,
    (
        r"ExecutorLostFailure",
        r"FetchFailed\w*",
        r"Python worker exited unexpectedly",
        r"PYTHON_WORKER_\w+",
    ),
)
NO_ANSWER = Family(
    Kind.TRANSIENT,
    "a part of Spark did not answer in time",
    playbooks.PROCESS,
    (r"(?:java\.util\.concurrent\.|Rpc)TimeoutException",),
)
LOST_OWN_FILES = Family(
    Kind.PERMANENT,
    "Spark's own files of this run are gone",
    playbooks.PROCESS,
    (r"(?:FileNotFoundException|NoSuchFileException)(?=:[^\n]*/(?:blockmgr|spark)-[0-9a-f]{8}-)",),
)
BAD_RECORD = Family(
    Kind.DATA,
    "a record cannot be processed",
    playbooks.RECORDS,
    (
        # By the SQL standard these are of values: a number or a time that is no such, or too large.
        r"SQLSTATE: 220(?:03|07|08|12|18)",
        r"SQLSTATE: 22\w{3}",
        r"(?:java\.lang|java\.time|org\.apache\.spark|pyspark[.\w]*)\.(?:Spark)?"
        r"(?:Arithmetic|NumberFormat|DateTime|ArrayIndexOutOfBounds|StringIndexOutOfBounds|IndexOutOfBounds|NullPointer|ClassCast"
        r"|NegativeArraySize|IllegalArgument|UnsupportedOperation)Exception",
        r"SparkRuntimeException",
        r"java\.lang\.StackOverflowError",
        r"java\.nio\.(?:charset\.\w+|Buffer\w+)Exception",
        r"Json\w*Exception",
        r"Arrow(?:Invalid|TypeError)",
        r"(?:Overflow|Unicode\w+|Value)Error",
    ),
    in_a_task=True,
)
