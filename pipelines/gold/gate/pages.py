"""Makes an audit's pages (Data Docs) and puts them in the lake: plain HTML that loads nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.view.view import DefaultJinjaPageView

from pipelines.gold.gate.results import Audit, Result
from pipelines.lake.settings import Settings
from pipelines.lake.storage.backends import open_storage
from pipelines.lake.tables import QUALITY_RESULTS

_LEFT_OUT = re.compile(
    r"<style\b.*?</style>|<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<nav\b.*?</nav>|<footer\b.*?</footer>"
    r'|<div class="modal.*?(?=<div class="container)',
    re.DOTALL | re.IGNORECASE,
)
"""What the library's pages load from the internet, and what leads to other pages of its own site: the tables need none of it."""
_ELSEWHERE = re.compile(r'<a [^>]*href="(?:\.\./)+[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
_HEADINGS = ("expectation", "severity", "holds", "observed", "expected", "what it is for", "playbook")
_STYLE = """<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1d2733; }
body { background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } a { color: #0b5cad; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid #d8dee6; }
th { background: #f2f5f8; } td ul { margin: 0; padding-left: 1.1rem; }
.badge { background: #eef1f5; border-radius: .25rem; padding: 0 .3rem; }
.fails { color: #a01b1b; font-weight: 600; } .warns { color: #8a5a00; font-weight: 600; } .holds { color: #1d6b34; }
.collapse, .card.mb-3, .d-md-block, [data-toggle=collapse] { display: none; } ol { list-style: none; padding: 0; }
.fa-check-circle::before { content: "holds"; color: #1d6b34; } .fa-times::before { content: "fails"; color: #a01b1b; }
.fa-exclamation-triangle::before { content: "not evaluated"; color: #a01b1b; } .fas { font-style: normal; font-weight: 600; }
</style>"""


def docs_folder(settings: Settings) -> str:
    """Folder of all audits' pages."""
    return settings.quality.docs or f"{settings.lake.root.rstrip('/')}/{QUALITY_RESULTS.layer}/quality_docs"


def write_pages(settings: Settings, audit: Audit, validations: Sequence[ExpectationSuiteValidationResult]) -> Audit:
    """Write a page for each suite and an index, `<docs>/<day>/<run>/index.html`; give the audit with the index's path."""
    folder = f"{docs_folder(settings)}/{audit.day}/{audit.run_id}"
    storage = open_storage(folder)
    for validation in validations:
        storage.replace(f"{validation.suite_name}.html", _page(validation).encode())
    storage.replace("index.html", _index(audit).encode())
    return replace(audit, docs=f"{folder}/index.html")


def _page(validation: ExpectationSuiteValidationResult) -> str:
    html: str = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(validation))  # type: ignore[no-untyped-call]
    own = _ELSEWHERE.sub(r"\1", _LEFT_OUT.sub("", html))
    return own.replace("</head>", f"{_STYLE}</head>", 1)


def _index(audit: Audit) -> str:
    title = f"Audit of {audit.day}: {audit.gate}"
    facts = [
        f"Run {audit.run_id}, {audit.audited_at:%Y-%m-%d %H:%M:%S} UTC; Silver version {audit.silver_version}"
        + (f", candidate version {audit.gold_version}" if audit.gold_version is not None else "")
        + ".",
        f"{len(audit.results)} expectations: {len(audit.failures)} fail, {len(audit.blocking)} of them block.",
    ]
    if audit.override:
        facts.append(f"Published all the same by {audit.override.by}: {audit.override.reason}")
    body = "".join(f"<p>{escape(fact)}</p>" for fact in facts)
    body += "".join(_suite(audit, name) for name in dict.fromkeys(result.suite for result in audit.results))
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>{_STYLE}</head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def _suite(audit: Audit, name: str) -> str:
    head = "".join(f"<th>{heading}</th>" for heading in _HEADINGS)
    rows = sorted((one for one in audit.results if one.suite == name), key=lambda one: (not one.blocks, not one.failed))
    table = "".join(_row(one) for one in rows)
    return f'<h2><a href="{escape(name)}.html">{escape(name)}</a></h2><table><tr>{head}</tr>{table}</table>'


def _row(one: Result) -> str:
    holds = "not evaluated" if one.success is None else "yes" if one.success else "no"
    style = "holds" if not one.failed else "fails" if one.blocks else "warns"
    cells = (one.expectation, one.severity, holds, one.observed, one.expected, one.says, one.playbook)
    marked = (
        f'<td class="{style}">{escape(cell)}</td>' if at == 2 else f"<td>{escape(cell)}</td>" for at, cell in enumerate(cells)
    )
    return f"<tr>{''.join(marked)}</tr>"
