"""What the demo prints at its end, for a terminal of 80 columns."""

from __future__ import annotations

import shutil
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lakehouse.local.demo_figures import Bill, Conservation
from lakehouse.local.demo_folder import DemoFolder, shown

if TYPE_CHECKING:
    from lakehouse.proof.checks import CheckResult
    from lakehouse.proof.result import Invariant
    from pipelines.gold.reconciliation.outcome import Outcome

_TOP = 5
_RULES = {
    "SLV-001": "too large to be read",
    "SLV-002": "not UTF-8",
    "SLV-003": "empty value",
    "SLV-004": "not one well-formed JSON object",
    "SLV-005": "unknown schema version",
    "SLV-006": "required field missing",
    "SLV-007": "wrong type",
    "SLV-008": "out of range",
}
_SEVERITY_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}


def show_conservation(console: Console, counts: Conservation, invariants: list[Invariant]) -> None:
    """Print where every record went, and the independent checker's verdict."""
    table = _table("Conservation", "records")
    _equal = {True: Text("=", style="green"), False: Text("differs", style="bold red")}
    table.add_row("Kafka acknowledged", f"{counts.acknowledged:,}")
    table.add_row("Bronze", f"{counts.bronze:,}", _equal[counts.bronze == counts.acknowledged] + " Kafka")
    table.add_section()
    table.add_row("Silver", f"{counts.silver:,}", Text(f"{counts.late:,} of them late, kept and flagged", style="dim"))
    table.add_row(
        "+ duplicates", f"{counts.duplicates:,}", Text(f"{counts.conflicts:,} with another payload under a known id", style="dim")
    )
    table.add_row("+ dead letters", f"{counts.dead_letters:,}", Text("each names its rules, below", style="dim"))
    table.add_row("+ tombstones", f"{counts.tombstones:,}")
    table.add_row("together", f"{counts.fates:,}", _equal[counts.fates == counts.bronze] + " Bronze")
    console.print(table)
    console.print()
    violated = [result for result in invariants if result.verdict == "violated"]
    held = [result.id for result in invariants if result.verdict == "holds"]
    if counts.holds and not violated:
        console.print(Text(f"✓ Every record is accounted for: {_ranges(held)} hold,", style="bold green"))
        console.print("  checked without the pipeline's code, from tables and op ledger alone.")
    elif not violated:
        console.print(Text("✗ The records are NOT all accounted for: the sides above differ.", style="bold red"))
    for result in violated:
        first = result.findings[0]
        console.print(Text(f"✗ {result.id} is VIOLATED ({result.title}): {first.count:,} x {first.problem}", style="bold red"))


def show_dead_letters(console: Console, letters: list[tuple[str, int]]) -> None:
    """Print how many dead letters each rule has made."""
    table = _table("Dead letters by rule", "records")
    for rule, count in letters:
        table.add_row(f"{rule}  {_RULES.get(rule, '')}", f"{count:,}")
    console.print()
    console.print(table)


def show_bills(console: Console, day: date, bills: list[Bill], outcome: Outcome) -> None:
    """Print the day's top customers, and how its reconciliation ended."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(f"Bill of {day}")
    for heading in ("events", "errors", "late", "MB"):
        table.add_column(heading, justify="right")
    table.add_column("status")
    for bill in bills[:_TOP]:
        table.add_row(
            bill.customer, f"{bill.events:,}", f"{bill.errors:,}", f"{bill.late:,}", f"{bill.bytes / 1e6:,.1f}", bill.status
        )
    if len(bills) > _TOP:
        rest = bills[_TOP:]
        table.add_row(f"{len(rest):,} others", f"{sum(bill.events for bill in rest):,}", style="dim")
    console.print()
    console.print(table)
    before = f"closed before: {outcome.adjusted:,} adjustments were added to its bill"
    closed = before if outcome.was_final else f"the day is now {outcome.status}"
    if outcome.is_refused:
        closed = f"the gate refused the day, see `lakehouse quality show --date {day}`"
    good = outcome.events_off == 0
    style = "bold green" if good else "yellow"
    console.print(
        Text(f"\n{'✓' if good else '!'} Gold was off by {outcome.events_off:,} of {outcome.events_after:,} events", style=style)
    )
    console.print(f"  against a recompute from Silver version {outcome.silver_version}; {closed}.")


def show_checks(console: Console, results: list[CheckResult]) -> None:
    """Print the SQL checks that found something, and how many did not."""
    console.print()
    passed, red = sum(result.outcome == "passed" for result in results), sum(result.is_red for result in results)
    verdict = Text(f"✗ {red} red", style="bold red") if red else Text("✓ nothing red", style="bold green")
    console.print(verdict + Text(f": {passed} of {len(results)} SQL checks found nothing; the others:", style="not bold default"))
    for result in results:
        if result.outcome == "passed":
            continue
        found = f"{result.count:,}" if result.outcome == "offenders" else result.outcome
        style = "bold red" if result.is_red else _SEVERITY_STYLE[result.check.severity]
        line = Text(f"  {result.check.severity:<8}", style=style) + Text(f" {result.check.id:<21}{found:>7}  ", style="default")
        console.print(line + Text(result.check.title, style="dim"), overflow="ellipsis", no_wrap=True)


def show_next(console: Console, folder: DemoFolder) -> None:
    """Print where everything lies, and commands that go on from here."""
    program, config = _program(), shown(folder.config)
    console.print(Text("\nWhere it lies", style="bold"))
    for name, path in (
        ("lake", folder.path / "lake"),
        ("op ledger", folder.op_ledger),
        ("settings", folder.config),
        ("logs", folder.log),
        ("", folder.spark_log),
    ):
        console.print(Text(f"  {name:<10} {shown(path)}"), soft_wrap=True)
    statement = "SELECT * FROM gold.api_usage_daily ORDER BY event_count DESC LIMIT 10"
    console.print(Text("\nTry next", style="bold"))
    for command, why in (
        ("status", "tables, last batches, offsets"),
        ("check", "the SQL checks, in full"),
        ("verify", "the invariants, in full"),
        (f'sql "{statement}"', ""),
    ):
        _command(console, f"{program} {command} --config {config}", why)
    console.print(Text("\nThe broker ended with the demo and kept its data; to go on live", style="bold"))
    for command, why in (
        ("kafka start", ""),
        ("produce --rate 500 --count 30000 --quiet", "a minute of events"),
        ("up", "all streams, until Ctrl-C"),
        ("kafka stop", ""),
    ):
        name, _, options = command.partition(" --")
        _command(console, f"{program} {name} --config {config}{' --' + options if options else ''}", why)


def _command(console: Console, command: str, why: str) -> None:
    console.print(Text(f"  {command}") + Text(f"   # {why}" if why else "", style="dim"), soft_wrap=True)


def _program() -> str:
    """Return the `lakehouse` that this is, as it can be typed here."""
    own = Path(sys.prefix) / "bin" / "lakehouse"
    found = shutil.which("lakehouse")
    if found and Path(found).resolve() == own.resolve():
        return "lakehouse"
    return shown(own) if own.exists() else f"{sys.executable} -m lakehouse"


def _table(title: str, heading: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(title)
    table.add_column(heading, justify="right")
    table.add_column("")
    return table


def _ranges(ids: list[str]) -> str:
    """Return `I1-I5, I7` for I1, I2, I3, I4, I5 and I7."""
    parts: list[list[int]] = []
    for number in sorted(int(name[1:]) for name in ids):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"I{part[0]}-I{part[-1]}" if len(part) > 1 else f"I{part[0]}" for part in parts)
