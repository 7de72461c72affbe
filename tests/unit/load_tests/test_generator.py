"""The open loop against a server of its own process: on time whatever the answers do, and honest where it is not."""

from __future__ import annotations

import socket
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import gevent
import numpy as np
import pytest
from answering import answering, seen
from stand_in import NO_SPEECH, Response, stand_in

from amser.wire import unpack
from load_tests.fleet.arrivals import Constant, schedule
from load_tests.fleet.client import FLOOD
from load_tests.fleet.connection import BadUrl
from load_tests.fleet.generator import LoadGenerator, Part
from load_tests.fleet.members import Fleet
from load_tests.fleet.payloads import Payloads, body, prepare
from load_tests.fleet.scenario import Link, Misbehaviour, Scenario
from load_tests.report.record import DROPPED, Sample

NOISE = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
BAD = dict.fromkeys(Misbehaviour, 1 / len(Misbehaviour))


@pytest.fixture(scope="module")
def payloads() -> Payloads:
    return prepare([NOISE], [("klt", "standard")], "en")


def scenario(seconds: float = 1.0, rate: float = 20.0, **fields: Any) -> Scenario:
    return Scenario(name="test", description="A test.", arrivals=Constant(seconds, rate), **fields)


def run(wanted: Scenario, payloads: Payloads, url: str, **options: Any) -> LoadGenerator:
    generator = LoadGenerator(wanted, payloads, url, seed=1, **options)
    generator.run_open_loop()
    return generator


def outcomes(samples: list[Sample]) -> Counter[str]:
    return Counter(sample.outcome for sample in samples)


def test_requests_leave_on_time_however_long_the_answers_take(payloads: Payloads) -> None:
    wanted = scenario(rate=30)
    with answering(delay_s=1.2) as url:
        generator = run(wanted, payloads, url)
    samples = sorted(generator.statistics.samples, key=lambda sample: sample.scheduled_s)
    assert [sample.scheduled_s for sample in samples] == schedule(wanted.arrivals, 1).tolist()
    assert outcomes(samples) == {"ok": len(samples)}
    late = np.array([sample.sent_s - sample.scheduled_s for sample in samples if sample.sent_s is not None])
    assert (late >= 0).all()
    assert np.median(late) < 0.02
    assert max(sample.sent_s or 0 for sample in samples) < 1.2  # the last left before the first was answered
    assert all(sample.latency_s is not None and sample.latency_s >= 1.2 for sample in samples)


def test_what_an_answer_says_is_recorded(payloads: Payloads) -> None:
    with answering() as url:
        sample = run(scenario(rate=5), payloads, url).statistics.samples[0]
    assert (sample.status, sample.outcome, sample.behaviour) == (200, "ok", "good")
    assert sample.degraded == ("text_encoder",)
    assert sample.timings_ms == {"queue": 33.52, "asr": 190.91, "total": 290.1}
    assert sample.speech_s == pytest.approx(1.0)
    assert (sample.hardware, sample.radio in {"lte", "wifi", "3g"}) == ("phone", True)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (NO_SPEECH, "ok"),
        ({**NO_SPEECH, "speech": "yes"}, "200 without an emotion"),
        ({}, "200 without an emotion"),
    ],
)
def test_an_answer_without_an_emotion_is_one_where_nobody_speaks(
    payloads: Payloads, body: dict[str, Any], outcome: str
) -> None:
    with stand_in(*[Response(body=body)] * 20) as cluster:
        samples = run(scenario(rate=5), payloads, cluster.url).statistics.samples
    assert outcomes(samples) == {outcome: len(samples)}


def test_a_generator_that_is_late_hides_nothing(payloads: Payloads) -> None:
    def busy(**_: Any) -> None:
        time.sleep(0.05)  # the whole process: nothing leaves meanwhile

    with answering(delay_s=0.0) as url:
        generator = run(scenario(rate=40), payloads, url, fire=busy)
    assert generator.statistics.late_starts > 10
    last = max(generator.statistics.samples, key=lambda sample: sample.scheduled_s)
    assert last.latency_s is not None
    assert last.service_s is not None
    assert last.latency_s > last.service_s + 0.3


def test_an_arrival_is_dropped_and_counted_where_too_many_wait(payloads: Payloads) -> None:
    with answering(delay_s=1.2) as url:
        generator = run(scenario(rate=20), payloads, url, most_in_flight=3)
    found = outcomes(generator.statistics.samples)
    assert found["ok"] == generator.statistics.sent == 3
    assert found[DROPPED] == schedule(Constant(1.0, 20.0), 1).size - 3
    dropped = next(sample for sample in generator.statistics.samples if sample.outcome == DROPPED)
    assert (dropped.sent_s, dropped.done_s, dropped.latency_s) == (None, None, None)


