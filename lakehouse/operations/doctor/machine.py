"""The machine: room on the disks, and leases whose holder does not come to an end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta

from lakehouse.operations.doctor.facts import Disk, Facts, HeldBy
from lakehouse.operations.doctor.findings import Finding

LOW_SHARE, LOW_BYTES = 0.10, 2**30
FULL_SHARE, FULL_BYTES = 0.02, 256 * 2**20


def check_machine(facts: Facts) -> Iterator[Finding]:
    """Look at the disks and the leases."""
    for disk in facts.disks:
        if disk.free < LOW_BYTES or disk.free < LOW_SHARE * disk.total:
            yield _low(disk)
    for layer, held in facts.leases.items():
        idle = _idle(facts, layer, held)
        if held.is_stopped or idle > timedelta(seconds=facts.settings.leases.wait_seconds):
            yield _long_held(facts, layer, held, idle)


def _low(disk: Disk) -> Finding:
    is_full = disk.free < FULL_BYTES or disk.free < FULL_SHARE * disk.total
    path = shlex.quote(disk.path)
    return Finding(
        id="disk-full" if is_full else "disk-low",
        severity="critical" if is_full else "warning",
        title=f"The disk of {disk.path} is {'full' if is_full else 'nearly full'}",
        evidence=f"{disk.free / 2**30:,.2f} of {disk.total / 2**30:,.1f} GiB are free ({disk.free / max(1, disk.total):.1%}).",
        confidence="certain",
        at_stake="Batches fail where they cannot write; none is half visible, and the streams go on once there is room.",
        playbook="disk-full",
        commands=(f"df -h {path}", f"du -xh --max-depth=2 {path}"),
    )


def _idle(facts: Facts, layer: str, held: HeldBy) -> timedelta:
    """How long the holder may have held the lease: since it began, or since the layer's last batch if that was later."""
    rows = facts.rows.get(layer, [])
    began = datetime.fromisoformat(held.holder.since)
    return facts.now - max([began, *(row.committed_at for row in rows[-1:])])


def _long_held(facts: Facts, layer: str, held: HeldBy, idle: timedelta) -> Finding:
    state = ", and its process is stopped (SIGSTOP)" if held.is_stopped else ""
    pid, quiet = held.holder.pid, timedelta(seconds=round(idle.total_seconds()))
    return Finding(
        id="lease-held",
        severity="critical" if held.is_stopped else "warning",
        title=f"The lease of {layer} is not given back",
        evidence=f"{held.holder} holds it now, and no batch of {layer} was committed for {quiet}{state}.",
        # A stream that has just woken after a long rest looks the same for a moment.
        confidence="certain" if held.is_stopped else "possible",
        at_stake=f"No other writer of {layer} gets on; each gives up after {facts.settings.leases.wait_seconds:g} s.",
        playbook="spark-crash",
        commands=(f"kill -CONT {pid}" if held.is_stopped else f"kill -TERM {pid}", facts.commands.lakehouse("status")),
    )
