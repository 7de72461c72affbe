"""Delivery: what a device does with a link that is down, comes back, is full or breaks.

The cluster is a real HTTP server on loopback that plays given responses.
"""

from __future__ import annotations

import random
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spooled import GONE, POISONED, asked, fill
from stand_in import Response, StandIn, stand_in

from amser.client.delivery import Delivery, DeliverySettings, backoff_s
from amser.client.device import DeviceSettings
from amser.client.exchange.failures import AnswerTimedOut, Refused, UnexpectedAnswer, Unreachable
from amser.client.exchange.retries import BACKOFF_S
from amser.client.exchange.utterances import UTTERANCE_HEADER
from amser.client.spool import Spool, SpoolLimits
from amser.client.spool_clock import Uptime
from amser.client.spool_view import SpoolView

pytest_plugins = ["spooled"]


class Soonest(random.Random):
    """No jitter: every pause is as short as it can be."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


class Latest(random.Random):
    """Every pause is as long as it can be."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def delivery(url: str, source: type[random.Random] = Soonest, **settings: float) -> Delivery:
    chosen = DeliverySettings(**settings)  # type: ignore[arg-type]
    return Delivery(DeviceSettings(url=url, answer_timeout_s=0.5), chosen, source=source(0))


# --- Back-off ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**9), st.randoms(use_true_random=False), st.floats(0.1, 1e4))
def test_a_pause_is_never_longer_than_its_bound(failures: int, source: random.Random, longest_s: float) -> None:
    bound = longest_s if failures > 20 else min(longest_s, BACKOFF_S * 2 ** (failures - 1))
    assert 0 <= backoff_s(failures, source, longest_s) <= bound


@given(st.integers(1, 30), st.integers())
def test_a_pause_is_a_function_of_the_failures_and_the_randomness(failures: int, seed: int) -> None:
    assert backoff_s(failures, random.Random(seed)) == backoff_s(failures, random.Random(seed))


def test_devices_that_lost_the_link_together_come_back_over_the_whole_pause() -> None:
    source = random.Random(7)
    pauses = sorted(backoff_s(4, source) for _ in range(10_000))
    assert (pauses[0], pauses[5_000], pauses[-1]) == pytest.approx((0.0, 2.0, 4.0), abs=0.15)


# --- Batches and order ------------------------------------------------------------------------------------------------


def test_all_that_waits_is_sent_oldest_first_on_one_connection(spool: Spool) -> None:
    spoken = fill(spool, 10)
    with stand_in() as cluster, delivery(cluster.url, batch=4) as sending:
        settled = [result.utterance_id for result in sending.until_empty(spool)]
    assert asked(cluster) == settled == spoken
    assert len({request.connection for request in cluster.received}) == 1
    assert (spool.waiting(), len(spool.results())) == ([], 10)


def test_a_batch_is_no_larger_than_asked_for(spool: Spool) -> None:
    fill(spool, 5)
    with stand_in() as cluster, delivery(cluster.url, batch=3) as sending:
        assert len(list(sending.batch(spool))) == 3
    assert len(spool.waiting()) == 2


def test_what_came_back_is_in_the_spool_before_it_is_told(spool: Spool, path: Path) -> None:
    fill(spool, 3)
    with stand_in() as cluster, delivery(cluster.url) as sending, SpoolView(path) as view:
        for number, result in enumerate(sending.until_empty(spool), start=1):
            assert view.results()[-1] == result
            assert len(view.waiting()) == 3 - number
            assert result.answer is not None
            assert (result.answer.text, result.answer.attempts) == ("Good morning.", 1)


def test_what_is_too_old_is_not_sent(path: Path) -> None:
    seconds = 0.0
    limits = SpoolLimits(max_age_s=60)
    with (
        Spool(path, limits, uptime=lambda: Uptime("this boot", seconds)) as spool,
        stand_in() as cluster,
        delivery(cluster.url) as sending,
    ):
        fill(spool, 2)
        seconds = 1.0
        spoken = fill(spool, 2)
        seconds = 60.5
        list(sending.until_empty(spool))
        assert asked(cluster) == spoken
        assert [(each.reason, each.count) for each in spool.drops()] == [("age", 2)]


# --- Failures of the link ---------------------------------------------------------------------------------------------


def test_without_a_link_everything_stays_and_nothing_is_written(spool: Spool, port: int) -> None:
    fill(spool, 3)
    before = spool.waiting()
    with delivery(f"http://127.0.0.1:{port}", failures=3) as sending:
        assert list(sending.until_empty(spool)) == []
        assert isinstance(sending.trouble, Unreachable)
        assert sending.failures == 3
    assert spool.waiting() == before


