"""The temporary DuckDB database of one verification; every statement is run to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

MEMORY_LIMIT = "2GB"
"""Beside it stand Arrow's buffers and the rebuild's processes: together under 4 GB for five million records."""


class Database:
    """Runs SQL. DuckDB streams results and refuses other work until one is read, so all of it is read at once."""

    def __init__(self, folder: Path) -> None:
        self._con = duckdb.connect(str(folder / "verify.duckdb"))
        self.has_expired = False
        """Whether records are gone by the archive's own retention; they are in the table `expired`, and nobody's to miss."""
        for setting in (f"memory_limit = '{MEMORY_LIMIT}'", "preserve_insertion_order = false", "TimeZone = 'UTC'"):
            self.run(f"SET {setting}")

    def run(self, sql: str) -> None:
        """Run a statement for its effect."""
        self._con.execute(sql).fetchall()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows."""
        return self._con.execute(sql).fetchall()

    def named_rows(self, sql: str) -> list[dict[str, Any]]:
        """Run a query and return its rows by column name."""
        cursor = self._con.execute(sql)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def number(self, sql: str) -> int:
        """Run a query of one number; NULL is 0."""
        (value,) = self.rows(sql)[0]
        return int(value or 0)

    def insert(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        """Run an INSERT for each of `rows`; none: nothing."""
        if rows:
            self._con.executemany(sql, rows).fetchall()

    def copy(self, source: Any, table: str, columns: str) -> None:
        """Make `table` of `columns` of the Arrow data `source`."""
        self._con.register("source", source)
        self.run(f"CREATE OR REPLACE TABLE {table} AS SELECT {columns} FROM source")  # noqa: S608 - constants of this package
        self._con.unregister("source")

    def expire(self, sql: str) -> None:
        """Take note of ranges that are gone lawfully: topic, p, first_offset, last_offset."""
        self.run(f"CREATE OR REPLACE TABLE expired AS {sql}")
        self.has_expired = self.number("SELECT count(*) FROM expired") > 0

    def close(self) -> None:
        """Close the database."""
        self._con.close()
