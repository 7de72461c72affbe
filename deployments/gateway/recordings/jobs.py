"""Works on jobs: takes what is due, has it recognised, keeps what is ready, and tells of the end."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import math
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from tempfile import TemporaryFile
from typing import BinaryIO, Final

from deployments.gateway.answer_store import StoreUnavailable, embedded_folder
from deployments.gateway.preferences import Preferences
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.recordings.documents import JobAnswer, RecordingAnswer, Segment, Share, Status
from deployments.gateway.recordings.recognition import Heard, Recordings, unlimited
from deployments.gateway.recordings.store.base import Job, JobStore
from deployments.gateway.recordings.store.embedded import EmbeddedJobs
from deployments.gateway.recordings.store.shared import SharedJobs
from deployments.gateway.recordings.webhooks import NotDelivered, Webhooks
from deployments.gateway.utterances.answers import refusal
from deployments.replica.deadline import NEVER
from deployments.replica.faults import told
from deployments.settings import Settings

LOOKS_EVERY_S: Final = 1.0  # for jobs of replicas that have died, or that other replicas have no room for
EXPIRES_EVERY_S: Final = 60.0
ID_BYTES: Final = 18

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


class NotHeld(Exception):  # noqa: N818 - an error by its base class
    """A job was cancelled, or another replica has taken it over."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for, as it is kept with a job."""

    language: str | None
    emotions: tuple[str, ...]
    strict: bool
    webhook: str | None
    client: str
    words: bool = False

    def preferences(self) -> Preferences:
        """For the segments."""
        return Preferences(math.inf, NEVER, self.strict, self.emotions, self.words)

    @classmethod
    def of(cls, job: Job) -> Asked:
        """What was asked for."""
        fields = json.loads(job.request)
        return cls(**{**fields, "emotions": tuple(fields["emotions"])})


