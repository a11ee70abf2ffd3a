"""Small text files on any file system that Spark reads (local, s3a, hdfs), through Hadoop's FileSystem."""

from __future__ import annotations

import os
from typing import Any

from pyspark.sql import SparkSession

from pipelines.lake.storage.opening import is_there, names_in


def _file_system(spark: SparkSession, path: str) -> tuple[Any, Any]:
    jvm: Any = spark._jvm
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
    return hadoop_path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), hadoop_path


def exists(spark: SparkSession, path: str) -> bool:
    """Tell whether a file or folder is there; raises UnreadableError where this user may not look."""
    file_system, hadoop_path = _file_system(spark, path)
    return bool(file_system.exists(hadoop_path)) or _is_seen(path)


def list_names(spark: SparkSession, folder: str) -> list[str]:
    """List the names in `folder`; empty where it is absent. Raises UnreadableError where this user may not look."""
    if "://" not in folder:
        return names_in(folder)
    file_system, hadoop_path = _file_system(spark, folder)
    if not file_system.exists(hadoop_path):
        return []
    return sorted(status.getPath().getName() for status in file_system.listStatus(hadoop_path))


def _is_seen(path: str) -> bool:
    """Look again at a local path: Hadoop calls absent what lies in a folder that this user may not search."""
    return "://" not in path and is_there(path)


def read_text(spark: SparkSession, path: str) -> str:
    """Read a UTF-8 file whole."""
    file_system, hadoop_path = _file_system(spark, path)
    stream = file_system.open(hadoop_path)
    try:
        jvm: Any = spark._jvm
        return str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
    finally:
        stream.close()


def write_text(spark: SparkSession, path: str, text: str) -> None:
    """Write a new UTF-8 file; the parent folders are made; an existing file is an error.

    Atomic, as Spark writes its own checkpoints: a crash leaves no cut file, at most a hidden one of another name.
    """
    jvm: Any = spark._jvm
    managers = jvm.org.apache.spark.sql.execution.streaming.checkpointing.CheckpointFileManager
    hadoop_path = jvm.org.apache.hadoop.fs.Path(path)
    manager = managers.create(hadoop_path, spark._jsparkSession.sessionState().newHadoopConf())
    manager.mkdirs(hadoop_path.getParent())
    stream = manager.createAtomic(hadoop_path, False)
    try:
        stream.write(bytearray(text.encode()))
        stream.close()
    except Exception:
        stream.cancel()
        raise


def replace_text(spark: SparkSession, path: str, text: str) -> None:
    """Write a UTF-8 file, also over an existing one; not atomic on every file system, so a reader has to bear a cut one."""
    file_system, hadoop_path = _file_system(spark, path)
    stream = file_system.create(hadoop_path, True)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()


def delete(spark: SparkSession, path: str) -> None:
    """Remove a file where there is one."""
    file_system, hadoop_path = _file_system(spark, path)
    file_system.delete(hadoop_path, False)


def remove_tree(spark: SparkSession, path: str) -> None:
    """Remove a file, or a folder with all that is in it; nothing where it is absent."""
    file_system, hadoop_path = _file_system(spark, path)
    file_system.delete(hadoop_path, True)


def absolute(path: str) -> str:
    """Give a local path from the root, a URI as it is."""
    return path if "://" in path else os.path.abspath(path)
