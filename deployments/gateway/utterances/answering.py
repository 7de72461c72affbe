"""From a request with one utterance to its answer: preferences, body, limits, admission, the pipeline, the document."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from amser import codecs, wire
from amser.audio import AudioWarning
from amser.rate_hint import HEADER as RATE_HINT
from deployments.access.gate import Gate
from deployments.gateway.bodies import RequestBodies
from deployments.gateway.clients import client_of
from deployments.gateway.idempotency import REPLAY_HEADER, Reply, idempotency
from deployments.gateway.preferences import APPLIED_HEADER, STRICT, Preferences, read_preferences, with_fields
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.utterances.admission import Admission, Overloaded
from deployments.gateway.utterances.answers import answer, refusal, server_timing
from deployments.gateway.utterances.flow_metrics import FlowMetrics
from deployments.gateway.utterances.rate_hint import rate_hint
from deployments.gateway.utterances.reading import Reader
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


def refused(refusal: Refusal, record: RequestRecord) -> Response:
    """The problem document, noted."""
    record.refused(refusal.status.value, refusal.kind.slug)
    return refusal.response(record.request_id)


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
        with self._telemetry.request(request, route) as record:
            return await self._responded(request, reader, record)

    async def reply(
        self,
        envelope: wire.Envelope,
        codec: str,
        size: int,
        preferences: Preferences,
        record: RequestRecord,
        client: str,
        warnings: Sequence[AudioWarning] = (),
    ) -> Reply:
        """The document of an utterance, with its headers.

        Args:
            envelope: the utterance.
            codec: or the audio format that it came in.
            size: bytes that were received.
            preferences: of the request.
            record: where it is noted.
            client: for admission's fairness.
            warnings: of decoding.

        Raises:
            Exception: what `recognize` raises.
        """
        recognition = await self.recognize(envelope, preferences, client)
        step = codecs.payload_step(envelope.codec, envelope.payload)
        document = answer(
            recognition,
            record.request_id,
            codec=codec,
            received=size,
            step=step,
            models=self._names,
            warnings=warnings,
        )
        timing = server_timing(document.timings_ms, recognition.queues)
        record.recognized(document.emotion, document.uncertain, recognition.mel.seconds, recognition.left_out)
        headers = {"Server-Timing": timing, REQUEST_ID_HEADER: record.request_id}
        if hint := rate_hint(step, recognition.transcript, self._rate_hint):
            headers[RATE_HINT] = str(hint)
        if preferences.strict:
            headers[APPLIED_HEADER] = STRICT
        return Reply(document.model_dump_json().encode(), headers)

    async def recognize(self, envelope: wire.Envelope, preferences: Preferences, client: str) -> Recognition:
        """Words and emotion of an utterance, under admission and until its deadline.

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
                return await self._run(envelope, Effort.WHOLE, preferences, strict)
        try:
            admitted = self._admission.admit(envelope.seconds, remaining(preferences.deadline), strict, client)
        except Overloaded as refused:
            self.metrics.refuse(refused)
            raise
        with self.metrics.running(admitted) as running:
            recognition = await self._run(envelope, admitted.effort, preferences, strict)
            running.fell_short = admitted.effort >= Effort.WORDS and recognition.transcript is None
        return recognition

    async def _responded(self, request: Request, reader: Reader, record: RequestRecord) -> Response:
        within_s = self._requests.deadline_s
        try:
            preferences = read_preferences(
                request.headers, request.query_params, longest_s=within_s, classes=self._emotions
            )
            within_s = preferences.within_s
            reader.check(request)
            named_s = remaining(preferences.deadline) if preferences.starts_with_head else None
            async with asyncio.timeout(named_s):
                body = await self._bodies.read(request, reader.largest)
            reply = await self._answered(request, reader, body, preferences.from_body(), record)
        except ClientDisconnect:
            record.left("body")
            return Response(status_code=HTTPStatus.BAD_REQUEST)
        except Refusal as known:
            return refused(known, record)
        except Exception as error:
            return refused(self.problem(error, within_s, record), record)
        record.answered(reply.degraded, reply.replay)
        replay = {REPLAY_HEADER: reply.replay} if reply.replay else {}
        own = {REQUEST_ID_HEADER: record.request_id}  # a kept answer has the id of the request that it was computed for
        return Response(reply.body, headers={**reply.headers, **own, **replay}, media_type=JSONResponse.media_type)

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

    async def _answered(
        self, request: Request, reader: Reader, body: bytes, preferences: Preferences, record: RequestRecord
    ) -> Reply:
        with self._one_inside():
            async with asyncio.timeout(remaining(preferences.deadline)):
                read = await reader.read(request, body)
            envelope, codec = read.envelope, read.codec
            preferences = with_fields(preferences, read.fields, self._emotions)
            size = len(body)
            record.received(codec, size)
            visit = self._gate.visit()
            await visit.hears(envelope.device_id if reader.is_of_device else None, size, envelope.seconds)
            client = visit.client or client_of(request)
            # A request that computes ends itself at the deadline, so that admission learns why; one that waits for
            # the answer to another ends here. An audio file has no ids: its envelope was made here.
            key = self._resends.key(request.headers, envelope, preferences) if reader.is_of_device else None
            compute = partial(self.reply, envelope, codec, size, preferences, record, client, read.warnings)
            async with asyncio.timeout(remaining(preferences.deadline) + JOINED_GRACE_S):
                return await self._resends.once(key, compute)

    async def _run(
        self, envelope: wire.Envelope, effort: Effort, preferences: Preferences, strict: bool
    ) -> Recognition:
        """The pipeline, until the deadline: admission learns that it passed, apart from a client that left."""
        recognition = recognize(
            envelope,
            self._stages,
            effort=effort,
            deadline=preferences.deadline if self._flow.deadlines else NEVER,
            strict=strict,
            emotions=preferences.emotions,
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
    def _one_inside(self) -> Iterator[None]:
        """A request is under way. Serve counts bodies on their way too, and so leaves room for readiness."""
        if self._inside >= self._requests.at_once:
            cause = f"{self._inside} requests are under way"
            raise refusal_of("queue-full", cause, retry_after_s=self._requests.retry_after_s)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
