"""Fixtures of several test folders: each server is started once, on a free port, in a temporary folder."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from pyspark.sql import SparkSession

from lakehouse.local.kafka_broker import EmbeddedBroker
from pipelines.lake.settings_sources import load_settings
from pipelines.runtime.session import build_session
from tests.faults.evidence import Evidence

INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}
"""Options of a session that runs plans on a few rows: compiling a plan costs more."""


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command run within a test sends logs to that test's captured stream, and none after its last sentence.

    Later tests must not write to that stream, it is closed; their own logs are on again.
    """
    logger = logging.getLogger("lakehouse")
    before = (logger.handlers, logger.level, logger.propagate)
    yield
    logger.handlers, logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
    logging.disable(logging.NOTSET)


@pytest.fixture
def evidence(record_property: Callable[[str, object], None]) -> Evidence:
    """What the test says for docs/reliability.md."""
    return Evidence(record_property)


Copy = Callable[[Path, Callable[[Path], None]], None]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Gives a folder what a function puts into one: it is called for the first test of a module, the others get a copy."""
    made: dict[str, Path] = {}

    def copy(folder: Path, make: Callable[[Path], None]) -> None:
        if make.__qualname__ not in made:
            first = tmp_path_factory.mktemp("made")
            make(first)
            made[make.__qualname__] = first
        shutil.copytree(made[make.__qualname__], folder, dirs_exist_ok=True)

    return copy


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A running Kafka broker for the whole session: give each test a topic of its own."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The one Spark session of a test run, small: its start costs 10 to 20 s on two cores."""
    folder = tmp_path_factory.mktemp("spark")
    options = {
        "spark.driver.memory": "2g",
        "spark.master": "local[2]",
        "spark.default.parallelism": "2",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "local"),
    }
    if quick := os.environ.get("SPARK_SUBMIT_OPTS"):
        options |= INTERPRETED  # the processes that tests start compile as the system does
    session = build_session(load_settings(None, environ={}, overrides={"spark": options}), "tests")
    if quick:
        # What the tests start as processes of their own lives for seconds: too short for the optimising compiler to pay.
        # Java reserves 48 MB for code of that level by itself: a demo fills them, and Java says so in its output.
        os.environ["SPARK_SUBMIT_OPTS"] = f"{quick} -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=128m"
    yield session
    session.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Endpoint of a real S3 server (moto's) in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "server.log").open("wb")
    # Without a home of its own it would read the user's credentials.
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{endpoint}/moto-api/", timeout=1).close()  # noqa: S310 - loopback
                break
            except OSError:
                assert process.poll() is None, "the S3 server ended"
                time.sleep(0.1)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)
        log.close()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, which boto3's environment leads to; returns `s3://<bucket>`."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"
