"""`lakehouse doctor`: what is wrong, how sure that is, what is at stake, and the commands that mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lakehouse.operations.doctor.diagnosis import diagnose, examined
from lakehouse.operations.doctor.findings import Finding, exit_code
from lakehouse.operations.doctor.reading import read_facts
from pipelines.lake.settings_sources import process_settings

_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON list.")] = False,
    config: Annotated[Path, typer.Option(help="Settings file.")] = Path("conf/local.yaml"),
) -> None:
    """Look at Kafka, tables, checkpoints, ledger, leases, dead letters, breaker, batch times and disks; nothing is changed.

    Exit code 0: nothing is wrong, or only infos; 1: a warning; 3: something critical; 2: wrong settings, or no lake.
    """
    facts = read_facts(process_settings(config), str(config))
    findings = diagnose(facts)
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=1))
    else:
        _show(findings, examined(facts))
    raise typer.Exit(exit_code(findings))


def _show(findings: list[Finding], examined: str) -> None:
    console = Console(soft_wrap=True)
    for finding in findings:
        _show_one(console, finding)
    if all(finding.severity == "info" for finding in findings):
        console.print(Text(f"Healthy: looked at {examined}.", style="green"))
    else:
        wrong = [finding.severity for finding in findings]
        console.print(Text(f"Critical: {wrong.count('critical')}, warnings: {wrong.count('warning')}; looked at {examined}."))


def _show_one(console: Console, finding: Finding) -> None:
    console.print(
        Text(
            f"{finding.severity.upper()}  {finding.title}  ({finding.confidence}; {finding.id})", style=_STYLES[finding.severity]
        )
    )
    console.print(Text(f"  seen:      {finding.evidence}"))
    console.print(Text(f"  at stake:  {finding.at_stake}"))
    console.print(Text(f"  playbook:  {finding.playbook_file}"))
    for command in finding.commands:
        console.print(Text(f"    {command}", style="bold"))
    console.print()
