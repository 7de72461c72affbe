"""A device's own HTTP/1.1 connection on gevent's sockets, and those of a fleet that are kept for the next utterance.

gevent's sockets are used by name, so nothing has to be monkey-patched. llhttp (geventhttpclient) reads the answers.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import Any, Final, Self

import gevent
import gevent.select
import gevent.socket
import gevent.ssl
import httpx
from geventhttpclient.response import HTTPSocketResponse

from amser.client.credentials import NoKey, given_key
from amser.client.exchange.connection import KEPT_ALIVE_S

OTHER_FILES: Final = 256  # file descriptors that are left to everything else
SWEEP_S: Final = 1.0
DEFAULT_URL: Final = "http://127.0.0.1:8000"  # of a cluster on this machine
REACHED_WITHIN_S: Final = 5.0


class BadUrl(ValueError):  # noqa: N818 - an error by its base class
    """No URL of a cluster, a host that is not known, or a key for it that is none."""


class Unreachable(OSError):  # noqa: N818 - an error by its base class
    """Nothing accepts connections at a URL. The message has the URL and the reason."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a cluster is. The name is looked up once.

    Attributes:
        family, address: of its socket.
        host: name, and port where it is not the usual one, as the header has it.
        name: of the host alone.
        path: before every route.
        tls: None for plain HTTP.
        key: that every request shows, of `AMSER_KEY`; None for none.
    """

    family: int
    address: Any
    host: str
    name: str
    path: str
    tls: Any
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises BadUrl."""
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise BadUrl(f"{url!r} is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.host:
            raise BadUrl(f"{url!r} is no URL of a cluster, such as http://127.0.0.1:8000")
        tls = gevent.ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        try:
            found = gevent.socket.getaddrinfo(parts.host, port, type=gevent.socket.SOCK_STREAM)
        except OSError as error:
            raise BadUrl(f"{parts.host} is not known: {error}") from None
        found.sort(key=lambda each: each[0] != gevent.socket.AF_INET)  # localhost is ::1 too; Serve binds IPv4
        family, _, _, _, address = found[0]
        try:
            key = given_key(None)
        except NoKey as error:
            raise BadUrl(str(error)) from None
        return cls(family, address, parts.netloc.decode(), parts.host, parts.path.rstrip("/"), tls, key)


class Connection:
    """One TCP connection, opened at once.

    Raises:
        OSError: the cluster cannot be reached.
    """

    __slots__ = ("_socket", "is_used")

    def __init__(self, target: Target, timeout_s: float) -> None:
        self.is_used = False
        self._socket = gevent.socket.socket(target.family, gevent.socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
            self._socket.connect(target.address)
            if target.tls is not None:
                self._socket = target.tls.wrap_socket(self._socket, server_hostname=target.name)
            self._socket.settimeout(None)  # from here on the caller's gevent.Timeout counts
        except BaseException:
            self._socket.close()
            raise

    def send(self, data: bytes) -> None:
        """All of it."""
        self._socket.sendall(data)

    def answers_within(self, seconds: float) -> bool:
        """Whether something can be read by then, be it the end of the connection."""
        return bool(gevent.select.select([self._socket], [], [], seconds)[0])

    def receive(self) -> tuple[HTTPSocketResponse, bytes]:
        """The answer and its body.

        Raises:
            geventhttpclient.response.HTTPConnectionClosed: the connection ended before the first byte.
            geventhttpclient.response.HTTPParseError: it is no HTTP.
            OSError: as sockets do.
        """
        response = HTTPSocketResponse(self._socket, method="POST")
        body = response.read()
        self.is_used = True
        return response, body

    def close(self) -> None:
        self._socket.close()


def check_reachable(url: str) -> None:
    """Opens a connection and closes it again, so that a run does not begin where there is no cluster.

    Raises:
        BadUrl: it is no URL, or its host is not known.
        Unreachable: nothing accepts connections there.
    """
    try:
        Connection(Target.of(url), REACHED_WITHIN_S).close()
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        raise Unreachable(
            f"there is no cluster at {url}: {why}; start one (`python -m demo --keep`, or "
            "`serve deploy serve_config.yaml` on your Ray) or give the URL of yours"
        ) from None


class KeptConnections:
    """Connections that wait for their device's next utterance, up to `KEPT_ALIVE_S`.

    At the process's limit of open files the one that waited longest makes room.

    Attributes:
        most: that waited at once so far.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Connection, float]] = {}  # of each device, the one that waits longest first
        self._limit = max(1, most_open_files() - OTHER_FILES)
        self.most = 0
        self._sweeper: gevent.Greenlet | None = None

    def open(self) -> None:
        """From now on connections are kept."""
        self._sweeper = gevent.spawn(self._sweep)

    def close(self) -> None:
        """All of them."""
        if self._sweeper is not None:
            self._sweeper.kill()
        for connection, _ in self._waiting.values():
            connection.close()
        self._waiting.clear()

    def take(self, device: int) -> Connection | None:
        """The one that this device kept; it is the caller's now."""
        found = self._waiting.pop(device, None)
        return found and found[0]

    def keep(self, device: int, connection: Connection) -> None:
        """For the next utterance. A device that sent twice at once keeps the newer."""
        if before := self.take(device):
            before.close()
        if len(self._waiting) >= self._limit:
            self._close_first()
        self._waiting[device] = connection, time.monotonic()
        self.most = max(self.most, len(self._waiting))

    def _close_first(self) -> None:
        self._waiting.pop(next(iter(self._waiting)))[0].close()

    def _sweep(self) -> None:
        while True:
            gevent.sleep(SWEEP_S)
            limit = time.monotonic() - KEPT_ALIVE_S
            while self._waiting and next(iter(self._waiting.values()))[1] < limit:
                self._close_first()


def most_open_files() -> int:
    """Raises this process's limit of open files as far as it may, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
