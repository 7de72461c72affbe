"""`POST /v1/emotion:batch` of the real application: each envelope is answered or refused as on the single route."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from over_http import assert_problem, send, two_seconds
from recordings import envelope_of, silence, speakers, waveform_of
from served import serving

from amser import batch, wire
from amser.features import SAMPLE_RATE
from deployments.gateway.batches.answering import ROUTE
from deployments.settings import IdempotencySettings, Settings


def post(client: httpx.Client, envelopes: list[bytes], **headers: str) -> httpx.Response:
    return client.post(ROUTE, content=batch.pack(envelopes), headers={"Content-Type": batch.MEDIA_TYPE} | headers)


def packed(count: int = 1, seconds: float = 1, **changed: Any) -> list[bytes]:
    """Envelopes of the same speech, each under an id of its own."""
    made = envelope_of(two_seconds()[: int(seconds * SAMPLE_RATE)], "klt")
    return [wire.pack(replace(made, utterance_id=uuid4(), **changed)) for _ in range(count)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    store = IdempotencySettings(folder=tmp_path_factory.mktemp("answers"))
    with (
        serving(Settings(profile="fused", auth="none", idempotency=store)) as (url, _),
        httpx.Client(base_url=url, timeout=60) as opened,
    ):
        yield opened


def test_a_batch_gets_the_answers_of_the_single_route_in_order(client: httpx.Client) -> None:
    spoken = [envelope_of(waveform_of(speaker["path"])[: 3 * SAMPLE_RATE], "klt") for speaker in speakers(3)]
    spoken = [replace(each, utterance_id=uuid4()) for each in (*spoken, envelope_of(silence(1), "klt"))]
    envelopes = [wire.pack(each) for each in spoken]
    fresh = {"Cache-Control": "no-store", "Prefer": "handling=strict"}
    singles = [send(client, each, **fresh).json() for each in envelopes]
    response = post(client, envelopes, **fresh)
    assert response.status_code == 200, response.text
    assert response.headers["preference-applied"] == "handling=strict"
    items = response.json()["items"]
    assert [item["status"] for item in items] == [200] * 4
    for single, item in zip(singles, items, strict=True):
        kept = ("emotion", "probabilities", "transcript", "speech", "input", "doubts", "degraded", "models")
        assert {name: item["answer"][name] for name in kept} == {name: single[name] for name in kept}
    assert items[0]["answer"]["emotion"] != items[3]["answer"]["emotion"] is None
    ids = [item["answer"]["request_id"] for item in items]
    assert ids == [f"{response.headers['amser-request-id']}.{number}" for number in range(4)]


def test_one_bad_item_spoils_nothing(client: httpx.Client) -> None:
    good = packed(3)
    damaged = bytearray(good[0])
    damaged[-10] ^= 1
    unknown = packed(language="tlh")[0]
    too_long = bytearray(good[0])
    too_long = too_long + bytes(1_048_576)
    bad = [bytes(damaged), b"", b"no envelope at all", unknown, bytes(too_long)]
    response = post(client, [good[0], *bad, good[1], good[2]])
    items = response.json()["items"]
    assert [item["status"] for item in items] == [200, 400, 400, 415, 422, 413, 200, 200]
    assert ["answer" in item for item in items] == [item["status"] == 200 for item in items]
    problem = items[4]["problem"]
    assert (problem["type"], problem["parameter"]) == ("/problems/unknown-language", "language")
    assert problem["request_id"] == f"{response.headers['amser-request-id']}.4"


def test_an_item_that_was_answered_before_gets_the_same_answer_byte_for_byte(client: httpx.Client) -> None:
    envelopes = packed(2)
    first = client.post("/v1/emotion", content=envelopes[0], headers={"Content-Type": wire.MEDIA_TYPE})
    response = post(client, envelopes)
    items = response.json()["items"]
    assert first.content in response.content
    assert [item.get("replay") for item in items] == ["stored", None]
    again = post(client, envelopes).json()["items"]
    assert [item["replay"] for item in again] == ["stored", "stored"]
    assert [item["answer"] for item in again] == [item["answer"] for item in items]


def test_the_same_utterance_twice_in_a_batch_is_computed_once(client: httpx.Client) -> None:
    items = post(client, packed(1) * 2).json()["items"]
    assert items[0]["answer"] == items[1]["answer"]
    assert sorted(str(item.get("replay")) for item in items) == ["None", "joined"]


def test_the_emotions_are_restricted_for_all(client: httpx.Client) -> None:
    headers = {"Content-Type": batch.MEDIA_TYPE}
    response = client.post(f"{ROUTE}?emotions=sad,angry", content=batch.pack(packed(2)), headers=headers)
    assert [list(item["answer"]["probabilities"]) for item in response.json()["items"]] == [["angry", "sad"]] * 2


def test_what_is_wrong_with_the_batch_refuses_all_of_it(client: httpx.Client) -> None:
    whole = batch.pack(packed(2))
    headers = {"Content-Type": batch.MEDIA_TYPE}
    assert_problem(client.post(ROUTE, content=whole[:-1], headers=headers), 400, "that are left")
    assert_problem(client.post(ROUTE, content=b"", headers=headers), 400, "1 or more")
    assert_problem(client.post(ROUTE, content=whole), 415, batch.MEDIA_TYPE)
    many = assert_problem(post(client, [b"x"] * 65), 413, "up to 64")
    assert many["type"] == "/problems/too-large"
    assert_problem(post(client, [bytes(1 << 20)] * 4), 413, "up to 4194304 bytes")
    bad = client.post(f"{ROUTE}?emotions=bored,sad", content=whole, headers=headers)
    assert assert_problem(bad, 422, "angry")["parameter"] == "emotions"


def test_items_for_which_there_is_no_time_are_refused_by_themselves(client: httpx.Client) -> None:
    response = post(client, packed(3), **{"Amser-Deadline-Ms": "20", "Prefer": "handling=strict"})
    assert response.status_code in (200, 504)  # 504 where the body itself came too late
    if response.status_code == 200:
        statuses = {item["status"] for item in response.json()["items"]}
        assert statuses <= {429, 504}
        for item in response.json()["items"]:
            assert item["status"] != 429 or item["retry_after_s"] >= 1


def test_a_batch_is_computed_at_most_four_at_a_time(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from deployments.gateway.utterances.answering import Answering

    real, under_way, most = Answering.recognize, 0, 0

    async def counted(self: Answering, *arguments: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(0.05)
            return await real(self, *arguments)
        finally:
            under_way -= 1

    monkeypatch.setattr(Answering, "recognize", counted)
    assert [item["status"] for item in post(client, packed(9)).json()["items"]] == [200] * 9
    assert most == 4
