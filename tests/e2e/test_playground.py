"""The page and its codec through Ray's own proxy: the files of a node's `web/`, and a 304 the second time."""

from __future__ import annotations

import httpx

from deployments.gateway.playground import WEB


def test_the_page_and_its_codec_are_served_by_the_cluster(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.content == (WEB / "index.html").read_bytes()
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
    codec = client.get("/web/amser-codec.js")
    assert codec.content == (WEB / "amser-codec.js").read_bytes()
    assert codec.headers["content-type"].startswith("text/javascript")
    kept = client.get("/web/amser-codec.js", headers={"If-None-Match": codec.headers["etag"]})
    assert kept.status_code == 304
    assert client.get("/web/none.js").status_code == 404
