"""Every connection that waits is accepted at once.

libuv, and so uvloop, accepts one a turn of its event loop. In a burst each turn is long, with the requests of the ones
before: a thousand connections then stand before that of a neighbour, in the kernel, where no limit of ours sees them.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import uvicorn


class AcceptingServer(uvicorn.Server):
    """A uvicorn server that has a second look at its sockets, for what its event loop has left waiting there."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._seconds: list[socket.socket] = []
        self._accepting: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        for each in sockets or ():
            second = each.dup()  # an event loop watches a file descriptor for one purpose
            second.setblocking(False)
            self._seconds.append(second)
            asyncio.get_running_loop().add_reader(second, self._accept, second)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends with what has begun answered."""
        for second in self._seconds:
            asyncio.get_running_loop().remove_reader(second)
            second.close()
        self._seconds.clear()
        await super().shutdown(sockets)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self.config.backlog):
            try:
                accepted, _ = listening.accept()
            except OSError:  # none is left, or no file for one: that the event loop deals with
                return
            accepted.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._connect(accepted))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        with suppress(OSError):  # the client has left, or its TLS is none
            await asyncio.get_running_loop().connect_accepted_socket(protocol, accepted, ssl=self.config.ssl)
