"""Every connection that waits is accepted at once.

libuv, and so uvloop, accepts one a turn of its event loop. In a burst each turn is long, with the requests of the ones
before: a thousand connections then stand before that of a neighbour, in the kernel, where no limit of ours sees them.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any, Final

import uvicorn

LARGEST_MESSAGE: Final = 1 << 17  # bytes, of a WebSocket; uvicorn's own limit is 16 MiB
PAUSE_S: Final = 1.0  # where there is no file for a connection: it would be tried in every turn of the loop


class AcceptingServer(uvicorn.Server):
    """A uvicorn server that has a second look at its sockets, for what its event loop has left waiting there."""

    def __init__(self, config: uvicorn.Config) -> None:
        config.ws_max_size = min(config.ws_max_size, LARGEST_MESSAGE)
        super().__init__(config)
        self._watched: list[socket.socket] = []
        self._accepting: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        for each in sockets or ():
            second = each.dup()  # an event loop watches a file descriptor for one purpose
            second.setblocking(False)
            self._watched.append(second)
            self._watch(second)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends with what has begun answered."""
        while self._watched:
            second = self._watched.pop()
            asyncio.get_running_loop().remove_reader(second)
            second.close()
        await super().shutdown(sockets)

    def _watch(self, listening: socket.socket) -> None:
        if listening in self._watched:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(self.config.backlog):
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:  # none is left
                return
            except ConnectionAbortedError:  # the client has left
                continue
            except OSError:
                asyncio.get_running_loop().remove_reader(listening)
                asyncio.get_running_loop().call_later(PAUSE_S, self._watch, listening)
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
