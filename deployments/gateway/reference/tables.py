"""The tables of docs/api.md, made from the OpenAPI document and the catalogue of problems.

    python tests/support/api_reference.py

writes them between their markers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from itertools import groupby
from typing import Any, Final

from deployments.gateway.problems.catalogue import KINDS

METHODS: Final = ("get", "post", "put", "patch", "delete")
Document = Mapping[str, Any]


def routes(document: Document) -> str:
    """Every route: what it is for, and what its body is."""
    rows = (
        f"| `{method.upper()} {path}` | {_one_line(operation['summary'])} | {_body(operation)} |\n"
        for path, method, operation in _operations(document)
    )
    return "| route | answers with | body |\n|---|---|---|\n" + "".join(rows)


def parameters(document: Document) -> str:
    """Every parameter of query, path and headers, and the routes that read it."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for path, method, operation in _operations(document):
        for each in operation.get("parameters", ()):
            key = each["name"], each["in"], _one_line(each.get("description", ""))
            where.setdefault(key, []).append(f"`{method.upper()} {path}`")
    rows = (
        f"| `{name}` | {place} | {meaning} | {', '.join(dict.fromkeys(found))} |\n"
        for (name, place, meaning), found in sorted(where.items(), key=lambda item: (item[0][1], item[0][0]))
    )
    return "| parameter | in | meaning | routes |\n|---|---|---|---|\n" + "".join(rows)


def problems(_: Document) -> str:
    """Every status of a refusal, with its kinds."""
    by_status = groupby(sorted(KINDS.values(), key=lambda kind: kind.status), key=lambda kind: kind.status)
    rows = "".join(_of_status(status, [(kind.slug, kind.again) for kind in kinds]) for status, kinds in by_status)
    return "| status | kinds (end of `type`) | try again? |\n|---|---|---|\n" + rows


TABLES: Final[Mapping[str, Callable[[Document], str]]] = {
    "routes": routes,
    "parameters": parameters,
    "problems": problems,
}


def written(page: str, document: Document) -> str:
    """A page with its tables between their markers renewed.

    Raises:
        ValueError: it lacks the markers of a table.
    """
    for name, table in TABLES.items():
        begin, end = f"<!-- table {name} -->\n", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(f"the page needs {begin.strip()} and {end} once")
        made = f"{begin}{table(document)}{end}"
        page = pattern.sub(lambda _, made=made: made, page)  # type: ignore[misc]
    return page


def _operations(document: Document) -> Iterator[tuple[str, str, Any]]:
    """Path, method and operation, in the order of the tags."""
    order = [tag["name"] for tag in document.get("tags", ())]
    found = [
        (path, method, methods[method])
        for path, methods in document["paths"].items()
        for method in METHODS
        if method in methods
    ]
    yield from sorted(found, key=lambda each: order.index(each[2]["tags"][0]))


def _body(operation: Any) -> str:
    body = operation.get("requestBody")
    if body is None:
        return ""
    if described := body.get("description"):
        return _one_line(described)
    return ", ".join(f"`{kind}`" for kind in body["content"])


def _of_status(status: HTTPStatus, kinds: list[tuple[str, str]]) -> str:
    """A row for each answer to whether trying again helps."""
    rows = []
    for again in dict.fromkeys(each for _, each in kinds):
        named = ", ".join(f"[`{slug}`](problems.md#{slug})" for slug, also in kinds if also == again)
        rows.append(f"| {status.value} | {named} | {again} |\n")
    return "".join(rows)


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
