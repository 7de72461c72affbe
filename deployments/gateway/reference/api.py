"""An application whose OpenAPI document reads well: grouped, with every problem and an example of each."""

from __future__ import annotations

from typing import Any, Final

from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from deployments.gateway.problems import OpenAIProblem, Problem, problem_examples

SPEECH: Final = "speech"
OPENAI: Final = "OpenAI-compatible"
CLUSTER: Final = "cluster"

TAGS: Final = [
    {"name": SPEECH, "description": "Words and emotion of what somebody says."},
    {"name": OPENAI, "description": "What clients of OpenAI's API find here once their base URL is changed."},
    {"name": CLUSTER, "description": "What load balancers and monitors ask."},
]
_SCHEMAS: Final = "#/components/schemas/{model}"


class Api(FastAPIOffline):
    """FastAPI with /docs that works without the internet, and with the document of this module.

    Args:
        described: of FastAPI.
    """

    def __init__(self, **described: Any) -> None:
        super().__init__(
            openapi_tags=TAGS,
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
            generate_unique_id_function=_name,
            **described,
        )

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if not self.openapi_schema:
            document = super().openapi()
            _, problems = models_json_schema(
                [(Problem, "serialization"), (OpenAIProblem, "serialization")], ref_template=_SCHEMAS
            )
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(problems["$defs"])
            components["examples"] = problem_examples()
            self.openapi_schema = document
        return self.openapi_schema


def _name(route: BaseRoute) -> str:
    """Of an operation, in clients that are generated: that of its function."""
    return str(getattr(route, "name", ""))
