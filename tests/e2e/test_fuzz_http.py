"""What strangers may send over HTTP, tried for a moment with fixed seeds; good requests beside it get their answers."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from deployments.local_cluster import LocalCluster
from tests.fuzz.findings import Findings, of_run
from tests.fuzz.network.attempt import ON_THE_NETWORK
from tests.fuzz.network.exchange import request
from tests.fuzz.network.site import Site
from tests.fuzz.state import State
from tests.fuzz.targets.audio import files
from tests.fuzz.targets.envelope import envelopes

SECONDS = {"requests": 2.0, "bodies": 3.0, "framing": 3.0, "openapi": 6.0, "mix": 2.0}


@pytest.fixture(scope="module", autouse=True)
def seeds() -> tuple[bytes, ...]:
    """Made before a target's time begins."""
    return envelopes() + files()


def site_of(cluster: LocalCluster, folder: Path, target: str, seconds: float) -> Site:
    findings, state = Findings(folder, "a run", target), State(folder / "state")
    return Site(cluster.url, findings, state, Random(1), time.monotonic() + seconds)


@pytest.mark.parametrize("target", SECONDS)
def test_bad_requests_are_refused_and_good_ones_answered(cluster: LocalCluster, target: str, tmp_path: Path) -> None:
    site = site_of(cluster, tmp_path, target, SECONDS[target])
    ON_THE_NETWORK[target](site)
    faults = [found for found in of_run(tmp_path, "a run") if found.verdict != "refusal"]
    assert [(found.verdict, found.cause, found.detail) for found in faults] == []


def test_odd_requests_are_many_in_a_moment(cluster: LocalCluster, tmp_path: Path) -> None:
    site = site_of(cluster, tmp_path, "requests", 1.0)
    ON_THE_NETWORK["requests"](site)
    assert site.state.tried > 5
    assert site.state.accepted < site.state.tried


def test_a_flood_of_connections_leaves_the_next_request_its_answer(cluster: LocalCluster, tmp_path: Path) -> None:
    site = site_of(cluster, tmp_path, "flood", 10.0)
    opened = [site.connect() for _ in range(300)]
    answer = site.ask(request("GET", "/healthz"), "during a flood")
    for connection in opened:
        connection.hang_up()
    assert answer is not None
    assert answer.status == 200
