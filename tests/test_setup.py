"""The set-up script on machines that lack something, with stand-ins for the programs on PATH; and the Makefile's help."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.lake.resources import PROJECT

NEEDED = ("bash", "cat", "cut", "dirname", "find", "mkdir", "mv", "rm", "sed", "sha256sum", "shasum", "sleep", "sort", "env")
JAVA_17 = "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2"
JAVAC_17 = "echo javac 17.0.9"
MAVEN = """case "$*" in
*-version*) echo 'Apache Maven 3.9.6 (abc)' ;;
*)
  for arg; do case $arg in -Djars.dir=*) mkdir -p "${arg#*=}/spark" ;; esac; done
  echo mvn >> calls; sleep 0.3; exit ${MVN_EXIT:-0} ;;
esac"""
PYTHON = f"""if [ "$1 $2" = "-m venv" ]; then
  mkdir -p .venv/bin; echo venv >> calls
  printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' > .venv/bin/python
  printf '#!/bin/sh\\n[ "$1" = --version ] || {{ echo "pip $*" >> calls; exit ${{PIP_EXIT:-0}}; }}\\n' > .venv/bin/pip
  exec {sys.executable} -c 'import os; os.chmod(".venv/bin/python", 0o755); os.chmod(".venv/bin/pip", 0o755)'
fi
exec {sys.executable} "$@\""""
HEALTHY = {"java": JAVA_17, "javac": JAVAC_17, "mvn": MAVEN, "python3.11": PYTHON}


@dataclass(frozen=True)
class Machine:
    """A checkout of what the set-up reads, and a PATH of its own."""

    checkout: Path
    path: Path

    def install(self, programs: Mapping[str, str]) -> None:
        for name, script in programs.items():
            program = self.path / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

    def setup(self, **environ: str) -> subprocess.CompletedProcess[str]:
        process = self.begin_setup(**environ)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def begin_setup(self, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["scripts/setup.sh"],
            cwd=self.checkout,
            env={"PATH": str(self.path), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self) -> list[str]:
        log = self.checkout / "calls"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    checkout, path = tmp_path / "checkout", tmp_path / "bin"
    path.mkdir()
    for folder in ("scripts", "requirements"):
        shutil.copytree(PROJECT / folder, checkout / folder)
    shutil.copytree(PROJECT / "jvm", checkout / "jvm", ignore=shutil.ignore_patterns("target"))
    for file in ("pom.xml", "pyproject.toml"):
        shutil.copy(PROJECT / file, checkout / file)
    for name in NEEDED:
        if found := shutil.which(name):
            (path / name).symlink_to(found)
    machine = Machine(checkout, path)
    machine.install(HEALTHY)
    return machine


def without(name: str) -> Callable[[Machine], None]:
    return lambda machine: (machine.path / name).unlink()


def instead(name: str, script: str) -> Callable[[Machine], None]:
    return lambda machine: machine.install({name: script})


def only_python_3_9(machine: Machine) -> None:
    without("python3.11")(machine)
    machine.install({"python3": 'case "$2" in *print*) echo 3.9.2 ;; *) exit 1 ;; esac'})


@pytest.mark.parametrize(
    ("spoil", "found", "needed", "how"),
    [
        (without("java"), "No working java was found on PATH", "Java 17 or newer", "openjdk-17-jdk"),
        (instead("java", "echo 'openjdk version \"11.0.2\" 2019' >&2"), "version 11.0.2", "Java 17 or newer", "openjdk-17-jdk"),
        (instead("java", "echo 'java version \"1.8.0_392\"' >&2"), "version 1.8.0_392", "Java 17 or newer", "openjdk@17"),
        (
            instead("java", "echo Unable to locate a Java Runtime >&2; exit 1"),
            "No working java",
            "Java 17 or newer",
            "openjdk@17",
        ),
        (without("javac"), "No working javac was found on PATH", "a JDK of Java 17", "openjdk-17-jdk"),
        (instead("javac", "echo javac 11.0.2"), "javac found on PATH is version 11.0.2", "a JDK of Java 17", "openjdk-17-jdk"),
        (without("mvn"), "No Maven (mvn) was found on PATH", "3.6.3 or newer", "apt-get install maven"),
        (instead("mvn", "echo 'Apache Maven 3.5.4'"), "version 3.5.4", "3.6.3 or newer", "brew install maven"),
        (without("python3.11"), "no Python was found", "3.11 or newer", "apt-get install python3.11"),
        (
            only_python_3_9,
            "only Python 3.9.2 (python3) was found",
            "3.11 or newer",
            "brew install python@3.11",
        ),
        (
            instead("python3.11", f'case "$*" in *ensurepip*) exit 1 ;; esac; exec {sys.executable} "$@"'),
            "lacks the venv module",
            "is needed",
            "-venv`",
        ),
    ],
)
def test_what_is_missing_is_one_sentence_and_nothing_is_made(
    machine: Machine, spoil: Callable[[Machine], object], found: str, needed: str, how: str
) -> None:
    spoil(machine)
    before = sorted(machine.checkout.rglob("*"))
    done = machine.setup()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("setup: ")
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in (found, needed, how)), done.stderr
    assert sorted(machine.checkout.rglob("*")) == before


