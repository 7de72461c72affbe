"""The API as it describes itself: complete, with examples that hold, and the same as what is kept of it."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
from api_reference import PAGE, SNAPSHOT, page, snapshot
from jsonschema import Draft202012Validator

from deployments.gateway.ingress import api
from deployments.gateway.problems import PROBLEM_TYPE
from deployments.gateway.problems.catalogue import KINDS
from deployments.gateway.reference import examples, tables

RENEW = "python tests/support/api_reference.py"
DOCUMENT: dict[str, Any] = json.loads(json.dumps(api.openapi()))


OPERATIONS = [
    pytest.param(operation, id=f"{method.upper()} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


def resolved(node: Any) -> Any:
    """What a reference within the document leads to."""
    if "$ref" not in node:
        return node
    found = DOCUMENT
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def shown(content: Any) -> list[Any]:
    """The examples of a body."""
    named = [resolved(each)["value"] for each in content.get("examples", {}).values()]
    return named + ([content["example"]] if "example" in content else [])


def test_the_document_is_the_one_that_is_kept() -> None:
    """Whoever changes the API sees what changes for its clients, and the reviewer does too."""
    kept, now = SNAPSHOT.read_text(encoding="utf-8"), snapshot()
    changes = difflib.unified_diff(kept.splitlines(), now.splitlines(), "kept", "now", lineterm="", n=2)
    assert kept == now, f"the API has changed; if it is meant to, `{RENEW}` keeps the new one:\n" + "\n".join(changes)


def test_the_tables_of_the_page_are_those_of_the_document() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"`{RENEW}` writes them"


def test_a_page_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="table routes"):
        tables.written("# A page\n", DOCUMENT)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_described(operation: Any) -> None:
    assert len(operation["tags"]) == 1
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation["summary"]
    assert operation["description"]
    for parameter in operation.get("parameters", ()):
        assert parameter["description"], parameter["name"]
        assert parameter.get("example") or parameter["schema"].get("examples"), parameter["name"]
    if "requestBody" in operation:
        assert "up to" in operation["requestBody"]["description"]  # its limits


def test_operations_have_names_of_their_own() -> None:
    names = [each.values[0]["operationId"] for each in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_answer_has_examples_that_hold(operation: Any) -> None:
    for status, response in operation["responses"].items():
        assert response["description"] != "Successful Response", status
        for media_type, content in response.get("content", {}).items():
            assert shown(content), (status, media_type)
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            for example in shown(content):
                Draft202012Validator(schema).validate(example)


def test_every_kind_of_problem_is_shown() -> None:
    for kind in KINDS.values():
        for name, is_of_openai in ((kind.slug, False), (f"openai.{kind.slug}", True)):
            example = DOCUMENT["components"]["examples"][name]["value"]
            assert (example["type"], example["status"]) == (kind.uri, kind.status)
            assert ("error" in example) is is_of_openai


def test_refusals_are_problem_documents_alone() -> None:
    for each in OPERATIONS:
        for status, response in each.values[0]["responses"].items():
            if not status.startswith("2"):
                assert set(response["content"]) == {PROBLEM_TYPE}
                assert ("headers" in response) is (status in ("429", "503"))


def test_the_answer_of_the_page_is_the_example() -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = text.split("## An answer\n")[1].split("```json\n")[1].split("```")[0]
    assert json.loads(block) == examples.ANSWER
