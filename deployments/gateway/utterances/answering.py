"""From a request with one utterance to its answer: preferences, body, limits, admission, the pipeline, the document."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from amser import codecs, wire
from amser.rate_hint import HEADER as RATE_HINT
from deployments.access.gate import Gate, Visit
from deployments.gateway.bodies import RequestBodies
from deployments.gateway.clients import client_of
from deployments.gateway.idempotency import REPLAY_HEADER, Reply, idempotency
from deployments.gateway.preferences import APPLIED_HEADER, STRICT, Preferences, read_preferences, with_fields
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.utterances.admission import Admission, Overloaded
from deployments.gateway.utterances.answers import answer, refusal, server_timing
from deployments.gateway.utterances.flow_metrics import FlowMetrics
from deployments.gateway.utterances.rate_hint import rate_hint
from deployments.gateway.utterances.reading import Read, Reader
from deployments.pipeline import Effort, Recognition, Stages, recognize
from deployments.replica.deadline import NEVER, remaining
from deployments.replica.execution import Timed
from deployments.replica.faults import told
from deployments.settings import Settings
from deployments.telemetry.request_ids import REQUEST_ID_HEADER
from deployments.telemetry.requests import RequestRecord, Telemetry
from models.messages import Mel

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

MEL_BANDS: Final = 80  # of the recogniser and of the fusion network
JOINED_GRACE_S: Final = 0.1  # beyond the deadline, until who waits for another request's answer is told


def refused(refusal: Refusal, record: RequestRecord, path: str = "") -> Response:
    """The problem document, noted; `path` is that of the request, where it may be one of OpenAI's."""
    record.refused(refusal.status.value, refusal.kind.slug)
    return refusal.response(record.request_id, path=path)