def test_java_of_java_home_is_the_one_that_counts(machine: Machine) -> None:
    done = machine.setup(JAVA_HOME="/nowhere")
    assert done.returncode == 1
    assert "No working java was found in JAVA_HOME (/nowhere)" in done.stderr


def test_second_time_only_looks_and_a_changed_input_is_made_again(machine: Machine) -> None:
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    calls = machine.calls()
    assert [call.split()[0] for call in calls] == ["mvn", "venv", "pip", "pip", "pip"]
    assert all("--require-hashes" in call for call in calls[2:4])
    assert "--no-index" in calls[4]

    second = machine.setup()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert machine.calls() == calls
    (machine.path / "mvn").unlink()
    assert machine.setup().returncode == 0

    machine.install({"mvn": MAVEN})
    with (machine.checkout / "pom.xml").open("a") as pom:
        pom.write("<!-- changed -->\n")
    assert machine.setup().returncode == 0
    assert machine.calls() == [*calls, "mvn"]
    with (machine.checkout / "requirements" / "dev.txt").open("a") as lock:
        lock.write("# changed\n")
    assert machine.setup().returncode == 0
    assert [call.split()[0] for call in machine.calls()] == ["mvn", "venv", "pip", "pip", "pip", "mvn", "pip", "pip", "pip"]


def test_failed_download_leaves_nothing_half_made(machine: Machine) -> None:
    no_jars = machine.setup(MVN_EXIT="1")
    assert no_jars.returncode == 1
    assert "Maven could not build the jars" in no_jars.stderr
    assert not (machine.checkout / "build" / "jars").exists()
    assert not (machine.checkout / "build" / "jars.new").exists()
    no_packages = machine.setup(PIP_EXIT="1")
    assert no_packages.returncode == 1
    assert "The Python packages could not be installed" in no_packages.stderr
    assert not (machine.checkout / ".venv").exists()
    assert machine.setup().returncode == 0


def test_two_at_once_make_it_once(machine: Machine) -> None:
    processes = [machine.begin_setup() for _ in range(2)]
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    assert [call.split()[0] for call in machine.calls()] == ["mvn", "venv", "pip", "pip", "pip"]


def test_lock_files_have_hashes_and_name_no_host() -> None:
    for name in ("build", "runtime", "dev"):
        text = (PROJECT / "requirements" / f"{name}.txt").read_text()
        assert "://" not in text
        pins = re.findall(r"^[a-z0-9A-Z._-]+==\S+.*$", text, re.MULTILINE)
        assert pins
        assert all(pin.endswith("\\") for pin in pins)
        assert "--index-url" not in text


def test_plain_make_prints_help_with_every_target_and_knob() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    makefile = (PROJECT / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):", makefile, re.MULTILINE)
    knobs = re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)
    assert {"demo", "test", "check", "bench", "lock", "setup", "clean", "help"} <= set(targets)
    assert all(re.search(rf"^  {name} +\S", shown.stdout, re.MULTILINE) for name in [*targets, *knobs])
    assert re.search(r"^  EVENTS +100000 ", shown.stdout, re.MULTILINE)
