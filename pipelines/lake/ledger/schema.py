"""The columns of `ops.batch_ledger`, as Arrow has them."""

from __future__ import annotations

import pyarrow as pa

from pipelines.lake.ledger.row import COUNTS

TIME = pa.timestamp("us", tz="UTC")

SCHEMA = pa.schema(
    [
        pa.field("job", pa.string(), nullable=False),
        pa.field("generation", pa.string(), nullable=False),
        pa.field("batch_id", pa.int64(), nullable=False),
        pa.field("offsets", pa.string()),
        *(pa.field(name, pa.int64()) for name in COUNTS),
        pa.field("holes", pa.string()),
        pa.field("versions", pa.string()),
        pa.field("started_at", TIME),
        pa.field("committed_at", TIME),
        pa.field("duration_ms", pa.int64()),
    ]
)
