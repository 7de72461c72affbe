"""Clients that hold on to what they need not: heads and bodies that do not come, on a real Ray proxy."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from over_http import assert_problem, connect, raw_request, send, two_seconds
from recordings import envelope_of

from amser import wire
from deployments.local_cluster import LocalCluster

SLOW = 60  # of an address; the gateway of this cluster has room for 10 requests, and 6 more in its queue
HEAD_S = 2.0  # that a head may take there (tests/conftest.py)


@pytest.fixture(scope="module")
def good() -> bytes:
    return wire.pack(envelope_of(two_seconds()))


@pytest.fixture
def slow_bodies(cluster: LocalCluster, good: bytes) -> Iterator[list[socket.socket]]:
    """As many as the test asks for; each has sent a piece and stalls."""
    connections = [connect(cluster) for _ in range(SLOW)]
    for connection in connections:
        connection.sendall(raw_request(len(good), good[:50]))
    time.sleep(0.3)
    yield connections
    for connection in connections:
        connection.close()


def received(connection: socket.socket) -> bytes:
    """Until the other end closes."""
    content = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65_536):
            content += piece
    return content


def test_slow_bodies_take_nobodys_place(client: httpx.Client, good: bytes, slow_bodies: list[socket.socket]) -> None:
    """256 of them held every slot of the gateway, and its readiness waited behind them."""
    started = time.monotonic()
    assert [send(client, good).status_code for _ in range(3)] == [200, 200, 200]
    for path in ("/healthz", "/readyz"):
        asked = time.monotonic()
        assert client.get(path).status_code == 200
        assert time.monotonic() - asked < 1
    assert time.monotonic() - started < 10
    for connection in slow_bodies:
        answer = received(connection)
        assert b" 408 " in answer.partition(b"\r\n")[0]
        assert b"/problems/body-too-slow" in answer


@pytest.mark.parametrize(("begins", "told"), [(b"", False), (b"POST /v1/emotion HTTP/1.1\r\nHost: am", True)])
def test_a_connection_whose_head_does_not_come_is_closed(cluster: LocalCluster, begins: bytes, told: bool) -> None:
    with connect(cluster) as connection:
        connection.sendall(begins)
        started = time.monotonic()
        answer = received(connection)
        assert HEAD_S / 2 < time.monotonic() - started < HEAD_S + 5
        assert (b"/problems/head-too-slow" in answer) is told


def test_what_has_no_route_is_a_problem_document_too(client: httpx.Client) -> None:
    problem = assert_problem(client.get("/v1/nothing"), 404, limit=None)
    assert problem["type"] == "/problems/not-found"
    assert "Malformed" in client.get("/problems/malformed").text
    response = client.put("/v1/emotion")
    assert_problem(response, 405, limit="POST")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models"])
def test_head_is_answered(client: httpx.Client, path: str) -> None:
    response = client.head(path)
    assert (response.status_code, response.content) == (200, b"")
