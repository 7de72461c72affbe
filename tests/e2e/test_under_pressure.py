"""What a client gets under overload, with too short a deadline, and when a stage stands still or dies."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from drills import replicas
from over_http import CLASSES, assert_problem, connect, raw_request, send, two_seconds
from recordings import envelope_of

from amser import wire
from deployments.local_cluster import LocalCluster

BURST = 60
WHOLE = {"Prefer": "handling=strict"}  # an answer that leaves something out is none


@pytest.fixture(scope="module")
def good() -> bytes:
    return wire.pack(envelope_of(two_seconds()))


def test_a_burst_beyond_the_queues_is_refused_with_a_time_to_come_back(client: httpx.Client, good: bytes) -> None:
    with ThreadPoolExecutor(BURST) as devices:
        answers = list(devices.map(lambda _: send(client, good, **WHOLE), range(BURST)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    kinds = {assert_problem(answer, 429, limit=None)["type"] for answer in refused}
    assert kinds <= {"/problems/overloaded", "/problems/queue-full", "/problems/share-used"}
    assert [send(client, good).status_code for _ in range(3)] == [200, 200, 200]


def test_a_burst_beyond_the_queues_is_answered_with_less(client: httpx.Client, good: bytes) -> None:
    with ThreadPoolExecutor(BURST) as devices:
        answers = list(devices.map(lambda _: send(client, good), range(BURST)))
    assert {answer.status_code for answer in answers} <= {200, 429}
    left_out = [tuple(answer.json()["degraded"]) for answer in answers if answer.status_code == 200]
    assert set(left_out) >= {(), ("asr", "text")}
    assert set(left_out) <= {(), ("text",), ("asr", "text")}
    for answer in answers:
        if answer.status_code == 200:
            document = answer.json()
            assert bool(document["transcript"]["text"]) == ("asr" not in document["degraded"])
            assert document["emotion"] in CLASSES


@pytest.mark.parametrize("asked", ["0", "soon", "1.5"])
def test_a_deadline_that_is_none_is_refused(client: httpx.Client, good: bytes, asked: str) -> None:
    problem = assert_problem(send(client, good, **{"Amser-Deadline-Ms": asked}), 400, "whole number of milliseconds")
    assert asked in problem["detail"]


def test_what_cannot_be_answered_in_time_is_refused_at_once(client: httpx.Client, good: bytes) -> None:
    assert send(client, good).status_code == 200  # so that the gateway knows how long one takes
    started = time.monotonic()
    response = send(client, good, **WHOLE, **{"Amser-Deadline-Ms": "60"})  # half of what the recogniser alone takes
    assert time.monotonic() - started < 1
    assert_problem(response, 429, limit=None)
    assert int(response.headers["retry-after"]) >= 1


def test_the_words_are_left_out_where_there_is_no_time_for_them(
    cluster: LocalCluster, client: httpx.Client, good: bytes
) -> None:
    """The recogniser stands still; the emotion of the voice is answered all the same, in time."""
    (stopped,) = replicas(cluster, "WhisperASR")
    stopped.suspend()
    try:
        started = time.monotonic()
        response = send(client, good, **{"Amser-Deadline-Ms": "3000"})
        assert time.monotonic() - started < 3.5
        refused = send(client, good, **WHOLE, **{"Amser-Deadline-Ms": "1500"})
    finally:
        stopped.resume()
    assert response.status_code == 200
    assert response.json()["degraded"] == ["asr", "text"]
    assert response.json()["emotion"] in CLASSES
    assert refused.status_code in (429, 504)
    if refused.status_code == 504:
        assert_problem(refused, 504, limit="1.5 s")


def test_what_clients_left_behind_is_not_computed(cluster: LocalCluster, client: httpx.Client, good: bytes) -> None:
    """Thirty that leave at once would keep the recogniser busy for several seconds."""
    assert send(client, good).status_code == 200
    leaving = []
    for _ in range(30):
        connection = connect(cluster)
        body = wire.pack(replace(wire.unpack(good), utterance_id=uuid4()))  # none joins another
        connection.sendall(raw_request(len(body), body))
        leaving.append(connection)
    time.sleep(0.3)
    for connection in leaving:
        connection.close()
    time.sleep(0.5)
    response = send(client, good)
    assert response.status_code == 200
    timings = dict(entry.split(";dur=") for entry in response.headers["server-timing"].split(", "))
    assert float(timings["asr-queue"]) < 1500


def test_a_replica_that_dies_is_replaced(cluster: LocalCluster, client: httpx.Client, good: bytes) -> None:
    """Last, since it ends the recogniser that all tests share."""
    before = send(client, good).json()
    (victim,) = replicas(cluster, "WhisperASR")
    victim.kill()
    victim.wait(10)
    deadline = time.monotonic() + 60
    answers = [send(client, good, **WHOLE)]
    while answers[-1].status_code != 200 and time.monotonic() < deadline:
        time.sleep(1)
        answers.append(send(client, good, **WHOLE))
    assert answers[-1].status_code == 200
    assert answers[-1].json()["transcript"] == before["transcript"]
    for refused in answers[:-1]:
        assert_problem(refused, 503, limit=None)
    assert [process.pid for process in replicas(cluster, "WhisperASR")] != [victim.pid]
