"""The files of the playground: those of `web/` and no others, kept by their ETag, under a policy of their own."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from deployments.access.headers import NOTHING, SecurityHeaders
from deployments.access.rules import rule_of
from deployments.gateway.playground import WEB, router

FILES = sorted(file.relative_to(WEB).as_posix() for file in WEB.rglob("*") if file.is_file())
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


@pytest.fixture(scope="module")
def client() -> httpx.Client:
    app = FastAPI()
    app.include_router(router)
    return TestClient(SecurityHeaders(app))


def test_the_page_may_load_files_from_here_alone(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "<title>Amser" in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["permissions-policy"] == "microphone=(self)"
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type(client: httpx.Client, name: str) -> None:
    file = client.get(f"/web/{name}")
    assert file.content == (WEB / name).read_bytes()
    assert file.headers["content-type"] == f"{TYPES[(WEB / name).suffix]}; charset=utf-8"
    assert file.headers["content-security-policy"] == client.get("/").headers["content-security-policy"]
    assert client.head(f"/web/{name}").status_code == 200


def test_a_browser_that_has_a_file_is_not_sent_it_again(client: httpx.Client) -> None:
    for path in ("/", "/web/amser-codec.js"):
        first = client.get(path)
        assert first.headers["cache-control"] == "no-cache"
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_a_range_that_cannot_be_read_gets_the_whole(client: httpx.Client) -> None:
    """Starlette refuses one in plain text."""
    for written in ("+5", "bytes=9-1", "bytes=0-3"):
        response = client.get("/", headers={"Range": written})
        assert (response.status_code, response.content) == (200, (WEB / "index.html").read_bytes())


@pytest.mark.parametrize(
    "path",
    ["/web/", "/web/none.js", "/web/codec", "/web/%2e%2e/README.md", "/web/..%2fREADME.md", "/web//etc/passwd", "/web"],
)
def test_there_are_no_other_files(client: httpx.Client, path: str) -> None:
    refused = client.get(path)
    assert refused.status_code == 404
    assert refused.headers["content-security-policy"] == NOTHING


def test_the_files_need_no_key_and_nothing_else_is_let_in_with_them() -> None:
    for path in ("/", "/web/amser-codec.js", "/web/page/app.js"):
        assert rule_of(path) == "open"
    for path in ("//", "/web", "/webx", "/v1/emotion", "/index.html"):
        assert rule_of(path) != "open"
