"""From a request with a recording to its answer, now or as a job; and what is asked of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence, Set
from contextlib import asynccontextmanager, nullcontext, suppress
from http import HTTPStatus
from typing import BinaryIO, Final

from fastapi import Request, Response
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from deployments.access.denied import Denied
from deployments.access.gate import Gate, Visit
from deployments.access.rules import JOB
from deployments.gateway.answer_store import StoreUnavailable
from deployments.gateway.bodies import RecordingBodies
from deployments.gateway.clients import client_of
from deployments.gateway.preferences import (
    APPLIED_HEADER,
    LANGUAGE,
    PREFER_HEADER,
    STRICT,
    Preferences,
    read_language,
    read_preferences,
    with_fields,
)
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.recordings.jobs import Asked, Jobs, job_store
from deployments.gateway.recordings.recognition import Recordings
from deployments.gateway.recordings.store.base import Job, JobsFull
from deployments.gateway.recordings.webhooks import WEBHOOK, Webhooks
from deployments.gateway.uploads.bodies import check_encoding, is_folded, read_recording
from deployments.gateway.utterances.answering import Answering, refused
from deployments.replica.deadline import NEVER, remaining
from deployments.settings import Settings
from deployments.telemetry.request_ids import REQUEST_ID_HEADER
from deployments.telemetry.requests import RequestRecord, Telemetry

ROUTE: Final = "/v1/recordings"
LATER: Final = "respond-async"  # RFC 7240, 4.1
POLL_AFTER_S: Final = 2
ANY_CODEC: Final = "recording"  # in metrics; its format is known later
RESERVE_S: Final = 1.0  # of the deadline, to say that it will be a job


class RecordingAnswering:
    """Answers requests about recordings, in a replica of the gateway.

    Args:
        settings: of the whole application.
        answering: of utterances.
        languages: codes that the recogniser knows.
        emotions: classes that the emotion network knows.
        gate: keys and limits.
        telemetry: what is seen from outside.

    Attributes:
        recordings: recognises.
    """

    def __init__(
        self,
        settings: Settings,
        answering: Answering,
        languages: Set[str],
        emotions: Sequence[str],
        gate: Gate,
        telemetry: Telemetry,
    ) -> None:
        self._settings, self._requests = settings.recordings, settings.requests
        self._answering, self._languages, self._emotions = answering, languages, emotions
        self._gate, self._telemetry = gate, telemetry
        self._bodies = RecordingBodies(settings.recordings.bodies)
        self._unfolding = asyncio.Semaphore(settings.recordings.at_once)
        self._webhooks = Webhooks(settings.recordings.webhook)
        self.recordings = Recordings(settings, answering)
        store = job_store(settings)
        self._jobs = None if store is None else Jobs(settings, self.recordings, store)

    def start(self) -> None:
        """Works on jobs from now on, those of other replicas too where they have died."""
        if self._jobs is not None:
            self._jobs.start()

    async def respond(self, request: Request) -> Response:
        """The answer, or a job where the client asks for one or where the answer is not ready in time."""
        return await self._noted(request, ROUTE, self._submitted)

    async def show(self, request: Request, job_id: str) -> Response:
        """How far a job is."""

        async def shown(request: Request, record: RequestRecord) -> Response:
            jobs, job = await self._job(request, job_id)
            document = await jobs.answer(job)
            headers = {} if job.has_ended else {"Retry-After": str(POLL_AFTER_S)}
            return _document(document, record, headers=headers)

        return await self._noted(request, JOB, shown)

    async def cancel(self, request: Request, job_id: str) -> Response:
        """Ends a job, or forgets one that has ended."""

        async def cancelled(request: Request, record: RequestRecord) -> Response:
            jobs, job = await self._job(request, job_id)
            await jobs.cancel(job)
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={REQUEST_ID_HEADER: record.request_id})

        return await self._noted(request, JOB, cancelled)

    async def _noted(
        self, request: Request, route: str, respond: Callable[[Request, RequestRecord], Awaitable[Response]]
    ) -> Response:
        with self._telemetry.request(request, route) as record:
            try:
                response = await respond(request, record)
            except ClientDisconnect:
                record.left("body")
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            except Refusal as known:
                return refused(known, record)
            except JobsFull as error:
                full = refusal_of("jobs-full", str(error), error.limit, self._requests.retry_after_s)
                return refused(full, record)
            except StoreUnavailable as error:
                cause = f"the store of the jobs: {error}"
                return refused(
                    refusal_of("store-unavailable", cause, retry_after_s=self._requests.retry_after_s), record
                )
            except Exception as error:
                return refused(self._answering.problem(error, self._requests.deadline_s, record), record)
            record.answered((), None)
            return response

    async def _submitted(self, request: Request, record: RequestRecord) -> Response:
        preferences = read_preferences(
            request.headers, request.query_params, longest_s=self._requests.deadline_s, classes=self._emotions
        )
        language = read_language(request.query_params.get(LANGUAGE), self._languages)
        webhook = self._webhooks.check(request.query_params.get(WEBHOOK))
        check_encoding(request.headers)
        visit = self._gate.visit()
        client = visit.client or client_of(request)
        async with (
            self._bodies.read(request, self._settings.max_bytes) as (body, size),
            self._file(request, body) as (audio, fields),
        ):
            record.received(ANY_CODEC, size)
            preferences = with_fields(preferences, fields, self._emotions)
            if fields.get(LANGUAGE) and LANGUAGE not in request.query_params:
                language = read_language(fields[LANGUAGE], self._languages)
            asked = Asked(
                language=language,
                emotions=preferences.emotions,
                strict=preferences.strict,
                words=bool(preferences.words),
                webhook=webhook,
                client=client,
            )
            if self._jobs is None:
                return await self._at_once(audio, preferences, asked, visit, record)
            self._jobs.start()
            job = await self._jobs.create(asked, client, audio, within(visit))
        wanted = request.headers.get(PREFER_HEADER.lower(), "").lower().replace(" ", "").split(",")
        if LATER in wanted:
            return await self._accepted(self._jobs, job, record, LATER)
        return await self._awaited(self._jobs, job, asked, preferences, record)

    @asynccontextmanager
    async def _file(self, request: Request, body: BinaryIO) -> AsyncIterator[tuple[BinaryIO, dict[str, str]]]:
        """The recording in a body, and the other fields of a form. Few are unfolded at once: each takes disk anew."""
        async with (
            self._unfolding if is_folded(request.headers) else nullcontext(),
            read_recording(request, body, self._settings.max_bytes) as (file, fields),
        ):
            yield file, {name: values[-1] for name, values in fields.items()}

    async def _at_once(
        self, audio: BinaryIO, preferences: Preferences, asked: Asked, visit: Visit, record: RequestRecord
    ) -> Response:
        """Where no jobs are kept."""
        async with asyncio.timeout(remaining(preferences.deadline)):
            answer = await self.recordings.recognize(
                audio, asked.preferences(), asked.client, asked.language, heard=within(visit, preferences.deadline)
            )
        return _document(answer, record)

    async def _awaited(
        self, jobs: Jobs, job: Job, asked: Asked, preferences: Preferences, record: RequestRecord
    ) -> Response:
        """The answer, if it is ready in time; the job goes on otherwise."""
        try:
            ended = await jobs.ended(job.id, max(0.0, remaining(preferences.deadline) - RESERVE_S))
        except asyncio.CancelledError:  # the client has left
            with suppress(StoreUnavailable):
                await asyncio.shield(jobs.cancel(job))
            raise
        if ended is None or not ended.has_ended:
            return await self._accepted(jobs, ended or job, record, None)
        document = await jobs.answer(ended)
        if asked.webhook is None:  # otherwise it is told first, and forgotten after its time
            with suppress(StoreUnavailable):
                await jobs.cancel(ended)  # nobody else knows of it
        if document.result is None:
            problem = document.problem
            cause = problem.detail if problem else "the job was cancelled"
            slug = problem.type.rpartition("/")[2] if problem else "internal"
            raise refusal_of(slug, cause, problem.limit if problem else None)
        return _document(document.result, record)

    async def _accepted(self, jobs: Jobs, job: Job, record: RequestRecord, applied: str | None) -> Response:
        location = JOB.replace("{id}", job.id)
        headers = {"Location": location, "Retry-After": str(POLL_AFTER_S)}
        preferences = [each for each in (applied, STRICT if Asked.of(job).strict else None) if each]
        if preferences:
            headers[APPLIED_HEADER] = ", ".join(preferences)
        return _document(await jobs.answer(job), record, HTTPStatus.ACCEPTED, headers)

    async def _job(self, request: Request, job_id: str) -> tuple[Jobs, Job]:
        """A job of the client that asks."""
        visit = self._gate.visit()
        job = await self._jobs.of(visit.client or client_of(request), job_id) if self._jobs else None
        if self._jobs is None or job is None:
            raise refusal_of("not-found", "there is no such job of this client; it may have been forgotten")
        return self._jobs, job


def within(visit: Visit, until: float = NEVER) -> Callable[[float], Awaitable[None]]:
    """Has a client keep its limit of speech: a recording is recognised no faster than that.

    Args:
        visit: of the client.
        until: the deadline; a wait beyond it is refused (`deployments.access.denied.Denied`).
    """

    async def heard(seconds: float) -> None:
        while True:
            try:
                await visit.goes_on(0, seconds)  # what earlier segments drew is not drawn again
            except Denied as denied:
                if denied.retry_after_s is None or denied.retry_after_s >= remaining(until):
                    raise
                await asyncio.sleep(denied.retry_after_s)
            else:
                return

    return heard


def _document(
    document: BaseModel,
    record: RequestRecord,
    status: HTTPStatus = HTTPStatus.OK,
    headers: dict[str, str] | None = None,
) -> Response:
    own = {REQUEST_ID_HEADER: record.request_id, "Cache-Control": "no-store"}
    content = document.model_dump_json()
    return Response(content, status.value, {**(headers or {}), **own}, "application/json")
