"""What the tests of spool, delivery and their commands share: a spool, a cluster that comes back, what it was asked.

A plugin of pytest: whoever names it in `pytest_plugins` has its fixtures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import HTTPServer
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from stand_in import Response, StandIn, stand_in

from amser.client import delivery as delivery_module
from amser.client.exchange.utterances import UTTERANCE_HEADER, Utterance
from amser.client.spool import Spool

GONE = Response(hangs_up=True)  # after it has read the request: the device cannot know whether it was worked on
POISONED = Response(400, {"title": "Bad Request", "detail": "the bytes are corrupt"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "call.spool"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    with Spool(path) as opened:
        yield opened


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of every stand-in in a test, so that one which is gone can come back."""
    with stand_in() as probe:
        found = int(probe.url.rpartition(":")[2])
    bind = HTTPServer.server_bind

    def bind_here(server: HTTPServer) -> None:
        server.server_address = ("127.0.0.1", found)
        bind(server)

    monkeypatch.setattr(HTTPServer, "server_bind", bind_here)
    return found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "BACKOFF_S", 0.01)


def fill(spool: Spool, count: int) -> list[UUID]:
    """Utterances that were captured a second after each other."""
    began = datetime.now(UTC) - timedelta(seconds=count)
    spoken = [Utterance(os.urandom(200), uuid4(), 1.0, 1.5) for _ in range(count)]
    for second, each in enumerate(spoken):
        spool.put(each, began + timedelta(seconds=second))
    return [each.utterance_id for each in spoken]


def asked(cluster: StandIn) -> list[UUID]:
    return [UUID(request.headers[UTTERANCE_HEADER]) for request in cluster.received]
