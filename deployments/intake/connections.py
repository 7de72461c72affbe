"""Connections to a uvicorn server that do not do what connections are for: slow heads, large heads, too many at once.

uvicorn limits none of these. `guard` puts a subclass of its HTTP protocol in the place of the one that it takes by
default; Ray's proxy, which starts a uvicorn server with its defaults, then runs it.
"""

from __future__ import annotations

import asyncio
import resource
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.intake.accepting import AcceptingServer
from deployments.intake.addresses import network_of
from deployments.intake.limits import ConnectionSettings

HEAD_TOO_SLOW: Final = "head-too-slow"  # kinds of refusals
HEAD_TOO_LARGE: Final = "head-too-large"
BAD_HTTP: Final = "bad-http"
TOO_MANY: Final = "too-many-connections"
LINGER_S: Final = 1.0  # for what was written last to leave, before the connection is cut

Refuse = Callable[[str], bytes]  # the kind → a whole HTTP response


class Connections:
    """All connections of a process, and which of them wait for a request.

    Args:
        settings: how many.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._at_once = settings.at_once if files == resource.RLIM_INFINITY else min(settings.at_once, files // 2)
        self._of_a_client = settings.of_a_client
        self._open: dict[str, set[GuardedProtocol]] = defaultdict(set)
        # Of each address, the one that waits for longest first
        self._waiting: dict[str, dict[GuardedProtocol, None]] = defaultdict(dict)
        self._count = 0

    def admit(self, connection: GuardedProtocol) -> bool:
        """Counts a new one, where there is room or a waiting one can make it."""
        address = connection.address
        of_it = len(self._open.get(address, ()))
        if not connection.is_trusted and of_it >= self._of_a_client and not self._close_of(address):
            return False
        # The address with most waiting connections makes room: one that opens many does not close those of others
        if self._count >= self._at_once and not self._close_of(
            max(self._waiting, key=lambda each: len(self._waiting[each]), default="")
        ):
            return False
        self._open[address].add(connection)
        self._count += 1
        return True

    def waits(self, connection: GuardedProtocol, waits: bool) -> None:
        """The connection waits for a request, or does not any longer."""
        if waits:
            self._waiting[connection.address].setdefault(connection)
        elif connection.address in self._waiting:
            self._waiting[connection.address].pop(connection, None)
            if not self._waiting[connection.address]:
                del self._waiting[connection.address]

    def forget(self, connection: GuardedProtocol) -> None:
        """It is closed, or was none of those that were admitted."""
        self.waits(connection, False)
        if connection in self._open.get(connection.address, ()):
            self._open[connection.address].discard(connection)
            self._count -= 1
            if not self._open[connection.address]:
                del self._open[connection.address]

    def _close_of(self, address: str) -> bool:
        for connection in self._waiting.get(address, {}):
            connection.cut()
            return True
        return False


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with time limits for the head and limits on its size.

    A connection is `busy` from the end of a head until the answer is complete. While it is not, a timer runs: uvicorn's
    own between two requests, and this one's from the connection's beginning or a head's first byte. The rest of a body
    that was answered before it was here has as much time.
    """

    settings: ConnectionSettings  # set by `guard`, as are the next two
    counted: Connections
    refuse: Refuse

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._in_head = False  # some bytes of one are here
        self._raw_bytes = self._head_bytes = self._headers = 0  # as they came, and as they were parsed
        self._bad = BAD_HTTP
        self._was_refused = False
        self._is_websocket = False  # another protocol has the connection

    @property
    def address(self) -> str:
        """Of the other end, of IPv6 its network; empty through a local socket."""
        return network_of(self.client[0]) if self.client else ""

    @property
    def is_trusted(self) -> bool:
        """Whether it is a reverse proxy, which speaks for many."""
        trusted = getattr(self.config.loaded_app, "trusted_hosts", ())  # of uvicorn's ProxyHeadersMiddleware
        return self.client is None or self.client[0] in trusted

    @property
    def _is_over(self) -> bool:
        """Whether nothing more is read from it."""
        return self._was_refused or self.transport.is_closing()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being read or answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new one: from here on its time runs."""
        super().connection_made(transport)
        if not self.counted.admit(self):
            self._refuse(TOO_MANY)
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Either end has closed it."""
        self._stop_timer()
        self.resume_writing()
        self.counted.forget(self)
        super().connection_lost(exc)

    def cut(self) -> None:
        """Ends it at once."""
        self.counted.forget(self)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, of a body, or in between."""
        if self._is_over:
            return
        self._raw_bytes += len(data)
        super().data_received(data)
        if self._is_over or self._is_websocket:
            return
        if self._raw_bytes > self.settings.head_bytes:
            self._refuse(HEAD_TOO_LARGE)
        elif not self.is_busy:
            self._await_head()

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        self._in_head = True
        self._raw_bytes = self._head_bytes = self._headers = 0

    def on_url(self, url: bytes) -> None:
        """A part of the path and query."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header; behind a chunked body, a trailer."""
        self._headers += 1
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """A piece of a body; what comes between two of them, or after the last, counts as a head."""
        self._raw_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here, with its trailers."""
        self._raw_bytes = 0
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """From here on the request has its own limits (`deployments.intake.bodies`)."""
        self._in_head = False
        self._stop_timer()
        self.counted.waits(self, False)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """uvicorn's own timer runs until the next byte."""
        super().on_response_complete()
        if not self.is_busy and not self._is_over:
            self.counted.waits(self, True)

    def handle_websocket_upgrade(self) -> None:
        """uvicorn hands the connection to another protocol, which has limits of its own."""
        self._is_websocket = True
        self._stop_timer()
        self.counted.forget(self)
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls where the bytes are no request."""
        del msg
        self._refuse(self._bad)

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.settings.unread_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(LINGER_S, self.transport.abort)  # closing waits for a client that does not read

    def _count(self, size: int) -> None:
        """Raises, which uvicorn answers with `send_400_response`, where the head or the trailers are too large."""
        self._head_bytes += size
        if self._headers > self.settings.headers or self._head_bytes > self.settings.head_bytes:
            self._bad = HEAD_TOO_LARGE
            raise ValueError(HEAD_TOO_LARGE)

    def _await_head(self) -> None:
        self.counted.waits(self, True)
        if self._timer is None:
            self._timer = self.loop.call_later(self.settings.head_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._timer = None
        if self.is_busy or self._is_over:
            return
        if self._in_head:
            self._refuse(HEAD_TOO_SLOW)
        else:  # nothing was asked, so nothing is answered: browsers open connections ahead
            self.cut()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, kind: str) -> None:
        self._stop_timer()
        self._unset_keepalive_if_required()
        if not self.is_busy:  # otherwise another answer is half written
            self.transport.write(self.refuse(kind))
        self._was_refused = True
        if (
            self.transport.can_write_eof()
        ):  # a client that still sends would lose the answer to a connection that is closed
            self.transport.write_eof()
        else:
            self.transport.close()
        self.loop.call_later(LINGER_S, self.transport.abort)


def guard(settings: ConnectionSettings, refuse: Refuse) -> type[GuardedProtocol]:
    """Has every uvicorn server that this process makes from now on guard its connections, and accept all that wait.

    Args:
        settings: the limits.
        refuse: what a client is told.

    Returns:
        The protocol that the servers use.
    """
    attributes = {"settings": settings, "counted": Connections(settings), "refuse": staticmethod(refuse)}
    protocol: type[GuardedProtocol] = type("GuardedProtocol", (GuardedProtocol,), attributes)
    auto.AutoHTTPProtocol = protocol
    uvicorn.Server = AcceptingServer  # type: ignore[misc]
    return protocol
