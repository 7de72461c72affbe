"""A batch over HTTP through Ray's proxy and the distributed application, by the application client and by itself."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import httpx
from over_http import assert_problem, send, two_seconds
from recordings import envelope_of

from amser import batch, wire
from amser.client import AsyncClient, Client, DeviceSettings
from deployments.gateway.batches.answering import ROUTE
from deployments.local_cluster import LocalCluster

HEADERS = {"Content-Type": batch.MEDIA_TYPE}


def test_each_item_is_answered_as_on_the_single_route(client: httpx.Client) -> None:
    made = envelope_of(two_seconds(), "klt")
    good = [wire.pack(replace(made, utterance_id=uuid4())) for _ in range(2)]
    single = send(client, good[0]).json()
    response = client.post(ROUTE, content=batch.pack([good[0], good[1][:-1], good[1]]), headers=HEADERS)
    assert response.status_code == 200, response.text
    first, cut_off, last = response.json()["items"]
    assert (first["status"], cut_off["status"], last["status"]) == (200, 400, 200)
    assert first["answer"]["transcript"] == single["transcript"]
    assert first["answer"]["emotion"] == last["answer"]["emotion"] == single["emotion"]
    assert cut_off["problem"]["type"] == "/problems/malformed"


def test_a_batch_that_is_none_is_refused(client: httpx.Client) -> None:
    assert_problem(client.post(ROUTE, content=b"AMSR", headers=HEADERS), 400, "are left")
    assert_problem(client.post(ROUTE, content=batch.pack([b"x"] * 65), headers=HEADERS), 413, "up to 64")


async def test_both_clients_send_batches(cluster: LocalCluster) -> None:
    settings = DeviceSettings(url=cluster.url, language="en")
    with Client(settings) as blocking:
        outcomes = blocking.batch([two_seconds()] * 6)
    async with AsyncClient(settings) as client:
        outcomes += await client.batch([two_seconds(), b"no audio"])
    assert [outcome.answer is not None for outcome in outcomes] == [True] * 7 + [False]
    assert len({outcome.answer.text for outcome in outcomes if outcome.answer}) == 1
