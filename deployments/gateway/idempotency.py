"""A request that is sent again gets the answer that the first one got, and the pipeline runs once.

A device cannot know whether a request that broke was worked on; it sends the utterance again under the same ids. For a
while its answer is kept (`deployments.gateway.answer_store`). One that is still under way is joined, by requests to the
same replica; those to another one compute, and the answer that is stored first stays.

Refusals and errors are not kept.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final, Literal

from ray._raylet import async_task_id  # type: ignore[attr-defined]  # Ray and Serve have no public names for these
from ray.serve.context import _serve_request_context

from amser.wire import Envelope
from deployments.gateway.answer_store import AnswerStore, StoreUnavailable, answer_store
from deployments.gateway.preferences import Preferences
from deployments.settings import Settings

REPLAY_HEADER: Final = "Amser-Replay"
CACHE_CONTROL: Final = "cache-control"
NO_STORE: Final = "no-store"  # RFC 9111, 5.2.1.5
AWAY_S: Final = 5.0  # for which a store that does not answer is left alone: requests must not wait for it one by one

Replay = Literal["stored", "joined"]

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it goes over HTTP, with status 200.

    Attributes:
        body: JSON.
        headers: beside the content's type and length.
        replay: whether the answer is that of an earlier request: kept, or still under way when this one came.
    """

    body: bytes
    headers: Mapping[str, str]
    replay: Replay | None = None

    @property
    def degraded(self) -> tuple[str, ...]:
        """What the answer had to leave out."""
        return tuple(json.loads(self.body).get("degraded", ()))

    def to_bytes(self) -> bytes:
        """For a store."""
        return json.dumps(dict(self.headers)).encode() + b"\n" + self.body

    @classmethod
    def from_bytes(cls, stored: bytes, replay: Replay) -> Reply:
        """What `to_bytes` made.

        Raises:
            ValueError: something else has made it, such as another program that uses the same store.
        """
        first, _, body = stored.partition(b"\n")
        headers = json.loads(first)
        if not isinstance(headers, dict):
            raise ValueError("the headers of a stored answer are no object")
        for name, value in headers.items():
            if not (isinstance(value, str) and f"{name}{value}".isascii() and f"{name}{value}".isprintable()):
                raise ValueError("the headers of a stored answer hold something else than plain text")
        return cls(body, headers, replay)


@dataclass(slots=True)
class _Run:
    """A run of the pipeline, and how many requests wait for it."""

    task: asyncio.Task[Reply]
    waiting: int = 0


