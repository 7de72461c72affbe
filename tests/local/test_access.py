"""Every route of the real application with every kind of key; and that neither keys nor words reach a log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from access import add_key, bearer
from over_http import assert_problem, send, two_seconds
from ray.serve._private.http_util import _walk_fastapi_routes
from recordings import audio_file, envelope_of, speakers, waveform_of
from served import serving
from starlette.routing import Mount, WebSocketRoute

from amser import wire
from amser.features import SAMPLE_RATE
from deployments.access.rules import SCOPES, rule_of
from deployments.access.settings import AuthSettings
from deployments.gateway.ingress import api
from deployments.settings import FlowSettings, IdempotencySettings, Settings
from models.text.word_vectors import WordVectors
from models.whisper.recognizer import WhisperRecognizer

KINDS = ("none", "unknown", "expired", "wrong scope", "right")
NEEDS = {
    "/v1/emotion": "recognize",
    "/v1/emotion/audio": "recognize",
    "/v1/audio/transcriptions": "recognize",
    "/v1/models": "read",
    "/v1/models/{model}": "read",
    "/v1/emotion:batch": "recognize",
    "/v1/recordings": "recognize",
    "/v1/jobs/{id}": "recognize",
}
_FOUND = [*_walk_fastapi_routes(api), *((route, None, "") for route in api.routes if hasattr(route, "path"))]


def _asked(route: Any, prefix: str) -> tuple[str, str]:
    """A path that a route answers, and a method that it has; of a folder a file."""
    if isinstance(route, Mount):
        return f"{prefix}{route.path}/favicon.png", "GET"
    return prefix + route.path, min(route.methods)


# Of sockets: tests/local/test_stream.py
ROUTES = sorted({_asked(route, prefix) for route, _, prefix in _FOUND if not isinstance(route, WebSocketRoute)})
DENIED = (401, 403)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A token of each kind, by its name, and one for each scope; and where their file is."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    elsewhere = path.with_name("others.json")
    return {
        "file": str(path),
        "unknown": add_key(elsewhere),
        "expired": add_key(path, expires=datetime.now(UTC) - timedelta(days=1)),
        "right": add_key(path),
        **{scope: add_key(path, scope) for scope in SCOPES},
    }


@pytest.fixture(scope="module")
def served(tokens: dict[str, str]) -> Iterator[tuple[str, Any]]:
    settings = Settings(
        profile="fused",
        auth=AuthSettings(mode="keys", file=Path(tokens["file"])),
        idempotency=IdempotencySettings(store="none"),
        flow=FlowSettings(admission=False),
    )
    with serving(settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: tuple[str, Any]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[0], timeout=60) as opened:
        yield opened


def test_there_are_routes() -> None:
    assert {path for path, _ in ROUTES} >= {*NEEDS, "/healthz", "/readyz", "/docs", "/openapi.json"}


@pytest.mark.parametrize("path", [path for path, _ in ROUTES])
def test_every_route_has_a_rule(path: str) -> None:
    assert rule_of(path) != "any key", f"deployments/access/rules.py says nothing of {path}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("path", "method"), ROUTES)
def test_a_route_lets_in_whom_its_rule_names(
    client: httpx.Client, tokens: dict[str, str], path: str, method: str, kind: str
) -> None:
    scope = NEEDS.get(path)
    token = next(tokens[other] for other in SCOPES if other != scope) if kind == "wrong scope" else tokens.get(kind)
    status = client.request(method, path, headers=bearer(token) if token else {}).status_code
    expected = {"none": 401, "unknown": 401, "expired": 401, "wrong scope": 403}.get(kind) if scope else None
    assert status == expected if expected else status not in DENIED


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_refused_key_is_told_nothing_of_why(client: httpx.Client, tokens: dict[str, str], kind: str) -> None:
    token = tokens.get(kind)
    response = client.get("/v1/models", headers=bearer(token) if token else {})
    problem = assert_problem(response, 401, None)
    assert problem["detail"] == "this needs a valid key, sent as `Authorization: Bearer amser_…`"
    assert response.headers["www-authenticate"] == 'Bearer realm="amser"'


@pytest.mark.parametrize("header", ["", "Bearer", "Basic YTpi", "Bearer amser_", "Bearer ä", "amser_x"])
def test_other_credentials_are_no_key(client: httpx.Client, header: str) -> None:
    assert client.get("/v1/models", headers={"Authorization": header.encode()}).status_code == 401


def test_paths_without_a_route_want_a_key_too(client: httpx.Client, tokens: dict[str, str]) -> None:
    for path in ("/v1/emotion/", "//healthz", "/healthz/x", "/V1/models", "/v1/%6dodels/"):
        url = str(client.base_url).rstrip("/") + path  # joined here: httpx takes two slashes for those of a host
        assert client.get(url).status_code == 401, path
        assert client.get(url, headers=bearer(tokens["right"])).status_code in (307, 404), path


def test_a_newline_behind_a_path_opens_nothing(client: httpx.Client, tokens: dict[str, str]) -> None:
    """The router takes the path for that of the route: whoever had a key of another scope got in."""
    for path, scope in NEEDS.items():
        other = next(tokens[each] for each in SCOPES if each != scope)
        method = "GET" if scope == "read" else "POST"
        assert client.request(method, f"{path}%0A", headers=bearer(other)).status_code == 403, path
        assert client.request(method, f"{path}%0A").status_code == 401, path


def test_a_key_for_recognising_recognises(client: httpx.Client, tokens: dict[str, str]) -> None:
    headers = bearer(tokens["recognize"])
    assert send(client, wire.pack(envelope_of(two_seconds())), **headers).status_code == 200
    upload = client.post("/v1/emotion/audio", content=audio_file(two_seconds(), "wav", "pcm_s16le"), headers=headers)
    assert upload.status_code == 200
    assert client.get("/v1/models", headers=bearer(tokens["read"])).status_code == 200


def test_the_openapi_document_says_which_routes_want_a_key(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    (scheme,) = document["components"]["securitySchemes"]
    assert document["components"]["securitySchemes"][scheme]["scheme"] == "bearer"
    secured = {path for path, item in document["paths"].items() for how in item.values() if "security" in how}
    assert secured == set(NEEDS)


# --- Logs -------------------------------------------------------------------------------------------------------------


def test_neither_keys_nor_words_are_in_any_log(
    client: httpx.Client,
    tokens: dict[str, str],
    served: tuple[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where all goes well, where a model fails and says what it was given, and where the gateway itself does."""
    sentence = waveform_of(speakers(1)[0]["path"])[: 8 * SAMPLE_RATE]
    body, headers = wire.pack(envelope_of(sentence)), bearer(tokens["right"])
    secret = "the treasure is under the old oak"

    def says_it(*_: object, **__: object) -> Any:
        raise ValueError(f"cannot read {secret!r}")

    with caplog.at_level(logging.DEBUG):
        words = send(client, body, **headers).json()["transcript"]["text"]
        for wrong in (tokens["unknown"], tokens["expired"], tokens["right"][:-1], f"{tokens['right']}x"):
            assert client.get("/v1/models", headers=bearer(wrong)).status_code == 401
        for model, method in ((WordVectors, "embed"), (WhisperRecognizer, "first_pass")):
            with monkeypatch.context() as patch:
                patch.setattr(model, method, says_it)
                assert send(client, body, **headers).json()["degraded"]
                assert send(client, body, **headers, Prefer="handling=strict").status_code == 503
        with monkeypatch.context() as patch:
            patch.setattr(served[1]._answering, "reply", says_it)
            assert send(client, body, **headers).status_code == 500
    assert len(words) > 20
    assert "failed: ValueError at test_access.py" in caplog.text  # the failures are there
    said = [words, secret, *(token.split("_", 2)[2][:20] for name, token in tokens.items() if name != "file")]
    assert [text for text in said for record in caplog.records if text in caplog.handler.format(record)] == []
    assert [text for text in said if text in caplog.text] == []
