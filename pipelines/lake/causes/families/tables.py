"""Lists the errors of Delta tables: their properties, files, columns, and other writers."""

from __future__ import annotations

from pipelines.lake import playbooks
from pipelines.lake.causes import reasons
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.families.family import Family

CHANGED_TABLE = Family(
    Kind.PERMANENT,
    "a table is not as the project made it: its properties, features or schema",
    playbooks.TABLE,
    (
        r"DELTA_CANNOT_MODIFY_APPEND_ONLY",
        r"DELTA_(?:MISSING_CHANGE_DATA|CHANGE_TABLE_FEED_DISABLED|CHANGE_DATA_FILE_NOT_FOUND|MISSING_CDC\w*)",
        r"FAILED_READ_FILE\.FILE_NOT_EXIST(?=[^\n]*/_change_data/)",
        r"DELTA_(?:UNSUPPORTED_FEATURES?|FEATURES?|INVALID_PROTOCOL|READ_FEATURE|TABLE_FEATURE)_?\w*",
        r"DELTA_\w*COLUMN_MAPPING\w*",
        r"DELTA_(?:NOT_NULL_CONSTRAINT|VIOLATE_CONSTRAINT|NEW_NOT_NULL|NEW_CHECK)\w*",
        r"DELTA_SOURCE_(?:TABLE_)?IGNORE_(?:DELETE|CHANGES)\w*",
        r"DELTA_STREAMING_(?:INCOMPATIBLE_SCHEMA|SCHEMA|METADATA|CANNOT_CONTINUE)\w*",
        r"InvalidProtocolVersionException|DeltaProtocolError",
        r"DeltaError(?=: [^\n]*(?:Feature '\w+' is not supported|failed validation check))",
        r"(?:DeltaError|CommitFailedError)(?=: [^\n]*append-only)",
    ),
)
LOST_OR_CUT_FILE = Family(
    Kind.PERMANENT,
    reasons.TABLE_FILE,
    playbooks.TABLE_FILES,
    (
        r"FAILED_READ_FILE\.FILE_NOT_EXIST",
        r"DELTA_(?:FILE_NOT_FOUND|TRUNCATED_TRANSACTION_LOG|VERSIONS_NOT_CONTIGUOUS|STATE_RECOVER_ERROR)\w*",
        r"DELTA_LOG_FILE_NOT_FOUND(?!_FOR_STREAMING)\w*",
        r"ChecksumException",
        r"CANNOT_READ_FILE_FOOTER|is not a Parquet file",
        r"ArrowInvalid(?=:[^\n]*Parquet)|Parquet magic bytes not found",
        r"Couldn't deserialize thrift|Unexpected end of stream|Corrupt (?:footer|snappy|zstd|compressed)",
        r"ZSTD decompression failed",
        r"FileNotFoundE(?:rror|xception)(?=:[^\n]*(?:\.parquet|_delta_log))",
        r"Object at location [^\n]* not found",
        r"DeltaError(?=: [^\n]*(?:Json error|No table metadata|Expected contiguous commit files|Parquet error))",
    ),
)
CONFLICT = Family(
    Kind.TRANSIENT,
    "another writer committed first, or the table changed under the reader",
    playbooks.PROCESS,
    (
        r"Concurrent(?:Append|DeleteRead|DeleteDelete|Transaction|Write|Modification)Exception",
        r"(?:Metadata|Protocol)ChangedException",
        r"DELTA_CONCURRENT_\w+",
        r"DELTA_SCHEMA_CHANGE(?:D\w*|_SINCE_ANALYSIS)",
        r"CommitFailedError",
        r"FileAlreadyExistsException",
    ),
)
OTHER_COLUMNS = Family(
    Kind.PERMANENT,
    "a table's columns are not those that are expected",
    playbooks.TABLE,
    (
        r"UNRESOLVED_COLUMN[.\w]*",
        r"SchemaMismatchError",
        r"DELTA_\w*SCHEMA\w*",
        r"DELTA_\w*(?:COLUMN|TYPE)\w*MISMATCH\w*",
        r"DELTA_(?:FAILED_TO_MERGE_FIELDS|MERGE_UNRESOLVED_EXPRESSION|MERGE_INCOMPATIBLE_\w+|COLUMN_NOT_FOUND\w*)",
        r"SchemaColumnConvertNotSupportedException",
        r"FAILED_READ_FILE\.PARQUET_COLUMN_DATA_TYPE_MISMATCH",
        r"INCOMPATIBLE_(?:DATA|COLUMN)\w*",
    ),
)
NO_TABLE = Family(
    Kind.PERMANENT,
    "a table is not there",
    playbooks.TABLE_FILES,
    (
        r"DELTA_(?:TABLE_NOT_FOUND|MISSING_DELTA_TABLE|PATH_DOES_NOT_EXIST|TABLE_ONLY_OPERATION)\w*",
        r"TABLE_OR_VIEW_NOT_FOUND",
        r"PATH_NOT_FOUND",
        r"TableNotFoundError",
    ),
)
MISSING_FILE = Family(
    Kind.PERMANENT,
    "a file is missing",
    playbooks.TABLE_FILES,
    (r"FAILED_READ_FILE[.\w]*",),
)
