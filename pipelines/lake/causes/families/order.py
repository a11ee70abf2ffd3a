"""Puts the families of errors in the order in which they are tried: the first that fits wins."""

from __future__ import annotations

from pipelines.lake.causes.families import checkpoints, kafka, machine, spark, storage, tables

FAMILIES = (
    # A trace holds the whole chain of causes, so what is certain comes before what is general.
    spark.LOST_JVM,
    kafka.LOST_OFFSETS,
    checkpoints.WRONG_CHECKSUM,
    # Limits and permissions first: Java says them within a FileNotFoundException, and Spark within one of its own.
    machine.LIMIT,
    machine.WRONG_PROGRAM,
    machine.NO_PERMISSION,
    tables.CHANGED_TABLE,
    tables.LOST_OR_CUT_FILE,
    checkpoints.CUT,
    kafka.REFUSED,
    storage.REFUSED,
    storage.IO_ERROR,
    machine.NO_MEMORY,
    tables.CONFLICT,
    storage.DISK_FULL,
    kafka.NO_ANSWER,
    storage.NO_ANSWER,
    spark.LOST_WORKER,
    spark.NO_ANSWER,
    tables.OTHER_COLUMNS,
    checkpoints.NO_FIT,
    tables.NO_TABLE,
    spark.LOST_OWN_FILES,
    tables.MISSING_FILE,
    spark.BAD_RECORD,
)
