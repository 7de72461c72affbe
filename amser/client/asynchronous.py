"""`AsyncClient`: the same as `Client`, for an event loop. Whatever computes or reads a disk is in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from amser.client.device import DEFAULT_URL, DeviceSettings
from amser.client.exchange.answer import Answer
from amser.client.exchange.connection import AsyncConnection, Call
from amser.client.exchange.failures import SendFailed
from amser.client.exchange.plans import Plan, answered_utterances, ended_job, one
from amser.client.exchange.recordings import Job, RecordingAnswer, cancel_call, job_call, submit_call
from amser.client.exchange.utterances import Utterance, upload_call, utterance_call
from amser.client.sources import Source
from amser.client.spool_view import Result
from amser.client.synchronous import Outcome, Preparation, content_of, language_of, outcomes
from amser.features import SAMPLE_RATE

T = TypeVar("T")


class AsyncClient:
    """The cluster, for an application. An asynchronous context manager; its calls may run side by side.

    Args:
        cluster, spool: see `Client`.

    Raises:
        ValueError, amser.client.spool_view.SpoolError: see `Client`.
    """

    def __init__(self, cluster: str | DeviceSettings = DEFAULT_URL, *, spool: Path | None = None) -> None:
        self._own = Preparation(cluster, spool)
        self._connection = AsyncConnection(self._own.settings.target, self._own.settings.patience)

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._own.open)
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)
        self._own.close()

    async def recognize(
        self,
        source: Source,
        *,
        rate: int = SAMPLE_RATE,
        captured_at: datetime | None = None,
        within_s: float | None = None,
    ) -> Answer:
        """See `Client.recognize`."""
        utterance, began = await asyncio.to_thread(self._own.utterance, source, rate, captured_at)
        await asyncio.to_thread(self._own.keep, utterance, began)
        try:
            answered = await self._run(one(utterance_call(utterance, self._own.options())), within_s)
        except SendFailed as error:
            await asyncio.to_thread(self._own.failed, utterance, error)
            raise
        return await asyncio.to_thread(self._own.answered, utterance, answered)

    async def transcribe(
        self,
        file: Path | str | bytes,
        *,
        language: str | None = None,
        within_s: float | None = None,
    ) -> Answer:
        """See `Client.transcribe`."""
        call = upload_call(content_of(file), self._own.options(), language_of(language, self._own.settings))
        return await self._run(one(call), within_s)

    async def batch(
        self,
        sources: Sequence[Source],
        *,
        rate: int = SAMPLE_RATE,
        within_s: float | None = None,
    ) -> list[Outcome]:
        """See `Client.batch`."""
        made = await asyncio.to_thread(self._own.utterances, sources, rate)
        sent = [each for each in made if isinstance(each, Utterance)]
        patience = self._own.settings.patience
        plan = answered_utterances(sent, self._own.options(), patience.within(within_s))
        found, hint = await self._run(plan, within_s)
        self._own.device.hint = hint or self._own.device.hint
        return outcomes(made, found)

    async def recording(
        self,
        file: Path | str | bytes,
        *,
        language: str | None = None,
        poll_s: float = 1.0,
        show: Callable[[Job], None] = lambda _: None,
    ) -> RecordingAnswer:
        """See `Client.recording`."""
        job = await self.submit(file, language=language)
        return (await self.ended(job, poll_s=poll_s, show=show)).answer()

    async def submit(self, file: Path | str | bytes, *, language: str | None = None) -> Job:
        """See `Client.submit`."""
        return await self._run(
            one(submit_call(content_of(file), self._own.options(), language_of(language, self._own.settings)))
        )

    async def job(self, job_id: str) -> Job:
        """See `Client.job`."""
        return await self._run(one(job_call(job_id)))

    async def ended(self, job: Job, *, poll_s: float = 1.0, show: Callable[[Job], None] = lambda _: None) -> Job:
        """See `Client.ended`."""
        return await self._run(ended_job(job, poll_s, show))

    async def cancel(self, job_id: str) -> Job:
        """See `Client.cancel`."""
        return await self._run(one(cancel_call(job_id)))

    async def deliver(self) -> list[Result]:
        """See `Client.deliver`."""
        return await asyncio.to_thread(self._own.deliver)

    async def _run(self, plan: Plan[T], within_s: float | None = None) -> T:
        began = time.perf_counter()
        try:
            step = next(plan)
            while True:
                if isinstance(step, Call):
                    left_s = None if within_s is None else within_s - (time.perf_counter() - began)
                    try:
                        result = await self._connection.exchange(step, left_s)
                    except SendFailed as error:
                        step = plan.throw(error)
                    else:
                        step = plan.send(result)
                else:
                    await self._connection.pause(step)
                    step = next(plan)
        except StopIteration as done:
            result = done.value
        return result  # type: ignore[no-any-return]
