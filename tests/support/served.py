"""The real application of one replica behind a real HTTP server in this process, without Ray around it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from ray.serve import context
from ray.serve._private.common import DeploymentID, ReplicaID
from starlette.types import ASGIApp

from deployments.gateway.ingress import Ingress
from deployments.settings import Settings

STARTS_WITHIN_S = 240.0


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[str, Any]]:
    """The URL of the fused application with these settings, and the object that Serve would make for it."""
    kind: Any = Ingress.func_or_class  # type: ignore[attr-defined]
    replica = kind.__new__(kind)

    async def ready() -> ASGIApp:
        await kind.__init__(replica, settings, None, False)
        return replica  # type: ignore[no-any-return]

    before = context._INTERNAL_REPLICA_CONTEXT
    context._set_internal_replica_context(
        replica_id=ReplicaID("test", DeploymentID("Ingress", "test")),
        servable_object=replica,
        _deployment_config=None,
        rank=None,
        world_size=1,
    )
    try:
        with _server(ready()) as url:
            yield url, replica
    finally:
        replica.app.middleware_stack = None  # it holds the replica, and Serve pickles the routes for the next test
        context._INTERNAL_REPLICA_CONTEXT = before


@contextmanager
def _server(application: Any) -> Iterator[str]:
    """Awaits an application and serves it from a thread."""
    servers: list[uvicorn.Server] = []
    failed: list[BaseException] = []

    async def run() -> None:
        try:
            config = uvicorn.Config(
                await application, "127.0.0.1", 0, lifespan="off", log_config=None, access_log=False
            )
            servers.append(uvicorn.Server(config))
            await servers[0].serve()
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not (servers and servers[0].started):
        assert not failed, failed
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{servers[0].servers[0].sockets[0].getsockname()[1]}"
    finally:
        servers[0].should_exit = True
        thread.join(10)
