"""Evaluates suites with Great Expectations on Spark's DataFrames. Its import takes seconds: only a run that audits imports this.

Rows stay on the executors: what comes back of an expectation is a count or a figure, and never a value of a row.
"""

from __future__ import annotations

import difflib
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import great_expectations as gx
from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult, ExpectationValidationResult
from great_expectations.data_context.data_context.abstract_data_context import AbstractDataContext
from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults, ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch
from great_expectations.exceptions.exceptions import ExpectationNotFoundError
from great_expectations.expectations.expectation import Expectation as GreatExpectation
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations
from pyspark.sql import DataFrame

from pipelines.gold.gate.results import Result
from pipelines.gold.gate.suites import BLOCKS, Expectation, Suite
from pipelines.lake.errors import SettingsError
from pipelines.lake.logging import Log

_LOG = Log("gate")
_COUNTS_ONLY = {"result_format": "BASIC", "partial_unexpected_count": 0}
_READS_ROWS = (
    "unexpected_rows_expectation",
    "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table",
)
"""Types that fetch rows into the driver, or read another database."""
_SIDE_BY_SIDE = 2
"""Suites evaluated at a time: while one waits for Spark, the library builds the queries of another."""
_CLASS = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception)):", re.MULTILINE)
Figures = Mapping[str, Mapping[str, Any]]
"""By the name of a set of rows that has one row: its values, by column."""
Evaluated = tuple[list[Result], list[ExpectationSuiteValidationResult]]


def check_expectations(suites: Sequence[Suite]) -> None:
    """Raise SettingsError, one sentence, at the first expectation whose type or arguments Great Expectations does not know."""
    for suite in suites:
        for one in suite.expectations:
            _build(suite.name, one)


def evaluate(suites: Sequence[Suite], frames: Mapping[str, DataFrame], figures: Figures) -> Evaluated:
    """Evaluate each suite on its frame; give the results, and what Great Expectations makes its pages of.

    `figures`: values of the frames that have one row, which are told as what was observed.
    """
    with _quiet():
        context = gx.get_context(mode="ephemeral", project_config=_config())
        # A source, and so an engine, for each suite: an engine knows one batch at a time, and two suites run side by side.
        batches = [_batch(context, suite, frames[suite.audits]) for suite in suites]
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            validations = list(pool.map(_validate, batches, suites))
    results = []
    for suite, validation in zip(suites, validations, strict=True):
        by_id = {one.expectation_config.meta["id"]: one for one in validation.results}  # type: ignore[union-attr]
        known = figures.get(suite.audits, {})
        results += [_result(suite.name, one, by_id[one.id], known) for one in suite.expectations]
        _forget_messages(validation)
    return results, validations


def _batch(context: AbstractDataContext, suite: Suite, frame: DataFrame) -> Batch:
    asset = context.data_sources.add_spark(suite.name, persist=False).add_dataframe_asset(suite.name)
    return asset.add_batch_definition_whole_dataframe("day").get_batch({"dataframe": frame})


def _validate(batch: Batch, suite: Suite) -> ExpectationSuiteValidationResult:
    expectations = [_build(suite.name, one) for one in suite.expectations]
    made = gx.ExpectationSuite(name=suite.name, expectations=expectations)
    return batch.validate(made, result_format=_COUNTS_ONLY)


def _forget_messages(validation: ExpectationSuiteValidationResult) -> None:
    """Keep the class of each exception alone, for the pages too: a message may quote what a row holds."""
    for one in validation.results:
        if one.exception_info and _raised(one.exception_info):
            kind = _kind_of(one.exception_info)
            one.exception_info = {"raised_exception": True, "exception_message": kind, "exception_traceback": f"{kind}:"}


