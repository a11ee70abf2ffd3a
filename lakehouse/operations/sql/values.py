"""Rows for people and programs: whatever a table holds can be shown, in a table, one below the other, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Literal

import typer
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.types import DataType, TimestampNTZType, TimestampType, VariantType
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Show = Callable[[list[str], "list[Row]", bool], None]
"""Prints columns and rows; the flag says that there were more."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_READABLE = 20
"""Width below which a column is not narrowed."""
_GAP = 3
"""Columns of the terminal that a border takes for each column of a table."""


def collect(frame: DataFrame, limit: int) -> list[Row]:
    """At most `limit` rows; what Python has no value for, or a narrower one than Spark, comes as Spark's text."""
    types = [column.dataType for column in frame.schema]
    # By position: two columns may have one name.
    plain = frame.toDF(*(f"c{at}" for at in range(len(types))))
    columns = [F.col(f"c{at}") for at in range(len(types))]
    shown = [_as_text(column, type_) for column, type_ in zip(columns, types, strict=True)]
    return plain.select(*shown).limit(limit).collect()


def _as_text(column: Any, type_: DataType) -> Any:
    if isinstance(type_, VariantType):
        return F.to_json(column)
    if isinstance(type_, TimestampType | TimestampNTZType):
        # Microseconds in full, or none.
        return F.regexp_replace(F.date_format(column, "yyyy-MM-dd HH:mm:ss.SSSSSS"), r"\.000000$", "")
    wanted = _shown_type(type_)
    return column if wanted == type_ else column.cast(wanted)


def _shown_type(type_: DataType) -> DataType:
    """The type to ask Spark for: years beyond 9999 and intervals are text, at any depth."""
    if isinstance(type_, T.ArrayType):
        return T.ArrayType(_shown_type(type_.elementType), type_.containsNull)
    if isinstance(type_, T.MapType):
        return T.MapType(_shown_type(type_.keyType), _shown_type(type_.valueType), type_.valueContainsNull)
    if isinstance(type_, T.StructType):
        return T.StructType([T.StructField(field.name, _shown_type(field.dataType), field.nullable) for field in type_])
    temporal = (T.DatetimeType, T.AnsiIntervalType, T.CalendarIntervalType)
    return T.StringType() if isinstance(type_, temporal) else type_


def show_auto(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print a table where it fits the terminal's width, else one value a line."""
    widths = [max(_width(text) for text in texts) + _GAP for texts in zip(columns, *_texts(rows), strict=True)]
    fits = sum(widths) + 1 <= shutil.get_terminal_size().columns
    (show_table if fits or not rows else show_vertical)(columns, rows, more)


def show_table(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print a table for people, wider than the terminal where its columns would be too narrow to be read."""
    numeric = {at for at in range(len(columns)) if any(isinstance(row[at], int | float) for row in rows)}
    least = [min(_READABLE, max(map(_width, texts))) for texts in zip(columns, *_texts(rows), strict=True)]
    table = Table()
    for at, column in enumerate(columns):
        justify: Literal["right", "left"] = "right" if at in numeric else "left"
        table.add_column(Text(_harmless(column)), justify=justify, overflow="fold", min_width=least[at])
    for row, texts in zip(rows, _texts(rows), strict=True):
        cells = zip(row, texts, strict=True)
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(text) for value, text in cells))
    console = Console(width=max(shutil.get_terminal_size().columns, sum(least) + _GAP * len(least) + 1))
    console.print(table)
    console.print(_count(rows, more), style="dim")


def show_vertical(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print each row as lines of name and value."""
    names = [_harmless(column) for column in columns]
    longest = max(map(_width, names), default=0)
    for number, texts in enumerate(_texts(rows), start=1):
        typer.echo(f"-- row {number} ".ljust(longest + 12, "-"))
        for name, text in zip(names, texts, strict=True):
            first, *others = text.split("\n")
            typer.echo(f"{name}{' ' * (longest - _width(name))} | {first}")
            for line in others:
                typer.echo(f"{' ' * longest} : {line}")
    typer.echo(_count(rows, more))


def show_csv(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print CSV; NULL is an empty field."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if value is None else _text(value) for value in row] for row in rows)
    typer.echo(target.getvalue(), nl=False)
    _say_more(len(rows), more)


def show_json(columns: list[str], rows: list[Row], more: bool) -> None:
    """Print a JSON list of objects; a second column of one name gets a number."""
    names: list[str] = []
    for column in columns:
        others = names.count(column) + sum(name.startswith(f"{column}_") for name in names)
        names.append(column if column not in names else f"{column}_{others + 1}")
    objects = [dict(zip(names, map(_plain, row), strict=True)) for row in rows]
    typer.echo(json.dumps(objects, indent=1, allow_nan=False))
    _say_more(len(rows), more)


FORMATS: dict[str, Show] = {"table": show_table, "vertical": show_vertical, "csv": show_csv, "json": show_json}


def _say_more(count: int, more: bool) -> None:
    if more:
        typer.echo(f"only the first {count} rows; --limit shows more", err=True)


def _count(rows: list[Row], more: bool) -> str:
    return f"the first {len(rows)} rows; --limit shows more" if more else f"{len(rows)} rows"


def _texts(rows: Iterable[Row]) -> list[list[str]]:
    return [["NULL" if value is None else _harmless(_text(value)) for value in row] for row in rows]


def _harmless(text: str) -> str:
    """Text whose control characters are seen instead of obeyed: a record's value must not steer the terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _width(text: str) -> int:
    return max(map(cell_len, text.split("\n")))


def _plain(value: Any) -> Any:
    """A value that JSON has; numbers that it has not are text."""
    if hasattr(value, "asDict"):
        return {name: _plain(of) for name, of in value.asDict().items()}
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _text(key): _plain(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        # Bytes are shown so that they survive: as text where they are, else in hexadecimal.
        raw = bytes(value)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return "0x" + raw.hex()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return str(value)