def test_the_pauses_of_a_link_double(spool: Spool, port: int) -> None:
    fill(spool, 1)
    pauses = []
    with delivery(f"http://127.0.0.1:{port}", source=Latest) as sending:
        for _ in range(9):
            list(sending.batch(spool))
            pauses.append(sending.wait_s(spool))
    assert pauses == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60, 60], abs=0.3)


def test_when_the_cluster_comes_back_the_oldest_is_first_and_nothing_was_lost(spool: Spool, port: int) -> None:
    spoken = fill(spool, 6)
    url = f"http://127.0.0.1:{port}"
    with delivery(url, failures=2) as sending:
        with stand_in() as first:
            assert len([next(results) for results in [sending.until_empty(spool)] for _ in range(2)]) == 2
        assert list(sending.until_empty(spool)) == []
        sending.failures = 0
        with stand_in() as second:
            list(sending.until_empty(spool))
    assert asked(first) == spoken[:3]  # the third on the connection that was kept, and not answered
    assert asked(second) == spoken[2:]
    assert [result.utterance_id for result in spool.results()] == spoken


def test_a_full_cluster_is_left_alone_for_as_long_as_it_asked(spool: Spool) -> None:
    spoken = fill(spool, 3)
    full = Response(429, {"title": "Too Many Requests"}, {"Retry-After": "1"})
    with stand_in(Response(), full) as cluster, delivery(cluster.url) as sending:
        list(sending.until_empty(spool))
    assert asked(cluster)[:2] == spoken[:2]
    assert set(asked(cluster)[2:]) == set(spoken[1:])  # once the wait is over, either of them may be first
    assert 1.0 <= cluster.received[2].at - cluster.received[1].at < 10.0
    assert {result.utterance_id: result.attempts for result in spool.results()} == dict(
        zip(spoken, [1, 2, 1], strict=True)
    )


def test_a_wait_that_the_cluster_asked_for_is_remembered_by_the_spool(spool: Spool) -> None:
    fill(spool, 1)
    with stand_in(Response(503, {}, {"Retry-After": "3600"})) as cluster:
        with delivery(cluster.url) as sending:
            assert list(sending.until_empty(spool)) == []
            assert isinstance(sending.trouble, Refused)
        with delivery(cluster.url) as another:
            assert list(another.until_empty(spool)) == []
            assert another.wait_s(spool) == pytest.approx(3600, abs=5)
    assert len(cluster.received) == 1


@pytest.mark.parametrize(
    ("response", "trouble"),
    [
        (GONE, Unreachable),
        (Response(after_s=60), AnswerTimedOut),
        (Response(500, b"oops"), Refused),
        (Response(504, b"late"), Refused),
        (Response(408, b"slow"), Refused),
        (Response(200, b"<h1>Welcome to our hotel</h1>"), UnexpectedAnswer),
    ],
)
def test_a_request_that_may_have_been_worked_on_is_sent_again_with_the_same_id(
    spool: Spool, response: Response, trouble: type[Exception]
) -> None:
    (spoken,) = fill(spool, 1)
    with stand_in(response) as cluster, delivery(cluster.url) as sending:
        assert list(sending.batch(spool)) == []
        assert isinstance(sending.trouble, trouble)
        (result,) = sending.until_empty(spool)
    assert asked(cluster) == [spoken, spoken]
    assert cluster.received[0].body == cluster.received[1].body
    assert result.answer is not None
    assert (result.attempts, result.answer.attempts, sending.trouble) == (2, 2, None)


def test_a_deadline_that_is_never_met_ends_the_delivery_and_not_the_utterance(spool: Spool) -> None:
    spoken = fill(spool, 1)
    late = Response(504, {"title": "Gateway Timeout"}, {"Retry-After": "1"})
    with stand_in(*[late] * 9) as cluster, delivery(cluster.url, failures=2) as sending:
        assert list(sending.until_empty(spool)) == []
        assert isinstance(sending.trouble, Refused)
    assert asked(cluster) == spoken * 2
    assert 1.0 <= cluster.received[1].at - cluster.received[0].at < 5.0
    assert [each.attempts for each in spool.waiting()] == [2]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("status", [None, 408, 500, 504])