class Jobs:
    """The jobs that one replica of the gateway works on, and the answers about all.

    Args:
        settings: of the whole application.
        recordings: recognises.
        store: keeps jobs.
    """

    def __init__(self, settings: Settings, recordings: Recordings, store: JobStore) -> None:
        self._settings, self._requests = settings.recordings, settings.requests
        self._recordings, self.store = recordings, store
        self._webhooks = Webhooks(settings.recordings.webhook)
        self._name = secrets.token_hex(8)
        self._is_new = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._by_id: dict[str, asyncio.Task[None]] = {}
        self._watched: dict[str, asyncio.Event] = {}
        self._limits: dict[str, Heard] = {}  # of the keys that jobs were made with here

    def start(self) -> None:
        """Looks for jobs from now on."""
        if self._looking is None or self._looking.done():
            # In no request's context: Serve and Ray cancel what a request has asked for when its client leaves
            self._looking = asyncio.get_running_loop().create_task(self._look(), context=contextvars.Context())

    async def stop(self) -> None:
        """Leaves jobs to other replicas."""
        tasks = [*self._working, *([self._looking] if self._looking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def create(self, asked: Asked, owner: str, audio: BinaryIO, heard: Heard) -> Job:
        """A new job.

        Args:
            asked: of it.
            owner: that may see it.
            audio: the recording.
            heard: see `Recordings.recognize`; a replica that takes the job over goes without.

        Raises:
            deployments.gateway.recordings.store.base.JobsFull: there is no room.
            StoreUnavailable: it cannot be kept.
        """
        now = time.time()
        request = json.dumps(asdict(asked))
        name = secrets.token_urlsafe(ID_BYTES)
        job = Job(name, owner, "queued", request, now, now + self._settings.jobs.ttl_s)
        self._limits[name] = heard
        try:
            await self.store.create(job, audio)
        except BaseException:
            del self._limits[name]
            raise
        self._is_new.set()
        return job

    async def of(self, owner: str, job_id: str) -> Job | None:
        """A job of a client; None where it is somebody else's, or there is none."""
        job = await self.store.get(job_id)
        return job if job is not None and secrets.compare_digest(job.owner.encode(), owner.encode()) else None

    async def cancel(self, job: Job) -> None:
        """Ends a job; one that has ended is forgotten."""
        if job.has_ended:
            await self.store.forget(job.id)
            return
        asked = Asked.of(job)
        due_s = 0.0 if asked.webhook else None
        if await self.store.end(job.id, None, "cancelled", "", due_s) and (task := self._by_id.get(job.id)):
            task.cancel()

    async def ended(self, job_id: str, within_s: float) -> Job | None:
        """The job once it has ended, or after so long."""
        until = time.monotonic() + within_s
        here = self._watched.setdefault(job_id, asyncio.Event())
        try:
            while True:
                here.clear()
                job = await self.store.get(job_id)
                left_s = until - time.monotonic()
                if job is None or job.has_ended or left_s <= 0:
                    return job
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOKS_EVERY_S, left_s)):
                        await here.wait()
        finally:
            self._watched.pop(job_id, None)

    async def answer(self, job: Job) -> JobAnswer:
        """The document of a job."""
        kept = {} if job.has_ended else await self.store.segments(job.id)
        outcome = json.loads(job.outcome) if job.outcome else None
        return JobAnswer(
            id=job.id,
            status=job.status,
            progress=round(job.progress, 4),
            created=_iso(job.created),
            expires=_iso(job.expires),
            segments=[Segment.model_validate_json(segment) for segment in kept.values()],
            result=outcome if job.status == "done" else None,
            problem=outcome if job.status == "failed" else None,
        )

    async def _look(self) -> None:
        """Takes jobs as long as this replica has room for them."""
        expire_at = 0.0
        while True:
            try:
                if time.monotonic() >= expire_at:
                    expire_at = time.monotonic() + EXPIRES_EVERY_S
                    await self.store.expire()
                while len(self._working) < self._settings.jobs.at_once:
                    job = await self.store.claim(self._name, self._settings.jobs.lease_s)
                    if job is None:
                        break
                    self._begin(job)
            except StoreUnavailable as error:
                logger.warning("no jobs are taken: %s", error)
            except Exception as error:
                logger.error("looking for jobs failed: %s", told(error))
            self._is_new.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOKS_EVERY_S):
                    await self._is_new.wait()

    def _begin(self, job: Job) -> None:
        work = self._tell(job) if job.has_ended else self._work(job)
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        self._by_id[job.id] = task

        def over(done: asyncio.Task[None]) -> None:
            self._working.discard(done)
            self._by_id.pop(job.id, None)
            self._limits.pop(job.id, None)
            self._is_new.set()
            if watched := self._watched.get(job.id):
                watched.set()
            if not done.cancelled() and (error := done.exception()):
                logger.error("a job is left to others: %s", told(error))

        task.add_done_callback(over)

    async def _work(self, job: Job) -> None:
        if job.claims > self._settings.jobs.attempts:
            refused = refusal_of("replica-died", f"{job.claims - 1} replicas have died under this job", None, 1)
            await self._end(job, "failed", refused.problem(None).model_dump_json(exclude_none=True))
            return
        holding = asyncio.get_running_loop().create_task(self._hold(job))
        working = asyncio.get_running_loop().create_task(self._recognized(job))
        try:
            await asyncio.wait({holding, working}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                return  # it is not ours any more
            with suppress(NotHeld):
                answer = await working
                await self._end(job, "done", answer.model_dump_json())
        except Exception as error:
            if isinstance(error, StoreUnavailable):
                raise
            known = self._refusal(error)
            await self._end(job, "failed", known.problem(None).model_dump_json(exclude_none=True))
        finally:
            holding.cancel()
            working.cancel()
            await asyncio.gather(holding, working, return_exceptions=True)

    async def _recognized(self, job: Job) -> RecordingAnswer:
        asked = Asked.of(job)
        kept = await self.store.segments(job.id)
        known = {index: Segment.model_validate_json(segment) for index, segment in kept.items()}

        async def ready(share: Share) -> None:
            if share.index in known:
                return
            written = share.segment.model_dump_json()
            if not await self.store.keep(job.id, self._name, share.index, written, share.progress):
                raise NotHeld

        heard = self._limits.get(job.id, unlimited)
        with TemporaryFile() as audio:
            if not await self.store.audio(job.id, audio):
                raise NotHeld
            return await self._recordings.recognize(
                audio, asked.preferences(), asked.client, asked.language, ready, heard=heard, known=known
            )

    async def _hold(self, job: Job) -> None:
        """Puts the end of the lease off; returns where the job is not ours any more."""
        lease_s = self._settings.jobs.lease_s
        held_until = time.monotonic() + lease_s
        while time.monotonic() < held_until:
            await asyncio.sleep(lease_s / 4)
            try:
                if not await self.store.extend(job.id, self._name, lease_s):
                    return
                held_until = time.monotonic() + lease_s
            except StoreUnavailable as error:
                logger.warning("a job may be lost to another replica: %s", error)

    async def _end(self, job: Job, status: Status, outcome: str) -> None:
        due_s = 0.0 if Asked.of(job).webhook else None
        await self.store.end(job.id, self._name, status, outcome, due_s)

    async def _tell(self, job: Job) -> None:
        """Of a job that has ended; again later where nobody took the message."""
        webhook, most = Asked.of(job).webhook, self._settings.webhook
        again_in_s: float | None = None
        if webhook:
            try:
                await self._webhooks.deliver(webhook, job)
            except NotDelivered as error:
                is_last = job.claims >= most.attempts
                logger.warning("a webhook was not delivered (attempt %d): %s", job.claims, error)
                again_in_s = None if is_last else most.pause_s * 2 ** (job.claims - 1)
        await self.store.told(job.id, self._name, again_in_s)

    def _refusal(self, error: Exception) -> Refusal:
        if isinstance(error, Refusal):
            return error
        known = refusal(error, self._requests.deadline_s, self._requests.retry_after_s)
        if known is None:
            logger.error("a job failed: %s", told(error))
            known = refusal_of("internal", "the cluster failed; its log has the reason")
        return known


def job_store(settings: Settings) -> JobStore | None:
    """The store that the settings describe; None where nothing is kept."""
    own = settings.idempotency
    if own.store == "none":
        return None
    if own.store == "redis":
        assert own.redis_url is not None  # by its validator
        return SharedJobs(own.redis_url.get_secret_value(), settings.recordings.jobs)
    try:
        return EmbeddedJobs(embedded_folder(own), settings.recordings.jobs)
    except StoreUnavailable as error:
        logger.warning("jobs are not kept: %s", error)
        return None


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
