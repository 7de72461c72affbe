"""The route `WS /v1/stream`: who may open a socket, and what ends it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from amser.errors import SignalError
from deployments.access.denied import Denied
from deployments.access.gate import Gate
from deployments.gateway.clients import client_of
from deployments.gateway.preferences import Preferences, read_language, read_preferences
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.streams import messages
from deployments.gateway.streams.messages import Sent, Start
from deployments.gateway.streams.sessions import Session, Sessions
from deployments.gateway.streams.socket import Socket, read_message
from deployments.gateway.streams.speech import KltSpeech, PcmSpeech, Speech
from deployments.gateway.utterances.answering import Answering
from deployments.gateway.utterances.answers import refusal
from deployments.replica.execution import ModelThread
from deployments.replica.faults import told
from deployments.settings import Settings
from deployments.telemetry.request_ids import request_id
from deployments.telemetry.requests import Telemetry

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


class Streams:
    """Sockets of a replica of the gateway.

    Args:
        settings: of the whole application.
        answering: recognises.
        gate: keys and limits.
        telemetry: what is seen from outside.
        languages: codes that the recogniser knows.
        emotions: classes that the emotion network knows.
    """

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        gate: Gate,
        telemetry: Telemetry,
        languages: Set[str],
        emotions: tuple[str, ...],
    ) -> None:
        self._settings, self._requests = settings.streams, settings.requests
        self._answering, self._gate, self._telemetry = answering, gate, telemetry
        self._languages, self._emotions = languages, emotions
        self._sessions = Sessions(settings.streams)
        self._sockets: Counter[str] = Counter()
        self._thread = ModelThread("stream")
        self._turns = asyncio.Semaphore(settings.streams.looks_at_once)
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Tells every client to reconnect: this replica is about to end."""
        self._draining.set()
        self._draining = asyncio.Event()  # those that come yet are of clients whom another replica was not there for

    async def serve(self, websocket: WebSocket) -> None:
        """A socket, from the handshake to its end."""
        visit = self._gate.visit()
        caller = visit.client or client_of(websocket)
        try:
            with self._one_of(caller):
                await self._accepted(websocket, caller)
        except Refusal as refused:
            await refused.response(request_id(websocket.headers))(websocket.scope, websocket.receive, websocket.send)

    @contextmanager
    def _one_of(self, caller: str) -> Iterator[None]:
        """Counts it. Raises Refusal."""
        wait_s = self._requests.retry_after_s
        if self._sockets.total() >= self._settings.at_once:
            raise refusal_of("too-many-sockets", "this replica has as many sockets as it keeps", None, wait_s)
        if self._sockets[caller] >= self._settings.of_a_client:
            limit = f"{self._settings.of_a_client} at once"
            raise refusal_of("too-many-sockets", "this client has as many sockets as it may", limit, wait_s)
        self._sockets[caller] += 1
        try:
            yield
        finally:
            self._sockets[caller] -= 1
            if not self._sockets[caller]:
                del self._sockets[caller]

    async def _accepted(self, websocket: WebSocket, caller: str) -> None:
        offered = websocket.scope.get("subprotocols", ())
        await websocket.accept(messages.PROTOCOL if messages.PROTOCOL in offered else None)
        session: Session | None = None
        ended = False
        try:
            preferences = read_preferences(
                websocket.headers, {}, longest_s=self._requests.deadline_s, classes=self._emotions
            )
            async with asyncio.timeout(self._settings.start_s):
                received = await websocket.receive()
                if received["type"] == "websocket.disconnect":
                    return
                first = read_message(received.get("text") or "")
            if not isinstance(first, Start):
                raise refusal_of("bad-message", "the first message is no start", "start")
            session = await self._sessions.resume(caller, first)
            resumed = session is not None
            language = read_language(first.language, self._languages)
            preferences = read_preferences(
                websocket.headers,
                {"emotions": first.emotions} if first.emotions else {},
                longest_s=self._requests.deadline_s,
                classes=self._emotions,
            )
            preferences = replace(preferences, words=first.words)
            # A time that the client names is for each answer, not for the socket
            preferences = replace(preferences, starts_with_head=False)
            session = session or self._sessions.add(caller, first, self._new_speech(first))
            session.start = first
            socket = self._socket(websocket, session, preferences, language, caller)
            session.task = task = asyncio.create_task(socket.run(resumed))
            try:
                await asyncio.wait([task])
            finally:
                task.cancel()
            if task.cancelled():
                session = None  # it goes on in another socket
                await _close(websocket, messages.REPLACED)
                return
            task.result()
        except WebSocketDisconnect as left:
            ended = left.code == messages.NORMAL
        except TimeoutError:
            await _close(websocket, messages.IDLE)
        except (Refusal, Denied, SignalError) as error:
            ended = True
            known = error if isinstance(error, Refusal) else refusal(error, 0.0, self._requests.retry_after_s)
            assert known is not None
            await self._tell(websocket, known)
        except Exception as error:
            logger.error("a stream failed: %s", told(error))
            await self._tell(websocket, refusal_of("internal", "the cluster failed; its log has the reason"))
        finally:
            if session is not None:
                (self._sessions.forget if ended else self._sessions.leave)(session)

    def _socket(
        self, websocket: WebSocket, session: Session, preferences: Preferences, language: str | None, caller: str
    ) -> Socket:
        return Socket(
            websocket,
            session,
            self._settings,
            self._answering,
            self._telemetry,
            self._gate.visit(),
            caller,
            preferences,
            language,
            self._turns,
            self._draining,
        )

    def _new_speech(self, start: Start) -> Callable[[], Speech]:
        if start.format == "pcm16":
            return partial(PcmSpeech, self._requests.limits, self._thread)
        if start.header is None:
            raise refusal_of("bad-message", "a stream of klt has no header", "the three bytes before its blocks")
        return partial(KltSpeech, bytes.fromhex(start.header), self._requests.limits, self._thread)

    async def _tell(self, websocket: WebSocket, known: Refusal) -> None:
        problem = known.problem(request_id(websocket.headers)).model_dump(exclude_none=True)
        message: Sent = {"type": "error", "problem": problem}
        code = messages.REFUSED
        if known.retry_after_s is not None:
            message["again_s"], code = known.retry_after_s, messages.TRY_AGAIN
        elif known.kind.slug in ("malformed", "bad-message"):
            code = messages.MALFORMED
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.send_json(message)
        await _close(websocket, code)


async def _close(websocket: WebSocket, code: int) -> None:
    if websocket.application_state is WebSocketState.CONNECTED:
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(code)
