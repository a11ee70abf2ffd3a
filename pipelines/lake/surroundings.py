"""The process's surroundings that a JVM takes over from it: file handles, umask, locale; checked before anything is made."""

from __future__ import annotations

import codecs
import locale
import os
import re
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.lake.errors import UsageError
from pipelines.lake.places import absolute, local_path
from pipelines.lake.settings import Settings

NEEDED_HANDLES = 1024
"""Spark opens 330 for its jars alone, and one more for each file, socket and thread's selector."""
_WANTED_HANDLES = 65_536
_UTF8_LOCALES = ("C.UTF-8", "C.utf8", "en_US.UTF-8")


def raise_file_limit() -> None:
    """Let this process open as many files as it may; raises UsageError where that is too few for Spark or Kafka."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _WANTED_HANDLES if hard == resource.RLIM_INFINITY else hard
    if allowed < NEEDED_HANDLES:
        msg = (
            f"This process may open {allowed} files, at least {NEEDED_HANDLES} are needed for a JVM; "
            f"raise the limit (`ulimit -n {NEEDED_HANDLES}`, or LimitNOFILE of the service) and start again."
        )
        raise UsageError(msg)
    wanted = min(allowed, _WANTED_HANDLES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a kernel that has a lower bound than it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def current_umask() -> int:
    """The umask of this process."""
    # There is no call that only reads it; where the kernel tells, no other thread can see the moment in between.
    try:
        found = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def jvm_locale(paths: Iterable[str]) -> str | None:
    """The locale that a JVM needs to spell file names as Python does; None where it has it already.

    A JVM takes the encoding of names from the locale; in the C locale it writes `?` for all but ASCII, while Python writes
    UTF-8. Raises UsageError where `paths` cannot be spelled and no UTF-8 locale is there.
    """
    paths = tuple(paths)
    require_spelling(paths, sys.getfilesystemencoding())
    if _same(locale.getencoding(), sys.getfilesystemencoding()):
        return None
    known = next((name for name in _UTF8_LOCALES if _is_installed(name)), None)
    if known is None:
        require_spelling(paths, locale.getencoding())
    return known


def require_spelling(paths: Iterable[str], encoding: str) -> None:
    """Raise UsageError where one of `paths` has letters that file names in `encoding` cannot have."""
    for path in paths:
        full = absolute(path)
        try:
            full.encode(encoding)
        except (UnicodeEncodeError, LookupError):
            msg = (
                f"The path {full} has letters that the locale ({encoding}) cannot spell in a file name; "
                "set LC_ALL=C.UTF-8, or another UTF-8 locale, and start again."
            )
            raise UsageError(msg) from None


@contextmanager
def locale_for_jvm(name: str | None) -> Iterator[None]:
    """Let processes that are started within the block have the locale `name`; None changes nothing."""
    before = os.environ.get("LC_ALL")
    if name is not None:
        os.environ["LC_ALL"] = name
    try:
        yield
    finally:
        if name is not None:
            if before is None:
                del os.environ["LC_ALL"]
            else:
                os.environ["LC_ALL"] = before


def paths_of(settings: Settings) -> list[str]:
    """The paths of the settings that a JVM reads or writes, and this process's own folder."""
    lake = settings.lake
    given = (lake.root, lake.checkpoints, lake.state_dir, settings.retention.archive)
    return [os.getcwd(), *(local_path(path) for path in given if path)]


def _same(one: str, other: str) -> bool:
    try:
        return codecs.lookup(one).name == codecs.lookup(other).name
    except LookupError:  # a locale's charset that Python does not know
        return False


def _is_installed(name: str) -> bool:
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True
