"""Batches under the limits of keys and devices: each item counts. In place of the models is an answer that is there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from access import add_key, bearer
from over_http import assert_problem, two_seconds
from recordings import envelope_of
from served import serving

from amser import batch, wire
from amser.features import SAMPLE_RATE
from deployments.access.settings import AuthSettings, Limits, LimitSettings
from deployments.gateway.batches.answering import ROUTE
from deployments.gateway.idempotency import Reply
from deployments.settings import FlowSettings, IdempotencySettings, Settings


def post(client: httpx.Client, envelopes: list[bytes], **headers: str) -> httpx.Response:
    return client.post(ROUTE, content=batch.pack(envelopes), headers={"Content-Type": batch.MEDIA_TYPE} | headers)


def packed(count: int = 1, seconds: float = 1, **changed: Any) -> list[bytes]:
    """Envelopes of the same speech, each under an id of its own."""
    made = envelope_of(two_seconds()[: int(seconds * SAMPLE_RATE)], "klt")
    return [wire.pack(replace(made, utterance_id=uuid4(), **changed)) for _ in range(count)]


async def computed_at_once(*_: Any) -> Reply:
    """In place of the models: what is counted here has been counted before they are asked."""
    await asyncio.sleep(0.01)
    return Reply(b'{"degraded": []}', {})


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    """With a key for each limit, and without what is kept."""
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    tokens = {
        "any": add_key(keys),
        "requests": add_key(keys, requests_per_minute=5),
        "speech": add_key(keys, audio_s_per_minute=30),
        "concurrency": add_key(keys, concurrency=1),
    }
    settings = Settings(
        profile="fused",
        auth=AuthSettings(mode="keys", file=keys),
        limits=LimitSettings(device=Limits(requests_per_minute=4)),
        idempotency=IdempotencySettings(store="none"),
        flow=FlowSettings(admission=False),
    )
    with serving(settings) as (url, replica), httpx.Client(base_url=url, timeout=60) as opened:
        replica._gate._buckets._clock = lambda: 1.0  # a bucket would fill again meanwhile
        replica._answering.reply = computed_at_once
        yield opened, tokens


def test_every_item_counts_against_the_limit_of_its_device(limited: tuple[httpx.Client, dict[str, str]]) -> None:
    client, tokens = limited
    key = bearer(tokens["any"])
    items = post(client, [*packed(6, device_id="a"), *packed(1, device_id="b")], **key).json()["items"]
    statuses = [item["status"] for item in items]
    assert sorted(statuses[:6]) == [200] * 4 + [429] * 2
    assert statuses[6] == 200
    over = next(item for item in items if item["status"] == 429)
    assert over["problem"]["type"] == "/problems/limit-requests"
    assert 1 <= over["retry_after_s"] <= 15


def test_every_item_counts_against_the_limit_of_its_key(limited: tuple[httpx.Client, dict[str, str]]) -> None:
    client, tokens = limited
    key = bearer(tokens["requests"])
    devices = [packed(1, device_id=f"device {number}")[0] for number in range(7)]
    statuses = [item["status"] for item in post(client, devices, **key).json()["items"]]
    assert sorted(statuses) == [200] * 5 + [429] * 2
    assert_problem(post(client, devices[:1], **key), 429)  # nothing is left for the next request


def test_speech_counts_for_each_item(limited: tuple[httpx.Client, dict[str, str]]) -> None:
    client, tokens = limited
    key = bearer(tokens["speech"])
    long = envelope_of(np.tile(two_seconds(), 6), "klt")
    devices = [wire.pack(replace(long, utterance_id=uuid4(), device_id=name)) for name in "abc"]
    items = post(client, devices, **key).json()["items"]
    assert sorted(item["status"] for item in items) == [200, 200, 429]


def test_a_key_that_may_ask_one_thing_at_once_has_its_batch_answered_one_by_one(
    limited: tuple[httpx.Client, dict[str, str]],
) -> None:
    client, tokens = limited
    key = bearer(tokens["concurrency"])
    devices = [packed(1, device_id=name)[0] for name in "abcdef"]
    assert [item["status"] for item in post(client, devices, **key).json()["items"]] == [200] * 6
    assert [item["status"] for item in post(client, devices, **key).json()["items"]] == [200] * 6  # all has been freed
