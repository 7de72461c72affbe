"""One socket: reads messages, acknowledges them, has looks, and answers each utterance."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Final

from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from amser.errors import SignalError
from deployments.access.gate import Visit
from deployments.gateway.preferences import Preferences
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.streams import messages
from deployments.gateway.streams.looks import Looks
from deployments.gateway.streams.messages import FROM_CLIENT, End, Ping, Sent, Start
from deployments.gateway.streams.sessions import Session
from deployments.gateway.utterances.answering import Answering
from deployments.gateway.utterances.reading import Read
from deployments.pipeline import Recognition
from deployments.settings import StreamSettings
from deployments.telemetry.requests import Telemetry

ROUTE: Final = "/v1/stream"
SETTLES_S: Final = 0.2  # of quiet, from which a pause may be the end
CHARGED_S: Final = 1.0  # of speech, at a time
MOST_MESSAGES: Final = 4_000  # of an utterance: 30 s in pieces of 10 ms; pauses are looked for after each


def read_message(text: str) -> Start | End | Ping:
    """A text message of a client.

    Raises:
        Refusal: it is none that we know.
    """
    try:
        return FROM_CLIENT.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise refusal_of(
            "bad-message", f"{where or 'the message'}: {first['msg']:.200}", "see docs/stream.md"
        ) from None


class Socket:
    """Serves a session until its socket ends.

    Args:
        websocket: accepted.
        session: of the client.
        settings: limits.
        answering: recognises.
        telemetry: each utterance is a request there.
        visit: of the client at the gate.
        client: for admission's fairness.
        preferences: of each answer; its deadline counts from the end of the utterance.
        language: code of the one that is spoken.
        turns: in which looks of the replica are had.
        draining: set when sockets are to end.
    """

    def __init__(
        self,
        websocket: WebSocket,
        session: Session,
        settings: StreamSettings,
        answering: Answering,
        telemetry: Telemetry,
        visit: Visit,
        client: str,
        preferences: Preferences,
        language: str | None,
        turns: asyncio.Semaphore,
        draining: asyncio.Event,
    ) -> None:
        self._websocket, self._session, self._settings = websocket, session, settings
        self._answering, self._telemetry, self._visit, self._client = answering, telemetry, visit, client
        self._preferences, self._language, self._draining = preferences, language, draining
        self._looks = Looks(settings, turns, self._recognize, self._show)
        self._began = time.monotonic()
        self._received_s = 0.0
        self._is_first = True  # utterance, which counts as a request: the gate has counted the socket as one
        self._uncharged: tuple[int, float] = (0, 0.0)  # bytes and seconds of speech

    async def run(self, resumed: bool) -> None:
        """Until the client closes the socket, or a limit does.

        Raises:
            WebSocketDisconnect: the client has left, or the link is cut.
            Refusal, Denied: the socket has to end.
            TimeoutError: the client has said nothing for too long.
        """
        session = self._session
        ready: Sent = {"type": "ready", "session": session.id, "resumed": resumed, "next": session.next}
        await self._send({**ready, "utterance": session.utterance, "largest": self._settings.largest_message})
        for number, answer in session.answers.items():
            if number >= session.start.utterance:
                await self._send(answer)
        try:
            while True:
                await self._next_message()
                if self._ends_here():
                    await self._send({"type": "reconnect", "session": session.id})
                    await self._websocket.close(messages.GOING_AWAY)
                    return
        finally:
            self._looks.close()

    def _ends_here(self) -> bool:
        is_old = time.monotonic() - self._began > self._settings.longest_s
        return self._draining.is_set() or (
            is_old and not (self._session.speech.messages and self._session.pauses.has_speech)
        )

    async def _next_message(self) -> None:
        receiving = asyncio.ensure_future(self._websocket.receive())
        drained = asyncio.ensure_future(self._draining.wait())
        try:
            done, _ = await asyncio.wait(
                (receiving, drained), timeout=self._settings.idle_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            drained.cancel()
            if not receiving.done():
                receiving.cancel()
        if receiving not in done:
            if not done:
                raise TimeoutError
            return
        received = receiving.result()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received.get("code", 1005))
        if received.get("bytes") is not None:
            await self._take(received["bytes"])
            return
        message = read_message(received.get("text") or "")
        if isinstance(message, End):
            await self._end(message)
        elif isinstance(message, Ping):
            await self._send({"type": "pong"})
        else:
            raise refusal_of("bad-message", "a second start", "one start a socket")

    async def _take(self, content: bytes) -> None:
        if len(content) > self._settings.largest_message:
            raise refusal_of("too-large", "the message is too large", f"up to {self._settings.largest_message} bytes")
        session = self._session
        if len(session.speech.messages) >= MOST_MESSAGES:
            raise refusal_of("too-large", "the utterance is in too many messages", f"{MOST_MESSAGES} messages")
        try:
            seconds = session.take(content)
        except SignalError:
            if not session.speech.messages:
                raise
            too_long = session.new_speech()
            too_long.append(content)  # raises where the message itself is wrong
            await self._finish_in_time(len(session.speech.messages), "longest")
            seconds = session.take(content)
        await self._charge(len(content), seconds)
        await self._send({"type": "ack", "next": session.next, "first": session.first})
        quiet_s, count = session.pauses.quiet_s, len(session.speech.messages)
        paused = quiet_s >= SETTLES_S
        if not paused:
            session.paused_at = None
        elif session.paused_at is None:
            session.paused_at = count
        if session.start.ends == "cluster":
            if session.paused_at is not None and quiet_s >= self._settings.pause_s:
                await self._finish_in_time(session.paused_at, "pause")
                return
            if not session.pauses.has_speech and session.seconds > 2 * self._settings.pause_s:
                session.begin_after(count - 1)  # nobody has said anything yet
                return
        if session.pauses.has_speech:
            self._looks.consider(count, session.seconds, paused and session.paused_at == count)

    async def _charge(self, size: int, seconds: float, all_of_it: bool = False) -> None:
        self._received_s += seconds
        elapsed = time.monotonic() - self._began
        too_early = self._received_s - self._settings.burst_s - self._settings.pace * elapsed
        if too_early > 0:  # faster than anybody speaks, or after a long cut: more is read when its time has come
            await asyncio.sleep(too_early / self._settings.pace)
        size, seconds = self._uncharged[0] + size, self._uncharged[1] + seconds
        if seconds >= CHARGED_S or (all_of_it and size):
            await self._visit.goes_on(size, seconds)
            size, seconds = 0, 0.0
        self._uncharged = size, seconds

    async def _end(self, message: End) -> None:
        session = self._session
        if message.at <= session.first:
            return  # nothing was said since, or it has its answer, which was sent
        if message.at > session.next:  # before it, where there was no room and more was said meanwhile
            cause = f"the utterance ends before message {message.at}, and {session.next} is the next"
            raise refusal_of("bad-message", cause, f"up to {session.next}")
        await self._charge(0, 0.0, all_of_it=True)
        await self._finish(message.at - session.first, message.frames, "client")

    async def _finish_in_time(self, count: int, reason: str) -> None:
        """Answers an utterance whose end the cluster found; without room, later: nothing is read until then."""
        while again_s := await self._finish(count, None, reason):
            await asyncio.sleep(again_s)

    async def _finish(self, count: int, frames: int | None, reason: str) -> float:
        """Answers the utterance in the first messages; returns seconds until it can be tried again, 0 if it was."""
        session, preferences = self._session, self._preferences.from_body()
        ended = time.perf_counter()
        end: Sent = {"utterance": session.utterance, "reason": reason, "next": session.first + count}
        with self._telemetry.request(self._websocket, ROUTE) as record:
            size = sum(map(len, session.speech.messages[:count]))
            record.received(session.speech.codec, size)
            try:
                is_whole = frames is None or frames == session.speech.frames[count - 1]
                heard = await self._looks.take(count) if is_whole else None
                envelope, mel = await session.speech.until(count, frames, self._language)
                with self._visit.item(is_first=self._is_first) as counted:
                    await counted.hears(None, 0, 0.0)
                self._is_first = False
                recognition = heard or await self._answering.recognize(
                    envelope, preferences, self._client, mel, session.draft
                )
                reply = self._answering.reply_of(
                    recognition, Read(envelope, session.speech.codec), size, preferences, record
                )
            except Exception as error:
                known = error
                if not isinstance(error, Refusal):
                    known = self._answering.problem(error, preferences.within_s, record)
                assert isinstance(known, Refusal)
                record.refused(known.status.value, known.kind.slug)
                problem = known.problem(record.request_id).model_dump(exclude_none=True)
                if known.retry_after_s is not None:
                    await self._send({"type": "refused", **end, "problem": problem, "again_s": known.retry_after_s})
                    return float(known.retry_after_s)
                answer: Sent = {"type": "failed", **end, "problem": problem}
            else:
                record.answered(recognition.left_out, None)
                took_ms = round(1000 * (time.perf_counter() - ended), 1)
                answer = {
                    "type": "final",
                    **end,
                    "ahead": heard is not None,
                    "ms": took_ms,
                    "answer": json.loads(reply.body),
                }
        session.answered(count, answer)
        await self._send(answer)
        return 0.0

    async def _recognize(self, count: int) -> Recognition:
        envelope, mel = await self._session.speech.until(count, None, self._language)
        preferences, draft = self._preferences.from_body(), self._session.draft
        return await self._answering.recognize(envelope, preferences, self._client, mel, draft)

    async def _show(self, recognition: Recognition) -> None:
        transcript, emotion = recognition.transcript, recognition.emotion
        session = self._session
        if transcript is None or transcript.speech == "none":
            return
        session.draft = transcript.tokens
        stable, text = session.stable.look(transcript.text, transcript.language)
        shown: Sent = {"type": "partial", "utterance": session.utterance, "stable": stable, "text": text}
        if emotion is not None:
            shown |= {"emotion": emotion.label, "confidence": round(emotion.confidence, 4)}
            shown |= {"uncertain": emotion.uncertain}
        with suppress(RuntimeError, WebSocketDisconnect):  # closed meanwhile
            await self._send({**shown, "seconds": round(recognition.mel.seconds, 2)})

    async def _send(self, message: Sent) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.send_json(message)
