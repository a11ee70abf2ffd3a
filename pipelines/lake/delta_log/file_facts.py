"""What a Delta table's log says of its data files; apart from `plain_read`, whose imports `lakehouse status` need not pay."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
from deltalake import DeltaTable


def file_facts(table: DeltaTable, columns: Collection[str]) -> pa.Table:
    """What the log says of each data file: those of `columns` (`path`, `min.x`, ...) that it has.

    Name only what is needed: a bound after the year 9999 is no value of Python's.
    """
    adds = pa.table(table.get_add_actions(flatten=True))
    return adds.select([name for name in columns if name in adds.column_names])
