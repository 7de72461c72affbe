"""An application whose OpenAPI document reads well: grouped, with every problem and an example of each."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from fastapi import FastAPI, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema

from deployments.gateway.problems import OpenAIProblem, Problem, problem_examples

SPEECH: Final = "speech"
OPENAI: Final = "OpenAI-compatible"
CLUSTER: Final = "cluster"

TAGS: Final = [
    {"name": SPEECH, "description": "Words and emotion of what somebody says."},
    {"name": OPENAI, "description": "What clients of OpenAI's API find here once their base URL is changed."},
    {"name": CLUSTER, "description": "What load balancers and monitors ask."},
]
# For the documentation; the gate has looked at the key by then
KEY: Final = [Security(HTTPBearer(scheme_name="key", auto_error=False, description="A key of the operator's"))]
_VALIDATION: Final = "HTTPValidationError"
_REF: Final = "#/components/schemas/{model}"


def described_api(**described: Any) -> FastAPI:
    """FastAPI with /docs that works without the internet, and with the document of this module.

    Args:
        described: of FastAPI.
    """
    api = FastAPIOffline(
        openapi_tags=TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        generate_unique_id_function=_name,
        **described,
    )
    api.openapi = partial(openapi, api)  # type: ignore[method-assign]
    return api


def openapi(api: FastAPI) -> dict[str, Any]:
    """The document of an application; made once."""
    if api.openapi_schema is None:
        document = FastAPI.openapi(api)
        problems = models_json_schema([(Problem, "serialization"), (OpenAIProblem, "serialization")], ref_template=_REF)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(problems[1]["$defs"])
        components["examples"] = problem_examples()
        _forget_validation(document)
    assert api.openapi_schema is not None
    return api.openapi_schema


def _forget_validation(document: dict[str, Any]) -> None:
    """FastAPI names an answer that this application does not give: it refuses with problem documents alone."""
    for methods in document["paths"].values():
        for operation in methods.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if _VALIDATION in content.get("application/json", {}).get("schema", {}).get("$ref", ""):
                del operation["responses"]["422"]
    for name in (_VALIDATION, "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _name(route: APIRoute) -> str:
    """Of an operation, in clients that are generated: that of its function."""
    return route.name
