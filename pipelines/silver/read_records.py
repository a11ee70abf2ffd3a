"""Read a batch's records once: parse and classify them, and collect their facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pyspark.sql import DataFrame

from pipelines.runtime.kept_rows import kept
from pipelines.silver.facts import Facts, Longs
from pipelines.silver.rules import Rule
from pipelines.silver.transforms import build_facts, classify, parse_events


@contextmanager
def read_records(
    batch: DataFrame, fields: Sequence[str], rejecting: list[Rule], poison: Longs
) -> Iterator[tuple[DataFrame, Facts]]:
    """Give the records, classified by the `rejecting` rules, and their facts; of records at `poison` nothing is read.

    Parsed once for the block: to judge the records, to write the events and to write the dead letters.
    """
    with kept(classify(parse_events(batch, poison.tolist()), rejecting)) as records:
        yield records, Facts.from_arrow(build_facts(records, fields).toArrow())