def test_each_device_keeps_a_connection_of_its_own(payloads: Payloads) -> None:
    with answering(delay_s=0.0) as url:
        samples = run(scenario(rate=40, devices=5), payloads, url).statistics.samples
        assert seen(url)["connections"] == len({sample.device for sample in samples}) == 5
    assert len(samples) > 30


def test_a_kept_connection_that_the_cluster_closed_costs_a_retry_and_no_failure(payloads: Payloads) -> None:
    with answering(delay_s=0.0, idle_s=0.02) as url:
        samples = run(scenario(rate=40, devices=2), payloads, url).statistics.samples
        assert seen(url)["connections"] > 10
    assert outcomes(samples) == {"ok": len(samples)}


def test_an_utterance_that_the_link_cuts_is_sent_again_with_its_id(payloads: Payloads) -> None:
    with answering(delay_s=0.0) as url:
        wanted = scenario(rate=50, link=Link(loss=0.4, resend_after_s=0.2))
        samples = run(wanted, payloads, url).statistics.samples
        attempts = seen(url)["attempts"]
    assert outcomes(samples) == {"ok": len(samples)}
    assert len(attempts) == len(samples)
    again = sum(count > 1 for count in attempts.values())
    assert 0.2 < again / len(samples) < 0.6
    assert sum((sample.latency_s or 0) >= 0.2 for sample in samples) == again


def test_bad_clients_are_answered_as_they_should_be(payloads: Payloads) -> None:
    with answering(delay_s=0.0) as url:
        samples = run(scenario(rate=40, misbehaviour=BAD), payloads, url).statistics.samples
    assert outcomes(samples) == {"ok": len(samples)}
    statuses = {kind: {each.status for each in samples if each.behaviour == kind} for kind in Misbehaviour}
    assert statuses == {
        Misbehaviour.BROKEN: {400},
        Misbehaviour.SLOW: {408},
        Misbehaviour.OVERSIZED: {413},
        Misbehaviour.VANISHING: {0},
        Misbehaviour.MISLEADING: {200},  # by this server, which believes every hint
        Misbehaviour.FLOODING: {200},
    }


def test_wrong_hints_are_a_language_that_is_not_spoken_one_that_is_none_and_no_deadline(payloads: Payloads) -> None:
    with stand_in(Response()) as server:
        run(scenario(rate=10, devices=1, misbehaviour={Misbehaviour.MISLEADING: 1.0}), payloads, server.url)
    hints = [(unpack(each.body).language, each.headers.get("Amser-Deadline-Ms")) for each in server.received]
    assert hints[:3] == [("de", None), ("xx", None), ("en", "soon")]


def test_a_flood_is_many_utterances_at_once_from_one_address_that_no_other_device_has(payloads: Payloads) -> None:
    half = {Misbehaviour.FLOODING: 0.5}
    with stand_in(Response()) as server:
        generator = run(scenario(rate=6, devices=4, addresses=True, misbehaviour=half), payloads, server.url)
    samples = generator.statistics.samples
    floods = sum(each.behaviour == Misbehaviour.FLOODING for each in samples)
    addresses = Counter(each.headers["X-Forwarded-For"] for each in server.received)
    assert floods > 0
    assert addresses.pop("203.0.113.66") == FLOOD * floods
    assert addresses.total() == len(samples) - floods
    assert {address.rpartition(".")[0] for address in addresses} == {"10.0.0"}
    assert len({unpack(each.body).utterance_id for each in server.received}) == len(server.received)


def test_a_bad_client_that_gets_an_answer_is_a_failure(payloads: Payloads) -> None:
    with answering(delay_s=0.0, status=500) as url:
        generator = run(scenario(misbehaviour={Misbehaviour.OVERSIZED: 1.0}), payloads, url)
        assert outcomes(generator.statistics.samples).keys() == {
            "ok"
        }  # too many bytes are refused before anything fails
        generator = run(scenario(), payloads, url)
    assert outcomes(generator.statistics.samples).keys() == {"500 Internal Server Error"}
    assert generator.statistics.failed == generator.statistics.sent > 0


def test_a_connection_is_not_kept_where_the_answer_came_before_the_whole_body(payloads: Payloads) -> None:
    """The cluster would read the next request as the rest of this one."""
    with answering(delay_s=0.0) as url:
        oversized = run(scenario(rate=10, misbehaviour={Misbehaviour.OVERSIZED: 1.0}), payloads, url)
        good = run(scenario(rate=10), payloads, url)
    assert outcomes(oversized.statistics.samples).keys() == {"ok"}
    assert (oversized.most_connections, good.most_connections > 0) == (0, True)


