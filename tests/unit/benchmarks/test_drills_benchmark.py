"""The drills' devices against a server of this process, and what is made of their exchanges and of memory."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from stand_in import Response, stand_in

from amser.wire import unpack
from benchmarks.drills import devices, soak
from benchmarks.drills.__main__ import tally
from benchmarks.drills.devices import ANSWERED, MIXED_UP, Again, Exchange, OpenLoop, outcomes, p99_ms
from benchmarks.drills.faults import ON_NODE, placed_on_node, released
from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster
from load_tests.fleet.payloads import Payloads, prepare
from load_tests.report.record import Run, Sample

NOISE = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)


@pytest.fixture(scope="module")
def payloads() -> Payloads:
    return prepare([NOISE], [devices.CODEC], "en")


def exchange(
    outcome: str = ANSWERED, *, bare: bool = False, seconds: float = 1.0, again: Again | None = None
) -> Exchange:
    return Exchange(10.0, 10.0 + seconds, bare, outcome, 1, (), again)


def test_bare_clients_send_once_and_the_others_again(payloads: Payloads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "AGAIN", 10**6)
    refusing = [Response(503, {"title": "Service Unavailable"}, {"Retry-After": "0"}) for _ in range(2)]
    with stand_in(*refusing) as server, OpenLoop(server.url, 20, seed=3, payloads=payloads) as load:
        while load.sent < 6:
            time.sleep(0.02)
    retrying = [each for each in load.exchanges if not each.bare]
    bare = [each for each in load.exchanges if each.bare]
    assert {each.outcome for each in retrying} == {MIXED_UP}  # the stand-in's answer is of another number of bytes
    assert sum(each.attempts - 1 for each in retrying) + outcomes(bare).get("503 Service Unavailable", 0) == 2
    ids = [unpack(each.body).utterance_id for each in server.received]
    assert len(set(ids)) == load.sent == len(load.exchanges)


def test_a_drill_is_counted_by_what_clients_got() -> None:
    before = [exchange(seconds=0.2), exchange(bare=True, seconds=0.3)]
    during = [
        exchange("Unreachable", bare=True),
        exchange("504 Gateway Timeout"),
        exchange(seconds=4.0, again=Again.SAME),
        exchange(again=Again.COMPUTED),
        exchange(again=Again.CONTRADICTS),
    ]
    row = tally([*before, *during], before, during)
    assert (row["sent"], row["lost"], row["lost_by"]) == (7, 1, {"504 Gateway Timeout": 1})
    assert (row["bare"], row["bare_answered"], row["bare_told"]) == (2, 1, {"Unreachable": 1})
    assert (row["again"], row["computed_twice"], row["contradicted"]) == (3, 2, 1)
    assert (row["p99_before_ms"], row["p99_during_ms"]) == (300, 4000)
    assert tally([], [], [])["p99_during_ms"] is None
    assert math.isnan(p99_ms([exchange("Unreachable")]))


def test_another_release_differs_in_its_name_alone() -> None:
    config = LocalCluster(DEFAULT_CONFIG, log=Path("unused")).config
    second = released(released(config, "1"), "2")
    assert second["applications"][0].pop("runtime_env") == {"env_vars": {"AMSER_RELEASE": "2"}}
    assert second == config
    placed = {
        each["name"]: each.get("ray_actor_options") for each in placed_on_node(config)["applications"][0]["deployments"]
    }
    assert {name for name, options in placed.items() if options} == set(ON_NODE)


def test_growth_is_that_of_the_last_half() -> None:
    rising_then_flat = [(2.0 * n, 100.0 + min(n, 40)) for n in range(1, 101)]
    assert soak.growth(rising_then_flat) == 0
    assert soak.growth([(2.0 * n, 100.0 + n) for n in range(1, 101)]) == pytest.approx(0.156, abs=0.01)
    assert soak.growth(rising_then_flat[:10]) is None


def test_a_soak_is_judged_by_good_requests_and_memory() -> None:
    good = [Sample(n, n, n + 0.5, 200, "ok", 1, "phone", "lte") for n in range(20)]
    bad = [
        Sample(1, 1, 2, 400, "ok", 2, "phone", "lte", "broken"),
        Sample(1, 1, 2, 500, "500 Internal Server Error", 3, "phone", "lte", "misleading"),
    ]
    refused = Sample(3, 3, 4, 429, "429 Too Many Requests", 1, "phone", "lte")
    run = Run("soak-bad-clients", "", 1, 4, 20.0, 2000.0, 0, (*good, *bad, refused), (), {})
    memory = {"Ingress 7": [(2.0 * n, 100.0 + n) for n in range(1, 101)]}
    row = soak.verdict(run, memory)
    assert (row["good"], row["good_answered"], row["good_refused"]) == (21, 20, {"429 Too Many Requests": 1})
    assert row["bad"] == {"broken": 1, "misleading": 1}
    assert row["bad_answered_wrongly"] == {"misleading: 500 Internal Server Error": 1}
    assert not row["is_flat"]
    assert row["memory_mb"] == {"Ingress 7": [101, 200]}
