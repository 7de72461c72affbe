"""The application's own OpenAPI, tried by schemathesis: requests that it allows, and requests that it does not."""

from __future__ import annotations

import time
from typing import Any, Final

import hypothesis
import requests as http
import schemathesis
from hypothesis import HealthCheck, Phase, given
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from amser import batch, wire
from tests.fuzz.network.exchange import PROBLEM_TYPE
from tests.fuzz.network.site import Site
from tests.fuzz.targets.audio import files
from tests.fuzz.targets.envelope import envelopes

# Not those for which a schema is too weak to say what is right: any bytes are a binary body, and most are refused
CHECKS: Final = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
FORM: Final = "multipart/form-data"  # schemathesis writes forms by itself
GOOD: Final = {wire.MEDIA_TYPE: lambda: envelopes()[0], batch.MEDIA_TYPE: lambda: batch.pack(envelopes()[:3])}
EXAMPLES: Final = 25  # of each route and mode in a round
WANT_OF_ROOM: Final = frozenset({503, 504})  # refusals, and no server errors as schemathesis takes them for


def as_bytes(context: schemathesis.SerializationContext, value: object) -> bytes:
    """A body of a type that is not text: as it is, or whatever schemathesis makes up in its place."""
    del context
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def openapi(site: Site) -> None:
    """Rounds over all routes, each with another seed."""
    schema = schemathesis.openapi.from_url(f"{site.url}/openapi.json", timeout=30)
    routes = schema.raw_schema["paths"].values()
    for media_type in sorted({kind for route in routes for each in route.values() for kind in _taken(each)} - {FORM}):
        schemathesis.serializer(media_type)(as_bytes)
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    with http.Session() as session:
        while not site.is_over:
            for operation in operations:
                for mode in GenerationMode:
                    try:
                        strategy = operation.as_strategy(generation_mode=mode)
                    except Exception:  # nothing in this route can be wrong
                        continue
                    _round(site, session, strategy)


def _taken(operation: Any) -> list[str]:
    return list(operation.get("requestBody", {}).get("content", {})) if isinstance(operation, dict) else []


def _round(site: Site, session: http.Session, strategy: hypothesis.strategies.SearchStrategy[Case[Any]]) -> None:
    source = site.source

    @hypothesis.seed(source.getrandbits(64))
    @hypothesis.settings(
        max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def tried(case: Case[Any]) -> None:
        if site.is_over:
            return
        if case.operation.body and source.random() < 0.3:  # random bytes alone never reach the stages
            good = GOOD[case.media_type]() if case.media_type in GOOD else source.choice(files())
            case.body = {"file": good} if case.media_type == FORM else good
        _send(site, session, case)

    try:
        tried()
    except hypothesis.errors.Unsatisfiable:  # nothing in this route can be wrong
        time.sleep(0.05)


def _send(site: Site, session: http.Session, case: Case[Any]) -> None:
    label = f"{case.method} {case.path}"
    data = case.as_curl_command().encode("utf-8", "replace")
    try:
        response = case.call(base_url=site.url, session=session, timeout=40)
    except http.exceptions.InvalidHeader:  # the client does not send it
        return
    except http.RequestException as error:
        site.count(data, False)
        site.find("refusal", f"{label}: {type(error).__name__}", str(error), data)
        return
    site.count(data, response.status_code < 400)
    if response.status_code in WANT_OF_ROOM and PROBLEM_TYPE in response.headers.get("content-type", [""])[0]:
        return
    try:
        case.validate_response(response, checks=list(CHECKS))
    except FailureGroup as group:
        for failure in group.exceptions:
            _keep(site, label, response.status_code, failure, data)
    except Failure as failure:
        _keep(site, label, response.status_code, failure, data)


def _keep(site: Site, label: str, status: int, failure: BaseException, data: bytes) -> None:
    title = getattr(failure, "title", type(failure).__name__)
    site.find("crash" if status == 500 else "refusal", f"{label}: {status} {title}", str(failure), data)
