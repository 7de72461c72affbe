"""Jobs in both stores: who holds one, what becomes of it when its replica dies, limits, and what is left behind."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest import FixtureRequest  # noqa: PT013 - a type

from deployments.gateway.answer_store import StoreUnavailable
from deployments.gateway.recordings.store.base import Job, JobsFull, JobStore
from deployments.gateway.recordings.store.embedded import EmbeddedJobs
from deployments.gateway.recordings.store.shared import SharedJobs
from deployments.recording_settings import JobSettings

LIMITS = JobSettings(of_a_client=2, in_all=3, held_bytes=10_000_000, ttl_s=60)


def job(name: str, owner: str = "key a") -> Job:
    now = time.time()
    return Job(name, owner, "queued", "{}", now, now + 60)


@pytest.fixture(params=["embedded", "redis"])
async def store(request: FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStore]:
    if request.param == "embedded":
        folder = tmp_path / "store"
        embedded = EmbeddedJobs(folder, LIMITS)
        yield embedded
        embedded.close()
    else:
        shared = SharedJobs(request.getfixturevalue("redis_server").url, LIMITS)
        yield shared
        await shared.close()


async def audio_of(store: JobStore, name: str) -> bytes | None:
    into = io.BytesIO()
    return into.getvalue() if await store.audio(name, into) else None


async def test_a_job_goes_from_hand_to_hand(store: JobStore) -> None:
    content = bytes(range(256)) * 8000  # two blocks
    made = job("one")
    await store.create(made, io.BytesIO(content))
    assert await store.get("one") == made
    assert await store.get("other") is None
    assert await audio_of(store, "one") == content

    claimed = await store.claim("first", lease_s=0.3)
    assert claimed is not None
    assert (claimed.id, claimed.status, claimed.claims) == ("one", "running", 1)
    assert await store.claim("second", 10) is None
    assert await store.keep("one", "first", 1, '{"b": 1}', 0.0)
    assert await store.keep("one", "first", 0, '{"a": 1}', 0.5)
    assert not await store.keep("one", "second", 2, "{}", 0.9)
    assert await store.extend("one", "first", 0.3)

    time.sleep(0.4)  # the first one has died
    taken_over = await store.claim("second", 10)
    assert taken_over is not None
    assert (taken_over.claims, taken_over.progress) == (2, 0.5)
    assert await store.segments("one") == {0: '{"a": 1}', 1: '{"b": 1}'}
    assert not await store.extend("one", "first", 10)
    assert not await store.end("one", "first", "done", "{}", None)
    assert await store.end("one", "second", "done", '{"text": "hello"}', None)

    ended = await store.get("one")
    assert ended is not None
    assert (ended.status, ended.progress, ended.outcome, ended.claims) == ("done", 1.0, '{"text": "hello"}', 0)
    assert await store.segments("one") == {}
    assert await audio_of(store, "one") is None
    assert await store.claim("third", 10) is None
    await store.forget("one")
    assert await store.get("one") is None


async def test_of_an_end_somebody_is_told_until_it_worked(store: JobStore) -> None:
    await store.create(job("one"), io.BytesIO(b"audio"))
    assert await store.claim("first", 10)
    assert await store.end("one", "first", "failed", "{}", 0.0)
    told = await store.claim("first", 10)
    assert told is not None
    assert (told.status, told.claims) == ("failed", 1)
    await store.told("one", "first", 0.0)
    again = await store.claim("second", 10)
    assert again is not None
    assert again.claims == 2
    await store.told("one", "second", None)
    assert await store.claim("second", 10) is None


async def test_anybody_may_cancel_and_nothing_is_kept_afterwards(store: JobStore) -> None:
    await store.create(job("one"), io.BytesIO(b"audio"))
    assert await store.claim("first", 10)
    assert await store.end("one", None, "cancelled", "", None)
    assert not await store.keep("one", "first", 0, "{}", 0.1)
    assert not await store.end("one", "first", "done", "{}", None)
    assert await audio_of(store, "one") is None


async def test_jobs_that_have_not_ended_are_limited(store: JobStore) -> None:
    await store.create(job("one"), io.BytesIO(b"audio"))
    await store.create(job("two"), io.BytesIO(b"audio"))
    with pytest.raises(JobsFull, match="2 of a client"):
        await store.create(job("three"), io.BytesIO(b"audio"))
    with pytest.raises(JobsFull, match="bytes of audio"):
        await store.create(job("large", "key b"), io.BytesIO(bytes(10_000_000)))
    await store.create(job("four", "key b"), io.BytesIO(b"audio"))
    with pytest.raises(JobsFull, match="3 in all"):
        await store.create(job("five", "key c"), io.BytesIO(b"audio"))
    assert await store.get("five") is None
    assert await store.end("one", None, "cancelled", "", None)
    await store.create(job("six"), io.BytesIO(b"audio"))


async def test_a_job_whose_time_is_over_is_gone(store: JobStore) -> None:
    await store.create(replace(job("one"), expires=time.time() + 0.2), io.BytesIO(b"audio"))
    time.sleep(1.3)
    await store.expire()
    assert await store.get("one") is None
    assert await store.claim("first", 10) is None
    assert await audio_of(store, "one") is None


def test_the_files_are_for_this_user_alone(tmp_path: Path) -> None:
    EmbeddedJobs(tmp_path / "store", LIMITS).close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir()}
    assert modes["jobs"] == 0o700
    assert modes["jobs.sqlite"] == 0o600
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(StoreUnavailable):
        EmbeddedJobs(tmp_path / "open", LIMITS)


async def test_a_redis_that_is_gone_is_told(redis_server: Any) -> None:
    store = SharedJobs(redis_server.url, LIMITS)
    redis_server.stop()
    with pytest.raises(StoreUnavailable):
        await store.get("one")
    await store.close()
