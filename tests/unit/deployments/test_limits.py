"""Buckets of keys and devices: exact times, no draws by what is refused, and a bounded size."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.drills.redis_server import RedisServer
from deployments.access import limits
from deployments.access.limits import Charge, Concurrency, OwnBuckets
from deployments.access.shared_limits import SharedBuckets


class Clock:
    now_s = 5000.0

    def __call__(self) -> float:
        return self.now_s


def charge(amount: float, *, device: str = "", limit: str = "requests", per_minute: float = 6) -> Charge:
    return Charge(limit, device, per_minute, amount)


async def test_what_is_drawn_comes_back_evenly() -> None:
    clock = Clock()
    buckets = OwnBuckets(clock)
    assert (await buckets.draw("a", [charge(6)])).wait_s == 0
    assert (await buckets.draw("a", [charge(1)])).wait_s == pytest.approx(10)
    assert (await buckets.draw("a", [charge(3)])).wait_s == pytest.approx(30)
    assert (await buckets.draw("a", [charge(7)])).wait_s == inf
    assert (await buckets.draw("b", [charge(6)])).wait_s == 0
    clock.now_s += 10
    assert (await buckets.draw("a", [charge(1)])).wait_s == 0
    assert (await buckets.draw("a", [charge(1)])).wait_s == pytest.approx(10)


async def test_all_is_drawn_or_nothing() -> None:
    buckets = OwnBuckets(Clock())
    both = [charge(1), charge(100, limit="bytes", per_minute=50)]
    refused = await buckets.draw("a", both)
    assert (refused.wait_s, refused.charge) == (inf, both[1])
    assert (await buckets.draw("a", [charge(6)])).wait_s == 0
    assert (await buckets.draw("a", [charge(3)], only_ask=True)).wait_s == pytest.approx(30)
    assert (await buckets.draw("a", [charge(1)])).wait_s == pytest.approx(10)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 12)), max_size=40))
async def test_a_request_passes_at_the_time_it_was_told_and_not_before(steps: list[tuple[float, int]]) -> None:
    clock = Clock()
    buckets = OwnBuckets(clock)
    for pause_s, amount in steps:
        clock.now_s += pause_s
        verdict = await buckets.draw("a", [charge(amount, per_minute=10)])
        if amount > 10:
            assert verdict.wait_s == inf
        elif verdict.wait_s:
            assert (await buckets.draw("a", [charge(amount, per_minute=10)])).wait_s == verdict.wait_s
            clock.now_s += verdict.wait_s * 0.99 - 1e-5
            assert (await buckets.draw("a", [charge(amount, per_minute=10)], only_ask=True)).wait_s > 0
            clock.now_s += verdict.wait_s * 0.01 + 2e-5
            assert (await buckets.draw("a", [charge(amount, per_minute=10)])).wait_s == 0


async def test_invented_devices_push_out_each_other_and_no_device_of_another_key() -> None:
    clock = Clock()
    buckets = OwnBuckets(clock)
    kitchen = [charge(6, device="kitchen")]
    assert (await buckets.draw("good", kitchen)).wait_s == 0
    for number in range(3 * limits.MOST_OF_A_CALLER):
        assert (await buckets.draw("bad", [charge(1, device=str(number))])).wait_s == 0
    assert len(buckets) == limits.MOST_OF_A_CALLER + 1
    assert (await buckets.draw("good", kitchen)).wait_s == pytest.approx(60)
    clock.now_s += 121
    assert (await buckets.draw("good", kitchen)).wait_s == 0
    assert len(buckets) == 1


async def test_many_addresses_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 100)
    buckets = OwnBuckets(Clock())
    for number in range(1000):
        await buckets.draw(f"address {number}", [charge(1)])
    assert len(buckets) == 100


def test_requests_at_once_are_forgotten_when_they_end() -> None:
    open_requests = Concurrency()
    assert open_requests.enter("a", "", 2)
    assert open_requests.enter("a", "", 2)
    assert not open_requests.enter("a", "", 2)
    assert open_requests.enter("a", "kitchen", 1)
    for device in ("", "", "kitchen"):
        open_requests.leave("a", device)
    assert len(open_requests) == 0


# --- Redis ------------------------------------------------------------------------------------------------------------


async def test_replicas_with_a_redis_count_together(redis_server: RedisServer) -> None:
    one, two = SharedBuckets(redis_server.url), SharedBuckets(redis_server.url)
    both = [charge(4), charge(10, limit="bytes", per_minute=600, device="kitchen/\0ä")]
    assert (await one.draw("a", both)).wait_s == 0
    refused = await two.draw("a", [charge(3), charge(1, limit="bytes", per_minute=600, device="kitchen/\0ä")])
    assert refused.wait_s == pytest.approx(10, abs=0.5)
    assert refused.charge == charge(3)
    assert (await two.draw("a", [charge(7)])).wait_s == inf
    assert (await two.draw("a", [charge(2)], only_ask=True)).wait_s == 0
    assert (await two.draw("a", [charge(2)])).wait_s == 0
    assert (await one.draw("a", [charge(1)])).wait_s == pytest.approx(10, abs=0.5)
    assert (await one.draw("b", [charge(6)])).wait_s == 0
    await one.close()
    await two.close()


async def test_without_its_redis_each_replica_counts_by_itself(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    buckets = SharedBuckets(redis_server.url)
    assert (await buckets.draw("a", [charge(6)])).wait_s == 0
    redis_server.stop()
    assert (await buckets.draw("a", [charge(6)])).wait_s == 0
    assert (await buckets.draw("a", [charge(1)])).wait_s == pytest.approx(10, abs=0.5)
    assert caplog.text.count("each replica counts limits by itself for 5 s: ConnectionError") == 1
    await buckets.close()