@dataclass(slots=True)
class Idempotency:
    """Runs the pipeline once for all requests with the same key. Used by one event loop.

    Args:
        store: keeps the answers; None keeps none and joins no requests.
        ttl_s: seconds after which the store is asked to forget.
        scope: goes into every key: what else an answer depends on, such as the models.
    """

    store: AnswerStore | None
    ttl_s: float
    scope: bytes = b""
    _runs: dict[bytes, _Run] = field(default_factory=dict)
    _away_until: float = 0.0  # of time.monotonic()
    _forgetting: asyncio.TimerHandle | None = None

    def key(self, headers: Mapping[str, str], envelope: Envelope, preferences: Preferences) -> bytes | None:
        """What tells a request that is sent again from another one; None where the client wants nothing kept.

        It covers the ids of device and utterance, and the rest of the envelope too: whoever does not have the speech
        cannot ask for its words, and an id that is used for something else is another request.
        """
        if self.store is None or NO_STORE in headers.get(CACHE_CONTROL, "").lower():
            return None
        digest = blake2b(self.scope, digest_size=32)
        fields = replace(envelope, payload=b"")
        asked = (fields, preferences.strict, preferences.emotions, *["words"] * bool(preferences.words))
        digest.update(repr(asked).encode())
        digest.update(envelope.payload)
        return digest.digest()

    async def once(self, key: bytes | None, run: Callable[[], Awaitable[Reply]]) -> Reply:
        """The answer that is kept for a key, or under way, or that `run` gives.

        A run goes on as long as anybody waits for it, and is cancelled with the last. What it raises is for the request
        that started it alone: the others may have more time, and try by themselves.
        """
        if key is None:
            return await run()
        while True:
            found = self._runs.get(key)
            under_way = found or self._start(key, run)
            try:
                reply = await self._wait(key, under_way)
            except Exception:
                if found is None:
                    raise
            except asyncio.CancelledError:
                # This one's client has left, or the run of another one was ended with its client
                me = asyncio.current_task()
                if found is None or not under_way.task.cancelled() or (me is not None and me.cancelling()):
                    raise
            else:
                return replace(reply, replay=reply.replay or "joined") if found else reply

    def _start(self, key: bytes, run: Callable[[], Awaitable[Reply]]) -> _Run:
        task = asyncio.get_running_loop().create_task(self._stored_or_run(key, run), context=_own_context())
        started = self._runs[key] = _Run(task)
        task.add_done_callback(lambda done: self._ended(key, started, done))
        return started

    async def _wait(self, key: bytes, under_way: _Run) -> Reply:
        under_way.waiting += 1
        try:
            return await asyncio.shield(under_way.task)
        finally:
            under_way.waiting -= 1
            if not under_way.waiting and not under_way.task.done():
                under_way.task.cancel()
                self._forget(key, under_way)  # whoever comes now must not join what ends

    def _ended(self, key: bytes, ended: _Run, task: asyncio.Task[Reply]) -> None:
        self._forget(key, ended)
        if not task.cancelled():
            task.exception()  # has been seen, also where nobody waits for it any longer

    def _forget(self, key: bytes, ended: _Run) -> None:
        if self._runs.get(key) is ended:
            del self._runs[key]

    async def _stored_or_run(self, key: bytes, run: Callable[[], Awaitable[Reply]]) -> Reply:
        if (stored := await self._asked(lambda store: store.get(key))) is not None:
            with suppress(ValueError):  # written by something else
                return Reply.from_bytes(stored, "stored")
        reply = await run()
        await self._asked(lambda store: store.put(key, reply.to_bytes()))
        self._expire_later()
        return reply

    async def _asked(self, ask: Callable[[AnswerStore], Awaitable[bytes | None]]) -> bytes | None:
        """What the store says; None where it does not answer, which makes a request slower and never fail."""
        if self.store is None or time.monotonic() < self._away_until:
            return None
        try:
            return await ask(self.store)
        except StoreUnavailable as error:
            self._away_until = time.monotonic() + AWAY_S
            logger.warning("answers are not kept for the next %g s: %s", AWAY_S, error)
            return None

    def _expire_later(self) -> None:
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(self.ttl_s, self._expire)

    def _expire(self) -> None:
        """So that nothing outlives its time where no request comes any more."""
        self._forgetting = None
        try:
            left = self.store.expire() if self.store else 0
        except StoreUnavailable:
            left = 1
        if left:
            self._expire_later()


def idempotency(settings: Settings) -> Idempotency:
    """As the settings say. Where the embedded store cannot be opened, the log says so, and answers are not kept."""
    own = settings.idempotency
    others = settings.model_dump_json(exclude={"idempotency", "telemetry", "auth", "limits", "cors", "hosts"})
    scope = blake2b(others.encode(), digest_size=32).digest()
    try:
        store = answer_store(own)
    except StoreUnavailable as error:
        logger.warning("answers are not kept: %s", error)
        store = None
    return Idempotency(store, own.ttl_s, scope)


def _own_context() -> contextvars.Context:
    """This request's context, but under an id of its own: by that Serve cancels what a request asked of other replicas,
    when its client leaves. The run's calls must outlive the request that started it.
    """
    context = contextvars.copy_context()
    request = context.get(_serve_request_context)
    if request is not None:
        context.run(_serve_request_context.set, replace(request, _internal_request_id=uuid.uuid4().hex))
    context.run(async_task_id.set, None)  # and by that Ray cancels what a task has asked for
    return context
