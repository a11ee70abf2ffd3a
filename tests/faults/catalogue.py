"""The faults that the system survives: the rows of docs/reliability.md, shown by tests that bear the mark `case`."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A fault, and the invariants that have to hold after it."""

    what: str
    proof: str


_STORE = "(object store)"

FAULTS = {
    "D1": Fault("driver killed before the offset log is written", "I1 I2"),
    "D2": Fault("killed after the offset log, before the Bronze commit", "I1 I2 I8"),
    "D3": Fault("killed after Parquet is written, before the Delta commit", "I2 I7"),
    "D4": Fault("killed after the Delta commit, before the commit log", "I2 I8"),
    "D5": Fault("killed between the writes of one Silver batch", "I3"),
    "D6": Fault("killed in a Gold MERGE", "I5 I6 I7"),
    "D7": Fault("killed at each step of the daily batch", "I5 I6"),
    "D8": Fault("ten kills at random moments under load", "I1-I6 I9"),
    "D9": Fault("SIGTERM within a batch", "I1 I2 I9"),
    "D10": Fault("SIGSTOP for 60 s, then SIGCONT", "I1 I2 I9"),
    "D11": Fault("a second driver on the same checkpoint or table", "I2 I10"),
    "D12": Fault("Python worker or JVM killed under its driver", "I1 I9"),
    "D13": Fault("driver out of memory", "I1 I10"),
    "K1": Fault("broker killed and started again, during each stage", "I1 I9"),
    "K2": Fault("broker stopped for 90 s", "I1 I9"),
    "K3": Fault("one of three brokers lost", "I1"),
    "K4": Fault("a partition's log lost", "I10"),
    "K5": Fault("retention passed the reader", "I10"),
    "K6": Fault("topic deleted and made anew", "I10"),
    "K7": Fault("partitions added while running", "I1"),
    "K8": Fault("aborted transactions, control records, compaction", "I1 I4"),
    "K9": Fault("connections cut, slowed by 2 s, reset", "I1 I2 I9"),
    "K10": Fault("producer retries without idempotence", "I3 I4"),
    "S1": Fault(f"500/503 on a fifth of the requests {_STORE}", "I7 I9"),
    "S2": Fault(f"503 on all requests for minutes {_STORE}", "I9 I10"),
    "S3": Fault(f"answers cut short {_STORE}", "I5 I7"),
    "S4": Fault(f"credentials rotated in mid-run {_STORE}", "I9 I10"),
    "S5": Fault(f"a slow store {_STORE}", "I1 I9"),
    "S6": Fault("disk full: spill, table, checkpoint", "I1 I5 I7 I8"),
    "S7": Fault("read-only folder, no permission", "I10"),
    "S8": Fault(f"two drivers write one table at once {_STORE}", "I5 I7"),
    "R1": Fault("newest offset file empty or cut", "I10 I1 I2"),
    "R2": Fault("newest commit file deleted", "I2"),
    "R3": Fault("whole checkpoint lost", "I1 I2"),
    "R4": Fault("Delta commit file cut or deleted", "I7 I10"),
    "R5": Fault("a bit flipped in a data file", "I7 I11"),
    "R6": Fault("a data file deleted", "I5 I10"),
    "R7": Fault("table restored to an old version, then the stream goes on", "I3 I8"),
    "M1": Fault("invalid UTF-8 in value or key", "I3 I11"),
    "M2": Fault("tombstone, empty value, NULL key", "I3"),
    "M3": Fault("changed type, missing field, unknown field", "I3"),
    "M4": Fault("a record of the greatest size", "I1 I11"),
    "M5": Fault("the same event_id with another payload", "I4"),
    "M6": Fault("copies in one batch, across batches, days, restarts", "I4"),
    "M7": Fault("clocks ten years ahead, in 1970, an hour back", "I1 I12"),
    "M8": Fault("an event 30 days late", "I5 I12"),
    "M9": Fault("a flood of nothing but poison", "I3 I10"),
    "V1": Fault("instants and magnitudes at the edges of each type, of the range that is held, and beyond", "I1 I3 I5 I13"),
    "V2": Fault("values whose sums reach the bounds, in totals and in adjustments", "I5"),
    "V3": Fault("odd but lawful JSON: surrogates, long numbers and keys, in known and unknown fields", "I13"),
    "N1": Fault("somebody's commits with words of any form", "I1 I2"),
    "N2": Fault("table features and properties switched by somebody", "I1 I10"),
    "N3": Fault("OPTIMIZE and VACUUM by somebody, RETAIN 0 under readers that are behind", "I3 I10"),
    "N4": Fault("rows deleted, changed, added by hand in each table", "I10"),
    "N5": Fault("derived files corrupt: Delta checkpoint, `_last_checkpoint`, `.crc`", "I7"),
    "N6": Fault("no permission on a table, a log, a lock, a lease", "I10"),
    "N7": Fault("few file handles, C locale with other paths, umask, SIGHUP, output that is closed", "I10"),
    "C1": Fault("Gold stream and daily batch on the same day at once", "I5 I6"),
    "C2": Fault("OPTIMIZE or VACUUM during a MERGE", "I5 I7"),
    "C3": Fault("daily batch twice, for an open day, for a day a week back", "I5 I6"),
    "C4": Fault("columns added while running; dropped, renamed, widened", "I5 I10"),
    "C5": Fault("upgrade and rollback on an old checkpoint", "I1 I2"),
    "C6": Fault("schema source down (metrics and alerts: not built yet)", "I9"),
}