def test_one_that_fails_every_time_holds_back_no_other(spool: Spool, status: int | None) -> None:
    """It breaks the connection, or has a body that never arrives in time, or never gets its answer by the deadline."""
    spoken = fill(spool, 5)

    class Fragile(StandIn):
        """Falls over the second utterance."""

        def play(self, request: BaseHTTPRequestHandler) -> None:
            if request.headers[UTTERANCE_HEADER] != str(spoken[1]):
                super().play(request)
            elif status is None:
                request.close_connection = True
            else:
                request.rfile.read(int(request.headers["Content-Length"]))
                request.send_response(status)
                request.send_header("Content-Length", "0")
                request.end_headers()

    cluster = Fragile([])
    with delivery(cluster.url, Latest, failures=99, longest_wait_s=0.3) as sending:
        answered = [result.utterance_id for result in sending.until_empty(spool)]
    cluster.close()
    (left,) = spool.waiting()
    assert answered == [spoken[0], *spoken[2:]]
    assert left.utterance_id == spoken[1]
    assert left.attempts >= 4  # it was not given up either, until a pause took longer than there is patience


def test_a_problem_that_cannot_be_stored_is_kept_without_its_text(spool: Spool) -> None:
    """Half of a surrogate pair: JSON can say it, UTF-8 and the spool cannot."""
    spoken = fill(spool, 2)
    odd = Response(400, {"title": "No", "detail": "half of a pair: \ud800"})
    with stand_in(odd, Response()) as cluster, delivery(cluster.url) as sending:
        results = list(sending.until_empty(spool))
    assert asked(cluster) == spoken
    assert [result.failure for result in results] == ["400 Bad Request", None]
    assert spool.results() == results


def test_one_poisoned_utterance_is_kept_as_failed_and_the_others_are_answered(spool: Spool) -> None:
    spoken = fill(spool, 4)
    with stand_in(Response(), POISONED) as cluster, delivery(cluster.url) as sending:
        results = list(sending.until_empty(spool))
    assert asked(cluster) == spoken
    assert [result.failure for result in results] == [None, "400 Bad Request; the bytes are corrupt", None, None]
    assert spool.results() == results


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, "") for status in (302, 401, 403, 404, 405, 407, 421, 431)),
        (400, "bad-preference"),
        (400, "bad-http"),
        (400, "host-not-allowed"),
    ],
)
def test_a_wrong_address_or_password_costs_no_utterance(spool: Spool, status: int, kind: str) -> None:
    spoken = fill(spool, 2)
    elsewhere = Response(status, {"type": f"/problems/{kind}"} if kind else b"who are you?")
    with stand_in(*[elsewhere] * 3) as cluster, delivery(cluster.url, failures=3) as sending:
        assert list(sending.until_empty(spool)) == []
        assert isinstance(sending.trouble, Refused)
    assert asked(cluster) == [spoken[0]] * 3
    assert (len(spool.waiting()), spool.results()) == (2, [])


def test_stop_ends_a_pause_at_once(spool: Spool, port: int) -> None:
    fill(spool, 1)
    stop = threading.Event()
    device = DeviceSettings(url=f"http://127.0.0.1:{port}")
    with Delivery(device, DeliverySettings(failures=99), stop, Latest()) as sending:
        threading.Timer(0.7, stop.set).start()  # in the second pause, of 1 s
        started = time.monotonic()
        assert list(sending.until_empty(spool)) == []
    assert time.monotonic() - started < 1.2
    assert len(spool.waiting()) == 1


def test_stop_ends_a_batch_after_the_request_under_way(spool: Spool) -> None:
    fill(spool, 5)
    stop = threading.Event()
    with stand_in() as cluster, Delivery(DeviceSettings(url=cluster.url), stop=stop) as sending:
        for _ in sending.until_empty(spool):
            stop.set()
    assert (len(cluster.received), len(spool.waiting())) == (1, 4)


def test_a_watch_delivers_what_others_spool_and_survives_an_outage(path: Path, port: int) -> None:
    stop, settled = threading.Event(), []
    device = DeviceSettings(url=f"http://127.0.0.1:{port}")

    def watch() -> None:
        with Delivery(device, stop=stop, source=Soonest()) as sending:
            settled.extend(result.utterance_id for result in sending.watch(lambda: Spool(path, wait_s=10)))

    thread = threading.Thread(target=watch)
    thread.start()
    with Spool(path, wait_s=10) as spool:
        first = fill(spool, 2)
    time.sleep(0.3)
    with stand_in():
        _eventually(path, 2)
    with Spool(path, wait_s=10) as spool:
        second = fill(spool, 2)
    with stand_in():
        _eventually(path, 4)
    stop.set()
    thread.join(5)
    assert settled == [*first, *second]


def _eventually(path: Path, results: int) -> None:
    ends_at = time.monotonic() + 20
    while time.monotonic() < ends_at:
        with SpoolView(path) as view:
            if len(view.results()) == results:
                return
        time.sleep(0.05)
    pytest.fail(f"there are no {results} results")
