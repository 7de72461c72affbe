"""One keep-alive connection to a cluster, for threads and for an event loop: a `Call` goes in, a result comes out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Generic, Self, TypeVar

import httpx
from tenacity import AsyncRetrying, Retrying, stop_when_event_set
from tenacity.nap import sleep_using_event

from amser.client.credentials import bearer, trust
from amser.client.exchange.failures import AnswerTimedOut, Refused, SendFailed, UnexpectedAnswer, Unreachable
from amser.client.exchange.retries import Attempts, Patience

T = TypeVar("T")

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# How long an idle connection is kept: utterances further apart pay a new handshake, with TLS 3 kB and on LTE
# 0.27 J. httpx's own 5 s are shorter than most pauses. The cluster keeps it for 60 s (serve_config.yaml): the device
# closes first, since a request that crosses the cluster's closing is lost and has to be sent again.
KEPT_ALIVE_S: Final = 55.0
DEADLINE: Final = "Amser-Deadline-Ms"
PIECE: Final = 65_536  # bytes of a file that are in memory at once


@dataclass(frozen=True, slots=True)
class Spent:
    """What an exchange took.

    Attributes:
        answer_ms: milliseconds from the first attempt to the answer, waits between attempts included.
        attempts: requests.
    """

    answer_ms: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and what is read from its response.

    Attributes:
        method, route: such as POST and `/v1/emotion`.
        read: makes a result of a response with a good status; raises ValueError where it is something else.
        params: of the query.
        headers: beside the key.
        content: the body; of a path, the file, which is read piece by piece.
        good: statuses that are no refusal.
        repeatable: see `Attempts`.
    """

    method: str
    route: str
    read: Callable[[httpx.Response, Spent], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | Path | None = None
    good: frozenset[int] = frozenset({200})
    repeatable: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """A cluster.

    Attributes:
        url: http or https.
        key: that its operator gave out; not shown where this is printed.
        ca: file of certificates that a https cluster's has to be signed by; None for those that the world trusts.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    ca: Path | None = None

    def client_options(self) -> dict[str, Any]:
        """Arguments of httpx's clients."""
        url = httpx.URL(self.url)
        return {
            "trust_env": url.host not in LOOPBACK,  # a proxy could not reach this loopback
            # Reading the certificates takes 100 ms; without TLS there are none to check
            "verify": url.scheme == "https" and trust(self.ca),
            "headers": bearer(self.key),
            "limits": httpx.Limits(keepalive_expiry=KEPT_ALIVE_S),
        }


class Connection:
    """A context manager; used by one thread at a time.

    Args:
        target: the cluster.
        patience: of each call.
        stop: once set, a wait ends at once and one last attempt is made.
    """

    def __init__(self, target: Target, patience: Patience, stop: threading.Event | None = None) -> None:
        self._target, self._patience = target, patience
        self._stop = stop or threading.Event()
        self._client: httpx.Client | None = None

    def __enter__(self) -> Self:
        self._client = httpx.Client(**self._target.client_options())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def exchange(self, call: Call[T], within_s: float | None = None) -> T:
        """What a call asks for; tries again where the cluster cannot be reached or has no time.

        A kept connection that turns out to be broken is no other case.

        Args:
            call: the request.
            within_s: seconds that all attempts together may take; the cluster is told what is left of them. None for
                the patience of this connection.

        Raises:
            Refused: the cluster will not answer this, or had no time at any attempt.
            Unreachable, AnswerTimedOut, UnexpectedAnswer: as named.
            OSError: the file of the content cannot be read.
            RuntimeError: the connection was not entered.
        """
        attempts = Attempts(self._patience.within(within_s), call.repeatable)
        policy = attempts.policy()
        stop = policy.pop("stop") | stop_when_event_set(self._stop)
        retrying = Retrying(**policy, stop=stop, sleep=sleep_using_event(self._stop))
        response = retrying(self._once, call, attempts, within_s is not None)
        return _read(call, response, attempts, int(retrying.statistics["attempt_number"]))

    def pause(self, seconds: float) -> None:
        """Waits, unless `stop` is set meanwhile."""
        self._stop.wait(seconds)

    def _once(self, call: Call[T], attempts: Attempts, is_timed: bool) -> httpx.Response:
        if self._client is None:
            raise RuntimeError("the connection is not open: use it in a `with` statement")
        timeout = attempts.timeout()
        with ExitStack() as files:
            content: bytes | BinaryIO | None
            content = files.enter_context(call.content.open("rb")) if isinstance(call.content, Path) else call.content
            try:
                response = self._client.request(
                    **_arguments(self._target, call, attempts if is_timed else None), content=content, timeout=timeout
                )
            except httpx.RequestError as error:
                raise _failure(self._target, error, timeout) from error
        return _good(call, response)


class AsyncConnection:
    """The same for an event loop: an asynchronous context manager whose calls may run side by side."""

    def __init__(self, target: Target, patience: Patience) -> None:
        self._target, self._patience = target, patience
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        # The certificates are read from disk
        self._client = await asyncio.to_thread(lambda: httpx.AsyncClient(**self._target.client_options()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def exchange(self, call: Call[T], within_s: float | None = None) -> T:
        """See `Connection.exchange`."""
        attempts = Attempts(self._patience.within(within_s), call.repeatable)
        retrying = AsyncRetrying(**attempts.policy())
        response: httpx.Response = await retrying(self._once, call, attempts, within_s is not None)
        return _read(call, response, attempts, int(retrying.statistics["attempt_number"]))

    async def pause(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)

    async def _once(self, call: Call[T], attempts: Attempts, is_timed: bool) -> httpx.Response:
        if self._client is None:
            raise RuntimeError("the connection is not open: use it in an `async with` statement")
        timeout = attempts.timeout()
        arguments = _arguments(self._target, call, attempts if is_timed else None)
        async with AsyncExitStack() as files:
            content: bytes | AsyncIterator[bytes] | None
            if isinstance(call.content, Path):
                opened = files.enter_context(call.content.open("rb"))
                arguments["headers"]["Content-Length"] = str(call.content.stat().st_size)
                content = _pieces(opened)
            else:
                content = call.content
            try:
                response = await self._client.request(**arguments, content=content, timeout=timeout)
            except httpx.RequestError as error:
                raise _failure(self._target, error, timeout) from error
        return _good(call, response)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece


def _arguments(target: Target, call: Call[T], timed: Attempts | None) -> dict[str, Any]:
    """Of httpx's `request`."""
    headers = dict(call.headers)
    if timed is not None:
        headers[DEADLINE] = str(max(1, round(1000 * timed.left_s)))
    return {
        "method": call.method,
        "url": target.url.rstrip("/") + call.route,
        "params": dict(call.params) or None,
        "headers": headers,
    }


def _failure(target: Target, error: httpx.RequestError, timeout: httpx.Timeout) -> SendFailed:
    if isinstance(error, httpx.ReadTimeout):
        return AnswerTimedOut(f"no answer within {timeout.read or 0.0:.3g} s")
    if isinstance(error, httpx.TransportError):
        return Unreachable(f"{target.url} cannot be reached: {str(error) or type(error).__name__}")
    # A body that its Content-Encoding does not describe
    return UnexpectedAnswer(f"{target.url} answered with something unreadable: {error}")


def _good(call: Call[T], response: httpx.Response) -> httpx.Response:
    if response.status_code not in call.good:
        raise Refused.of(response)
    return response


def _read(call: Call[T], response: httpx.Response, attempts: Attempts, count: int) -> T:
    try:
        return call.read(response, Spent(1000 * attempts.passed_s, count))
    except (ValueError, RecursionError) as error:
        what = f"{response.url} answered with something else than was asked for ({error})"
        raise UnexpectedAnswer(what) from error
