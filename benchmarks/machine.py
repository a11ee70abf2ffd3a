"""What the bench ran on: nothing that names a host, a person or a path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

from pipelines.lake.resources import PROJECT

_PACKAGES = ("pyspark", "delta-spark", "deltalake", "duckdb", "confluent-kafka", "pyarrow")


def describe_machine() -> dict[str, str]:
    """Give hardware, kernel and versions, by label."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    kernel = re.match(r"\d+(\.\d+)*", platform.release())
    return {
        "CPU": cpu.group(1).strip() if cpu else platform.machine(),
        "Cores": str(len(os.sched_getaffinity(0))),
        "Memory": f"{int(memory.group(1)) / 1024**2:.1f} GiB" if memory else "unknown",
        "Kernel": f"{platform.system()} {kernel.group(0) if kernel else ''}".strip(),
        "Java": _java(),
        "Python": platform.python_version(),
        "Kafka": _kafka(),
        **{name: version(name) for name in _PACKAGES},
    }


def load_average() -> float:
    """Processes that wanted to run in the last minute, on average."""
    return os.getloadavg()[0]


def _java() -> str:
    text = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "([^"]+)"', text)
    return found.group(1) if found else "unknown"


def _kafka() -> str:
    names = [path.stem for path in (PROJECT / "build" / "jars" / "broker").glob("kafka_2.13-*.jar")]
    return names[0].rpartition("-")[2] if names else "unknown"


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")
