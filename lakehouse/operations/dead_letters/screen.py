"""Dead letters for people and as JSON; payload only where it is asked for."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.lake.errors import UsageError

Row = dict[str, Any]

_STYLES = {"open": "yellow", "replayed": "green", "discarded": "dim"}
_IN_A_LINE = 16


def plain(row: Row) -> Row:
    """The row with values that JSON has."""
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}


def show_list(rows: list[Row], total: int) -> None:
    """Print a line for each letter and what is wrong with it."""
    console = Console()
    table = Table(title="Dead letters", title_justify="left")
    for heading in ("place", "Kafka time (UTC)", "rules", "status", "tries"):
        table.add_column(heading, no_wrap=True)
    table.add_column("what is wrong", overflow="fold")
    for row in rows:
        status = Text(str(row["_status"]), style=_STYLES.get(row["_status"], "bold red"))
        at = row["_kafka_timestamp"]
        when = at.strftime("%Y-%m-%d %H:%M:%S") if isinstance(at, datetime) else _odd_time(row)
        rules = " ".join(row["_quality_flags"] or [])
        why = row["_error_message"] or ""
        if row["_reason"]:
            why += f" (discarded: {row['_reason']})"
        table.add_row(_place(row), when, rules, status, str(row["_attempts"]), Text(why))
    console.print(table)
    console.print(f"{len(rows):,} of {total:,} shown." if len(rows) < total else f"{total:,} dead letters.")


def _odd_time(row: Row) -> str:
    """Kafka's number where it is no instant; a table of an older version has an instant beyond Python's calendar instead."""
    ms = row.get("_kafka_timestamp_ms")
    return "after 9999" if ms is None else f"{ms} ms"


def show_letter(row: Row, value: bytes | None) -> None:
    """Print what is known of one letter, and its bytes where `value` is given."""
    console = Console()
    table = Table(title=f"Dead letter {_place(row)}", title_justify="left", show_header=False)
    table.add_column("column", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, found in row.items():
        shown = " ".join(found) if isinstance(found, list) else "-" if found is None else str(found)
        table.add_row(name, Text(shown))
    console.print(table)
    for start in range(0, len(value or b""), _IN_A_LINE):
        part = (value or b"")[start : start + _IN_A_LINE]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        console.print(Text(f"{start:08x}  {part.hex(' '):<{3 * _IN_A_LINE}} {text}"), soft_wrap=True)


def show_stats(found: dict[str, Any]) -> None:
    """Print the counts by day and rule."""
    console = Console()
    table = Table(title="Dead letters by Kafka day and rule", title_justify="left")
    for heading in ("date", "rule"):
        table.add_column(heading, no_wrap=True)
    for heading in ("open", "replayed", "discarded"):
        table.add_column(heading, justify="right")
    for row in found["by"]:
        table.add_row(row["date"], row["rule"], *(f"{row[state]:,}" for state in ("open", "replayed", "discarded")))
    console.print(table)
    states = ", ".join(f"{found[state]:,} {state}" for state in ("open", "replayed", "discarded"))
    console.print(f"{found['total']:,} dead letters: {states}.")


def write_new(path: Path, value: bytes) -> None:
    """Write `value` to a new file; raises UsageError where that cannot be done."""
    try:
        with path.open("xb") as file:
            file.write(value)
    except OSError as error:
        msg = f"The file {path} cannot be written ({error.strerror}); give a new file in an existing folder with --out."
        raise UsageError(msg) from None


def _place(row: Row) -> str:
    return f"{row['_kafka_partition']}:{row['_kafka_offset']}"
