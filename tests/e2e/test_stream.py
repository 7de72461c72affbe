"""Speech over a socket through Ray Serve's proxy, to stages in other processes."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from recordings import speakers, waveform_of
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from amser.client.stream import StreamClient, StreamSettings
from deployments.local_cluster import LocalCluster

PIECE = 1600  # samples


async def test_words_come_while_somebody_speaks_and_a_cut_loses_none(cluster: LocalCluster) -> None:
    spoken = waveform_of(speakers(1)[0]["path"])
    finals = []
    partials = 0
    for cut in (False, True):
        async with StreamClient(StreamSettings(cluster.url)) as client:
            for start in range(0, spoken.size, PIECE):
                client.send(spoken[start : start + PIECE])
                await asyncio.sleep(0.1)
                if cut and start == 10 * PIECE:
                    client.cut()
            client.end()
            async for event in client.events():
                partials += event.type == "partial"
                if event.type == "final":
                    finals.append(event.document["answer"])
                    break
            assert client.connections == 1 + cut, client.last_cut
    assert partials
    assert finals[0]["transcript"]["text"]
    assert finals[0]["transcript"] == finals[1]["transcript"]
    assert finals[0]["probabilities"] == finals[1]["probabilities"]


async def test_a_socket_to_a_route_without_one_gets_a_problem_document(cluster: LocalCluster) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws{cluster.url[4:]}/nothing")
    assert refused.value.response.status_code == 404
    assert refused.value.response.headers["Content-Type"] == "application/problem+json"
    assert httpx.get(f"{cluster.url}/healthz").status_code == 200
