"""Reads the flags of the jobs: offsets, versions, replays."""

from __future__ import annotations

import argparse
import json

from pipelines.lake.errors import UsageError


def job_parser(description: str) -> argparse.ArgumentParser:
    """Build a parser with the flags that every streaming job takes."""
    parser = argparse.ArgumentParser(description=description, exit_on_error=True)
    parser.add_argument("--config", default="conf/local.yaml", help="settings file (default: %(default)s)")
    parser.add_argument("--checkpoint-path", help="checkpoint of this run; a new path is a new generation")
    parser.add_argument("--trigger", help="`available-now`, or an interval such as `1 second`")
    parser.add_argument("--starting-offsets", help='where a new checkpoint begins, as JSON such as {"0":123456}')
    replay = parser.add_argument_group("bounded replay", "with any of these the job reads that part again, and ends by itself")
    replay.add_argument("--ending-offsets", help='where the replay ends (exclusive), as JSON such as {"0":234567}')
    replay.add_argument("--from-date", help="first UTC day to read again, such as 2026-01-28; alone, all from it on")
    replay.add_argument("--to-date", help="last UTC day to read again (Bronze: up to Kafka's first record of the next day)")
    replay.add_argument("--dry-run", action="store_true", help="say how much would be read again, and write nothing")
    return parser


def is_bounded(args: argparse.Namespace) -> bool:
    """Whether the flags ask for a replay that ends by itself."""
    return any(text is not None for text in (args.ending_offsets, args.from_date, args.to_date))


def parse_offsets(text: str | None, flag: str = "--starting-offsets") -> dict[int, int] | None:
    """Read `{"<partition>": offset, ...}`; None stays None.

    Raises UsageError with one sentence where it is anything else.
    """
    if text is None:
        return None
    expected = 'expected JSON such as {"0":123456,"1":0} with whole numbers from 0'
    try:
        tree = json.loads(text)
        pairs = {int(partition): offset for partition, offset in tree.items()}
    except (ValueError, AttributeError):
        msg = f"The value of {flag} is not understood; {expected}."
        raise UsageError(msg) from None
    if not pairs or any(not isinstance(offset, int) or isinstance(offset, bool) or offset < 0 for offset in pairs.values()):
        msg = f"The value of {flag} has no partition, or an offset that is none; {expected}."
        raise UsageError(msg)
    return pairs


def parse_version(text: str | None, key: str) -> int | None:
    """Read `{"<key>": version}`; None where the text is anything else."""
    try:
        tree = json.loads(text or "")
        version = tree[key] if len(tree) == 1 else None
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) and not isinstance(version, bool) and version >= 0 else None