def test_a_full_cluster_refuses_and_does_not_fail(payloads: Payloads) -> None:
    with answering(delay_s=0.0, status=429) as url:
        statistics = run(scenario(), payloads, url).statistics
    assert outcomes(statistics.samples) == {"429 Too Many Requests": statistics.sent}
    assert {sample.retry_after_s for sample in statistics.samples} == {3.0}
    assert statistics.failed == 0


def test_no_answer_in_time_is_a_timeout(payloads: Payloads) -> None:
    with answering(delay_s=5.0) as url:
        samples = run(scenario(rate=5), payloads, url, answer_timeout_s=0.3).statistics.samples
    assert outcomes(samples).keys() == {"timeout"}
    assert all(sample.service_s == pytest.approx(0.3, abs=0.2) for sample in samples)


def test_no_cluster_is_a_connection_refused(payloads: Payloads) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        samples = run(scenario(rate=5), payloads, url).statistics.samples
    assert outcomes(samples).keys() == {"connection refused"}
    assert {sample.bytes_up for sample in samples} == {0}


def test_a_url_that_is_none_is_refused_at_once(payloads: Payloads) -> None:
    with pytest.raises(BadUrl, match="no URL of a cluster"):
        LoadGenerator(scenario(), payloads, "ftp://cluster")


def test_deadline_and_strictness_go_into_the_header(payloads: Payloads) -> None:
    with answering(delay_s=0.0) as url:
        run(scenario(rate=5, deadline_ms=900, strict=True), payloads, url)
        (headers,) = seen(url)["headers"]
        assert (headers["amser-deadline-ms"], headers["prefer"]) == ("900", "handling=strict")
        run(scenario(rate=5), payloads, url)
        (headers,) = seen(url)["headers"]
    assert "amser-deadline-ms" not in headers
    assert "prefer" not in headers


def test_locust_is_told_of_each_request_with_the_time_from_its_schedule(payloads: Payloads) -> None:
    told: list[dict[str, Any]] = []
    with answering() as url:
        samples = run(scenario(), payloads, url, fire=lambda **fields: told.append(fields)).statistics.samples
    assert [each["response_time"] for each in told] == [1000 * (sample.latency_s or 0) for sample in samples]
    assert {(each["request_type"], each["name"], each["exception"]) for each in told} == {("POST", "/v1/emotion", None)}


def test_two_parts_are_the_whole_and_share_no_device(payloads: Payloads) -> None:
    wanted = scenario(devices=9)
    with answering(delay_s=0.0) as url:
        halves = [run(wanted, payloads, url, part=Part(index, 2)).statistics.samples for index in range(2)]
    devices = [{sample.device for sample in half} for half in halves]
    assert devices[0].isdisjoint(devices[1])
    together = sorted(sample.scheduled_s for half in halves for sample in half)
    assert together == schedule(wanted.arrivals, 1).tolist()


def test_in_a_closed_loop_each_device_waits_for_its_answer(payloads: Payloads) -> None:
    with answering(delay_s=0.1) as url:
        generator = LoadGenerator(scenario(devices=3), payloads, url)
        generator.run_closed_loop(3)
    samples = generator.statistics.samples
    assert 18 <= len(samples) <= 33
    for device in range(3):
        own = sorted((each for each in samples if each.device == device), key=lambda each: each.scheduled_s)
        assert all((first.done_s or 0) <= second.scheduled_s for first, second in zip(own, own[1:], strict=False))


def test_killed_it_leaves_out_what_was_on_its_way(payloads: Payloads) -> None:
    with answering(delay_s=5.0) as url:
        generator = LoadGenerator(scenario(seconds=30), payloads, url)
        running = gevent.spawn(generator.run_open_loop)
        gevent.sleep(0.6)
        running.kill()
    assert generator.statistics.sent > 3
    assert generator.statistics.in_flight == 0
    assert generator.statistics.samples == []


def test_a_device_says_who_it_is_and_what_its_clock_shows(payloads: Payloads) -> None:
    member, captured_at, utterance_id = Fleet(scenario(), 1)[7], datetime(2026, 1, 2, tzinfo=UTC), uuid4()
    prepared = payloads.envelope(member.codec, 3)
    envelope = unpack(body(prepared, member.device_id, utterance_id, captured_at))
    assert (envelope.device_id, envelope.utterance_id) == ("fleet-7", utterance_id)
    assert envelope.captured_at == captured_at
    assert envelope.payload == prepared.payload