class Answering:
    """Answers requests with one utterance each, in a replica of the gateway.

    Args:
        settings: of the whole application.
        stages: that compute.
        names: of the models, by stage.
        emotions: classes that the emotion network knows.
        gate: keys and limits.
        telemetry: what is seen from outside.

    Attributes:
        metrics: of what is admitted and refused.
    """

    def __init__(
        self,
        settings: Settings,
        stages: Stages,
        names: dict[str, str],
        emotions: tuple[str, ...],
        gate: Gate,
        telemetry: Telemetry,
    ) -> None:
        self._requests, self._flow, self._rate_hint = settings.requests, settings.flow, settings.rate_hint
        self._names, self._emotions, self._gate, self._telemetry = names, emotions, gate, telemetry
        self._admission = Admission(client_share=settings.flow.client_share)
        self.metrics = FlowMetrics(self._admission, telemetry.instruments)
        self._stages = self._counted(stages)
        self._resends = idempotency(settings)
        self._bodies = RequestBodies(settings.requests.bodies)
        self._inside = 0  # requests whose body is here and that have no answer yet

    async def respond(self, request: Request, route: str, reader: Reader) -> Response:
        """The answer to a request, or the problem document of what stands against it."""
        return await self.responded(request, route, partial(self._respond, reader))

    async def responded(
        self, request: Request, route: str, work: Callable[[Request, RequestRecord], Awaitable[Response]]
    ) -> Response:
        """What `work` makes of a request, or the problem document of what it raises; noted either way.

        Args:
            request: whose body may still be on its way.
            route: as metrics name it.
            work: notes itself what it answers.
        """
        with self._telemetry.request(request, route) as record:
            try:
                return await work(request, record)
            except ClientDisconnect:
                record.left("body")
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            except Refusal as known:
                return refused(known, record, route)
            except Exception as error:
                return refused(self.problem(error, self._within_s(request), record), record, route)

    def preferences(self, request: Request) -> Preferences:
        """What a request asks for, beside its utterance.

        Raises:
            Refusal: it cannot be read.
        """
        longest_s = self._requests.deadline_s
        return read_preferences(request.headers, request.query_params, longest_s=longest_s, classes=self._emotions)

    async def body(self, request: Request, largest: int, preferences: Preferences) -> bytes:
        """The whole body.

        Raises:
            Refusal: it has more than `largest` bytes, or comes too slowly.
            TimeoutError: the deadline that the client named passed.
            starlette.requests.ClientDisconnect: the client left.
        """
        named_s = remaining(preferences.deadline) if preferences.starts_with_head else None
        async with asyncio.timeout(named_s):
            return await self._bodies.read(request, largest)

    def visit(self) -> Visit:
        """The request that is being answered, as keys and limits know it."""
        return self._gate.visit()

    async def once(
        self,
        request: Request,
        read: Read,
        size: int,
        preferences: Preferences,
        record: RequestRecord,
        visit: Visit,
        *,
        is_of_device: bool,
    ) -> Reply:
        """The answer to an utterance that has been read: under the limits, and computed once.

        Args:
            request: that brought it.
            read: the utterance.
            size, preferences, record: see `reply`.
            visit: whose limits it counts against.
            is_of_device: see `Reader`.

        Raises:
            Exception: what `reply` raises; and `deployments.access.denied.Denied`.
        """
        envelope = read.envelope
        record.received(read.codec, size)
        await visit.hears(envelope.device_id if is_of_device else None, size, envelope.seconds)
        client = visit.client or client_of(request)
        # A request that computes ends itself at the deadline, so that admission learns why; one that waits for
        # the answer to another ends here. An audio file has no ids: its envelope was made here.
        key = self._resends.key(request.headers, envelope, preferences) if is_of_device else None
        compute = partial(self.reply, read, size, preferences, record, client)
        async with asyncio.timeout(remaining(preferences.deadline) + JOINED_GRACE_S):
            return await self._resends.once(key, compute)

    async def reply(self, read: Read, size: int, preferences: Preferences, record: RequestRecord, client: str) -> Reply:
        """The document of an utterance, with its headers.

        Args:
            read: the utterance.
            size: bytes that were received.
            preferences: of the request.
            record: where it is noted.
            client: for admission's fairness.

        Raises:
            Exception: what `recognize` raises.
        """
        recognition = await self.recognize(read.envelope, preferences, client)
        return self.reply_of(recognition, read, size, preferences, record)

    def reply_of(
        self, recognition: Recognition, read: Read, size: int, preferences: Preferences, record: RequestRecord
    ) -> Reply:
        """The document of an utterance that is recognised; the arguments are those of `reply`."""
        step = codecs.payload_step(read.envelope.codec, read.envelope.payload)
        document = answer(
            recognition,
            record.request_id,
            codec=read.codec,
            received=size,
            step=step,
            models=self._names,
            warnings=read.warnings,
        )
        timing = server_timing(document.timings_ms, recognition.queues)
        record.recognized(document.emotion, document.uncertain, recognition.mel.seconds, recognition.left_out)
        headers = {"Server-Timing": timing, REQUEST_ID_HEADER: record.request_id}
        if hint := rate_hint(step, recognition.transcript, self._rate_hint):
            headers[RATE_HINT] = str(hint)
        if preferences.strict:
            headers[APPLIED_HEADER] = STRICT
        return Reply(document.model_dump_json().encode(), headers)

    async def recognize(
        self,
        envelope: wire.Envelope,
        preferences: Preferences,
        client: str,
        mel: Timed[Mel] | None = None,
        draft: tuple[int, ...] = (),
    ) -> Recognition:
        """Words and emotion of an utterance, under admission and until its deadline.

        Args:
            envelope: the utterance.
            preferences: of the request.
            client: for admission's fairness.
            mel: of the envelope, where it was decoded while it came.
            draft: see `deployments.pipeline.recognize`.

        Raises:
            deployments.gateway.utterances.admission.Overloaded: there is no room for it.
            amser.errors.SignalError: it cannot be used; before it joins a batch with those of others.
            TimeoutError: the deadline passed.
        """
        if envelope.bands != MEL_BANDS:
            raise wire.Unsupported(f"this recogniser does not read profile {envelope.profile!r}", "whisper80, paper")
        strict = preferences.strict or not self._flow.degrade
        if not self._flow.admission:
            with self.metrics.inside():
                return await self._run(envelope, Effort.WHOLE, preferences, strict, mel, draft)
        try:
            admitted = self._admission.admit(envelope.seconds, remaining(preferences.deadline), strict, client)
        except Overloaded as refused:
            self.metrics.refuse(refused)
            raise
        with self.metrics.running(admitted) as running:
            recognition = await self._run(envelope, admitted.effort, preferences, strict, mel, draft)
            running.fell_short = admitted.effort >= Effort.WORDS and recognition.transcript is None
        return recognition

    def problem(self, error: Exception, within_s: float, record: RequestRecord) -> Refusal:
        """What a client is told of an error; one that nobody expected is logged, without its text.

        Args:
            error: that ended the request.
            within_s: seconds that its answer might have taken.
            record: of the request.
        """
        if isinstance(error, TimeoutError):
            record.missed_deadline()
        known = refusal(error, within_s, self._requests.retry_after_s)
        if known is None:
            logger.error("request %s failed: %s", record.request_id, told(error))
            known = refusal_of("internal", "the cluster failed; its log has the reason")
        return known

    async def _respond(self, reader: Reader, request: Request, record: RequestRecord) -> Response:
        preferences = self.preferences(request)
        reader.check(request)
        body = await self.body(request, reader.largest, preferences)
        preferences = preferences.from_body()
        with self.one_inside():
            async with asyncio.timeout(remaining(preferences.deadline)):
                read = await reader.read(request, body)
            preferences = with_fields(preferences, read.fields, self._emotions)
            reply = await self.once(
                request, read, len(body), preferences, record, self.visit(), is_of_device=reader.is_of_device
            )
        record.answered(reply.degraded, reply.replay)
        replay = {REPLAY_HEADER: reply.replay} if reply.replay else {}
        own = {REQUEST_ID_HEADER: record.request_id}  # a kept answer has the id of the request that it was computed for
        return Response(reply.body, headers={**reply.headers, **own, **replay}, media_type=JSONResponse.media_type)

    def _within_s(self, request: Request) -> float:
        """Seconds that the answer to a request might take."""
        try:
            return self.preferences(request).within_s
        except Refusal:
            return self._requests.deadline_s

    async def _run(
        self,
        envelope: wire.Envelope,
        effort: Effort,
        preferences: Preferences,
        strict: bool,
        mel: Timed[Mel] | None,
        draft: tuple[int, ...],
    ) -> Recognition:
        """The pipeline, until the deadline: admission learns that it passed, apart from a client that left."""

        async def known(_: wire.Envelope) -> Timed[Mel]:
            assert mel is not None
            self.metrics.is_well_formed()
            return mel

        recognition = recognize(
            envelope,
            replace(self._stages, reconstruct=known) if mel else self._stages,
            effort=effort,
            deadline=preferences.deadline if self._flow.deadlines else NEVER,
            strict=strict,
            emotions=preferences.emotions,
            word_times=bool(preferences.words),
            draft=draft,
        )
        async with asyncio.timeout(remaining(preferences.deadline)):
            if self._flow.cancellation:
                return await recognition
            return await asyncio.shield(asyncio.ensure_future(recognition))

    def _counted(self, stages: Stages) -> Stages:
        """The stages; the first counts what is well-formed, which its payload shows there and not before."""

        async def reconstruct(envelope: wire.Envelope) -> Timed[Mel]:
            mel = await stages.reconstruct(envelope)
            self.metrics.is_well_formed()
            return mel

        return replace(stages, reconstruct=reconstruct)

    @contextmanager
    def one_inside(self) -> Iterator[None]:
        """A request is under way. Serve counts bodies on their way too, and so leaves room for readiness."""
        if self._inside >= self._requests.at_once:
            cause = f"{self._inside} requests are under way"
            raise refusal_of("queue-full", cause, retry_after_s=self._requests.retry_after_s)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
