"""The catalogue as people read it: a page for each kind on the gateway, and docs/problems.md.

python -m deployments.gateway.problems.pages > docs/problems.md
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from deployments.gateway.problems.catalogue import KINDS, PAGES, Kind

_HEAD: Final = """# Problems

Every refusal is an RFC 9457 document, `application/problem+json`. Its `type` is one of these, relative to the cluster
that sent it: `/problems/malformed` leads to a page of that cluster. A `type` keeps its meaning; new ones may come, so
treat one that you do not know by its status. Where `Retry-After` is sent, trying again sooner is of no use.

This page is written by `python -m deployments.gateway.problems.pages`; a test holds it to the catalogue.

| type | status | title | try again? |
|---|---|---|---|
"""


def markdown() -> str:
    """docs/problems.md."""
    rows = "".join(
        f"| [`{kind.uri}`](#{kind.slug}) | {kind.status.value} | {kind.title} | {kind.again} |\n" for kind in _sorted()
    )
    sections = "".join(f"\n## {kind.slug}\n\n{kind.meaning} {kind.remedy}\n" for kind in _sorted())
    return _HEAD + rows + sections


def overview() -> str:
    """The page `/problems`: all kinds, with links."""
    rows = (
        f'<li><a href="{PAGES}/{kind.slug}">{kind.slug}</a> ({kind.status.value}): {escape(kind.title)}</li>'
        for kind in _sorted()
    )
    return _page("Problems", [f"<ul>{''.join(rows)}</ul>"])


def page(kind: Kind) -> str:
    """The page that the `type` of a problem leads to."""
    facts = [kind.meaning, kind.remedy, f"Status: {kind.status.value}. Try again? {kind.again.capitalize()}."]
    return _page(kind.title, [f"<p>{escape(fact)}</p>" for fact in facts])


def _page(title: str, parts: Iterable[str]) -> str:
    title = escape(title)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    return f"{head}<h1>{title}</h1>{''.join(parts)}"


def _sorted() -> list[Kind]:
    return sorted(KINDS.values(), key=lambda kind: (kind.status, kind.slug))


if __name__ == "__main__":
    print(markdown(), end="")