def _build(suite: str, one: Expectation) -> GreatExpectation:
    place = f"The expectation `{one.id}` of the suite {suite}"
    if one.type in _READS_ROWS:
        msg = f"{place} has the type `{one.type}`, which reads rows into the driver; use a type that counts or compares a column."
        raise SettingsError(msg)
    try:
        kind = get_expectation_impl(one.type)
    except ExpectationNotFoundError:
        near = _nearest(one.type)
        msg = f"{place} has the type `{one.type}`, which Great Expectations does not know; {near or 'look it up in its gallery'}."
        raise SettingsError(msg) from None
    least, most = one.kwargs.get("min_value"), one.kwargs.get("max_value")
    if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
        msg = f"{place} can never hold: its `min_value` {least} is above its `max_value` {most}; correct its `kwargs`."
        raise SettingsError(msg)
    severity = FailureSeverity.CRITICAL if one.severity == BLOCKS else FailureSeverity.WARNING
    try:
        return kind(**one.kwargs, description=one.says, severity=severity, meta={"id": one.id, "playbook": one.playbook})
    except (ValueError, TypeError) as error:
        # Messages of pydantic quote types and names of arguments, and no values of rows: there are none yet.
        reason = " ".join(str(error).split("\n", 1)[-1].split())[:200]
        msg = f"{place} has arguments that `{one.type}` does not take ({reason}); correct its `kwargs`."
        raise SettingsError(msg) from None


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, list_registered_expectation_implementations(), 1)
    return f"did you mean `{near[0]}`?" if near else ""


def _result(suite: str, one: Expectation, found: ExpectationValidationResult, figures: Mapping[str, Any]) -> Result:
    raised = bool(found.exception_info) and _raised(found.exception_info)
    if raised:
        _LOG.warning(
            "an expectation could not be evaluated", suite=suite, expectation=one.id, error=_kind_of(found.exception_info)
        )
    success = None if raised else bool(found.success)
    observed = f"not evaluated ({_kind_of(found.exception_info)})" if raised else _observed(one, found.result or {}, figures)
    return Result(suite, one.id, one.severity, success, observed, describe(one), one.says, one.playbook)


def _raised(info: Mapping[str, Any]) -> bool:
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(isinstance(one, Mapping) and one.get("raised_exception") for one in info.values())


def _kind_of(info: Mapping[str, Any]) -> str:
    first = info if "raised_exception" in info else next(iter(info.values()))
    classes = _CLASS.findall(str(first.get("exception_traceback") or ""))
    return classes[-1] if classes else "unknown error"


def _observed(one: Expectation, result: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    if one.columns and all(name in figures for name in one.columns):
        return ", ".join(_figure(figures[name]) for name in one.columns)
    if "observed_value" in result:
        return _figure(result["observed_value"])
    if "unexpected_count" in result:
        return f"{result['unexpected_count'] or 0:,} of {result.get('element_count') or 0:,} rows are otherwise"
    return "no figure"


def _figure(value: Any) -> str:
    if value is None:
        return "nothing to compare with"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    # Of lists and the like, which may hold what rows hold, the page tells.
    return f"{value:,}" if isinstance(value, int) else "see the audit's page"


def describe(one: Expectation) -> str:
    """What is expected, in words."""
    kwargs = one.kwargs
    least, most = kwargs.get("min_value"), kwargs.get("max_value")
    if least is not None and most is not None:
        said = f"{_bound(least)}" if least == most else f"from {_bound(least)} to {_bound(most)}"
    elif least is not None or most is not None:
        said = f"{_bound(least)} or more" if least is not None else f"{_bound(most)} or less"
    elif isinstance(kwargs.get("value_set"), list):
        said = f"one of {', '.join(map(str, kwargs['value_set']))}"
    else:
        said = one.type.removeprefix("expect_").replace("_", " ")
    share = f" in at least {100 * kwargs['mostly']:.4g} % of the rows" if isinstance(kwargs.get("mostly"), float) else ""
    return f"{', '.join(one.columns)}: {said}{share}" if one.columns else f"{said}{share}"


def _bound(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _config() -> DataContextConfig:
    """A context that lives in this process alone: no folder, no file, nothing sent to anybody, no bars on the console."""
    return DataContextConfig(
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False, metric_calculations=False),
        store_backend_defaults=InMemoryStoreBackendDefaults(),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's own log lines and warnings off the console: they quote plans and values."""
    logger = logging.getLogger("great_expectations")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
