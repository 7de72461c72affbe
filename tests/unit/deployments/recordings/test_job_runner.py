"""Replicas that work on jobs: one after another, where one has died, and for their own client alone."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from amser.audio import DamagedAudio
from deployments.access.rules import route_of, rule_of
from deployments.gateway.recordings.documents import RecordingAnswer, Segment, Share, whole
from deployments.gateway.recordings.jobs import Asked, Jobs
from deployments.gateway.recordings.recognition import unlimited
from deployments.gateway.recordings.store.base import Job
from deployments.gateway.recordings.store.embedded import EmbeddedJobs
from deployments.settings import Settings

WITHIN_S = 20
SEGMENTS = 4
ASKED = Asked(language=None, emotions=(), strict=False, webhook=None, client="key a")


def segment(index: int) -> Segment:
    return Segment(
        start=index, end=index + 1, text=str(index), language="en", emotion="sad", confidence=1, uncertain=False,
        probabilities={"sad": 1.0}, doubts=[], speech="yes", degraded=[],
    )  # fmt: skip


class Recognizer:
    """Makes a segment a moment; stands still where it is told to, which a dying replica does too."""

    def __init__(self, stops_at: int | None = None) -> None:
        self.stops_at, self.made = stops_at, list[int]()

    async def recognize(self, audio: BinaryIO, *_: Any, heard: Any, known: Mapping[int, Segment]) -> RecordingAnswer:
        audio.seek(0)
        if audio.read() == b"damaged":
            raise DamagedAudio("it is damaged", "an intact file")
        await heard(1.0)
        progress = _[-1]
        segments = []
        for index in range(SEGMENTS):
            if index == self.stops_at:
                await asyncio.sleep(WITHIN_S)
            if index not in known:
                self.made.append(index)
            segments.append(known.get(index) or segment(index))
            await progress(Share(index, segments[-1], (index + 1) / SEGMENTS))
            await asyncio.sleep(0.01)
        return whole(segments, SEGMENTS, (), None)


def jobs(folder: Path, recognizer: Recognizer) -> Jobs:
    settings = Settings.model_validate({"auth": {"mode": "none"}, "recordings": {"jobs": {"lease_s": 1}}})
    runner = Jobs(settings, recognizer, EmbeddedJobs(folder, settings.recordings.jobs))  # type: ignore[arg-type]
    runner.start()
    return runner


async def ended(runner: Jobs, job: Job) -> Job:
    last = await runner.ended(job.id, WITHIN_S)
    assert last is not None
    return last


async def test_a_job_is_worked_on_and_answered(tmp_path: Path) -> None:
    runner = jobs(tmp_path / "store", Recognizer())
    job = await ended(runner, await runner.create(ASKED, "key a", io.BytesIO(b"audio"), unlimited))
    answer = await runner.answer(job)
    assert (answer.status, answer.progress, answer.segments) == ("done", 1, [])
    assert answer.result is not None
    assert answer.result.text == "0 1 2 3"
    assert answer.result.emotion == "sad"
    await runner.stop()


async def test_a_job_is_there_for_its_own_client_alone(tmp_path: Path) -> None:
    runner = jobs(tmp_path / "store", Recognizer())
    job = await runner.create(ASKED, "key a", io.BytesIO(b"audio"), unlimited)
    assert await runner.of("key a", job.id)
    assert await runner.of("key b", job.id) is None
    assert await runner.of("key a", "another") is None
    await runner.stop()


async def test_another_replica_goes_on_behind_the_last_segment_of_one_that_died(tmp_path: Path) -> None:
    dying, heir = Recognizer(stops_at=2), Recognizer()
    first = jobs(tmp_path / "store", dying)
    job = await first.create(ASKED, "key a", io.BytesIO(b"audio"), unlimited)
    while len(dying.made) < 2:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.1)
    shown = await first.answer(await first.store.get(job.id) or job)
    assert (shown.status, shown.progress, len(shown.segments)) == ("running", 0.5, 2)
    await first.stop()
    second = jobs(tmp_path / "store", heir)
    assert (await ended(second, job)).status == "done"
    assert heir.made == [2, 3]
    await second.stop()


async def test_a_cancelled_job_stops(tmp_path: Path) -> None:
    recognizer = Recognizer(stops_at=1)
    runner = jobs(tmp_path / "store", recognizer)
    job = await runner.create(ASKED, "key a", io.BytesIO(b"audio"), unlimited)
    while not recognizer.made:
        await asyncio.sleep(0.02)
    await runner.cancel(job)
    last = await ended(runner, job)
    assert last.status == "cancelled"
    assert recognizer.made == [0]
    await runner.cancel(last)
    assert await runner.of("key a", job.id) is None
    await runner.stop()


async def test_a_recording_that_cannot_be_used_is_a_failed_job_with_its_problem(tmp_path: Path) -> None:
    runner = jobs(tmp_path / "store", Recognizer())
    job = await ended(runner, await runner.create(ASKED, "key a", io.BytesIO(b"damaged"), unlimited))
    answer = await runner.answer(job)
    assert answer.status == "failed"
    assert answer.problem is not None
    assert answer.problem.type == "/problems/damaged-audio"
    await runner.stop()


@pytest.mark.parametrize("path", ["/v1/recordings", "/v1/jobs/abc", "/v1/jobs/abc/more"])
def test_the_routes_want_a_key_that_may_recognise(path: str) -> None:
    assert rule_of(path) == "recognize"


def test_metrics_name_no_job() -> None:
    assert route_of("/v1/jobs/abc") == "/v1/jobs/{id}"
