"""Finds the playbook for an error that was met while a table was read, also where only its words are left."""

from __future__ import annotations

from pipelines.lake import playbooks
from pipelines.lake.causes.cause import Kind
from pipelines.lake.causes.classify import classify
from pipelines.lake.playbooks import page_for_files_of, path_of

_DeltaError = type("DeltaError", (Exception,), {})
"""Stands for deltalake's error of that name, whose import takes longer than all else here."""


def page_for(error: BaseException, table: str) -> str:
    """Path of the page for an error that was met while `table` was read."""
    return path_of(_of_table(classify(error).playbook, table))


def page_for_words(words: str, table: str | None = None, otherwise: str | None = None) -> str:
    """Name of the page for an error of which only the words are left, as in the facts of the doctor: that of the error itself.

    `table` is the one that was read; where nobody knows the words it is taken for damaged, else for `otherwise`.
    """
    cause = classify(_DeltaError(words))
    if cause.kind is Kind.UNKNOWN:
        return page_for_files_of(table) if table else otherwise or playbooks.UNKNOWN
    return _of_table(cause.playbook, table)


def _of_table(path: str, table: str | None) -> str:
    page = path.removeprefix("playbooks/").removesuffix(".md")
    return page_for_files_of(table) if table and page == playbooks.TABLE_FILES else page
