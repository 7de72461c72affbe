"""Whole answers: a spool asks for them, and what a busy cluster left out does not count as an answer.

The cluster is a real HTTP server on loopback that plays given responses.
"""

from __future__ import annotations

import json
import random
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from spooled import asked, fill
from stand_in import ANSWER, Response, StandIn, stand_in

from amser.client.command_line import main
from amser.client.delivery import Delivery, DeliverySettings, PartialAnswer
from amser.client.device import Device, DeviceSettings
from amser.client.exchange.failures import Refused
from amser.client.exchange.utterances import APPLIED, PREFER, UTTERANCE_HEADER
from amser.client.spool import Spool

pytest_plugins = ["spooled"]
VOICE_ONLY = ANSWER | {"degraded": ["asr", "text"], "speech": None, "transcript": {"text": "", "language": "und"}}
WITHOUT_TEXT = ANSWER | {"degraded": ["text"]}
FULL = Response(429, {"title": "Too Many Requests", "detail": "the cluster cannot answer in time"})
HELD = {APPLIED: "handling=strict"}

pytestmark = pytest.mark.usefixtures("impatient")


class Soonest(random.Random):
    """No jitter: every pause is as short as it can be."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


def delivery(url: str, **settings: float | bool) -> Delivery:
    return Delivery(DeviceSettings(url=url), DeliverySettings(**settings), source=Soonest())  # type: ignore[arg-type]


def test_a_delivery_asks_for_whole_answers_and_a_send_does_not(spool: Spool) -> None:
    fill(spool, 1)
    with stand_in() as cluster, delivery(cluster.url) as sending, Device(DeviceSettings(url=cluster.url)) as device:
        utterance = spool.utterance(spool.waiting()[0].utterance_id)
        assert utterance is not None
        device.send(utterance)
        list(sending.until_empty(spool))
    assert [request.headers.get(PREFER) for request in cluster.received] == [None, "handling=strict"]


def test_a_full_cluster_keeps_the_utterance_in_the_spool_until_it_has_time(spool: Spool) -> None:
    spoken = fill(spool, 1)
    with stand_in(FULL, FULL) as cluster, delivery(cluster.url) as sending:
        (result,) = sending.until_empty(spool)
    assert asked(cluster) == spoken * 3
    assert result.answer is not None
    assert (result.answer.text, result.answer.degraded, result.attempts) == ("Good morning.", (), 3)


def test_an_answer_of_the_voice_alone_is_not_taken_for_the_words(spool: Spool) -> None:
    spoken = fill(spool, 2)
    with stand_in(Response(body=VOICE_ONLY)) as cluster, delivery(cluster.url) as sending:
        assert list(sending.batch(spool)) == []
        assert isinstance(sending.trouble, PartialAnswer)
        assert "without asr, text" in str(sending.trouble)
        assert [each.attempts for each in spool.waiting()] == [1, 0]
        results = list(sending.until_empty(spool))
    assert {result.utterance_id for result in results} == set(spoken)
    assert [result.answer.text for result in results if result.answer] == ["Good morning."] * 2


def test_a_cluster_that_never_has_more_is_asked_a_few_times_and_the_result_says_what_it_lacks(spool: Spool) -> None:
    spoken = fill(spool, 1)
    with stand_in(*[Response(body=VOICE_ONLY)] * 9) as cluster, delivery(cluster.url, failures=99) as sending:
        (result,) = sending.until_empty(spool)
    assert asked(cluster) == spoken * 5
    assert result.answer is not None
    assert (result.answer.degraded, result.attempts) == (("asr", "text"), 5)


def test_how_often_is_counted_across_processes_and_apart_from_other_failures(spool: Spool) -> None:
    fill(spool, 1)
    responses = [Response(504, b"late"), *[Response(body=VOICE_ONLY)] * 9]
    with stand_in(*responses) as cluster:
        for _ in range(5):
            with delivery(cluster.url) as sending:
                assert list(sending.batch(spool)) == []
        with delivery(cluster.url) as sending:
            assert len(list(sending.until_empty(spool))) == 1
    assert len(cluster.received) == 6


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (WITHOUT_TEXT, HELD),  # French: the emotion network knows English, and no cluster is ever less busy for that
        (VOICE_ONLY, HELD),  # an operator who serves no recogniser
        (WITHOUT_TEXT | {"speech": "doubtful"}, {}),  # of an older cluster
    ],
)
def test_what_is_missing_for_good_is_not_waited_for(spool: Spool, body: object, headers: dict[str, str]) -> None:
    fill(spool, 1)
    with stand_in(Response(200, body, headers)) as cluster, delivery(cluster.url) as sending:
        (result,) = sending.until_empty(spool)
    assert result.answer is not None
    assert (len(cluster.received), result.attempts, result.failure) == (1, 1, None)
    assert result.answer.degraded


def test_partial_answers_may_be_asked_for(spool: Spool, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(spool, 1)
    spool.close()
    with stand_in(Response(body=VOICE_ONLY)) as cluster:
        assert main(["deliver", "--spool", str(path), "--url", cluster.url, "--partial", "--json"]) == 0
    assert PREFER not in cluster.received[0].headers
    assert json.loads(capsys.readouterr().out)["degraded"] == ["asr", "text"]


def test_one_that_is_too_long_for_a_whole_answer_in_time_holds_back_no_other(spool: Spool) -> None:
    spoken = fill(spool, 4)

    class Slow(StandIn):
        """Has no time for the first."""

        def play(self, request: BaseHTTPRequestHandler) -> None:
            if request.headers[UTTERANCE_HEADER] != str(spoken[0]):
                super().play(request)
                return
            request.rfile.read(int(request.headers["Content-Length"]))
            request.send_response(429)
            request.send_header("Content-Length", "0")
            request.end_headers()

    cluster = Slow([])
    settings = DeliverySettings(failures=99, longest_wait_s=0.3)
    with Delivery(DeviceSettings(url=cluster.url), settings, source=random.Random(3)) as sending:
        answered: set[UUID] = {result.utterance_id for result in sending.until_empty(spool)}
    cluster.close()
    assert answered == set(spoken[1:])
    assert [each.utterance_id for each in spool.waiting()] == spoken[:1]


def test_a_date_to_wait_until_counts_from_the_servers_own_clock() -> None:
    headers = {"Date": "Fri, 27 Nov 2026 01:00:00 GMT", "Retry-After": "Fri, 27 Nov 2026 01:00:30 GMT"}
    response = httpx.Response(503, headers=headers)
    response.elapsed = timedelta(0)
    assert Refused.of(response).retry_after_s == 30.0
