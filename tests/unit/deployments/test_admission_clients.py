"""One client and its neighbours at the same gateway: who leaves, who floods, and what the others get. Simulated."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import partial
from types import SimpleNamespace

import pytest
from simulated_server import Asked, Clock, Server

from deployments.gateway.clients import CLIENT_MEMORY_S, MOST_CLIENTS, UNKNOWN, RecentClients, client_of
from deployments.gateway.utterances.admission import ROOM, SHARE, Admission, Overloaded
from deployments.pipeline import Effort

NEIGHBOURS, REQUESTS, RATE = 10, 75, 2.5  # clients, and what they ask together, a second


def neighbours_of(server: Server, within_s: float = 3.0, one_address: bool = False) -> list[Asked]:
    """What they get: utterances of 3 s, half of what a server with 50 pieces of work a second does."""
    asked: list[Asked] = []
    for number in range(REQUESTS):
        client = "leaver" if one_address else f"neighbour {number % NEIGHBOURS}"
        ask = partial(server.ask, client, 3, within_s)
        server.at(1 + number / RATE, lambda ask=ask: asked.append(ask()))  # type: ignore[misc]
    return asked


def keep_leaving(server: Server, after_s: float = 0.9) -> None:
    """A client that sends 30 s of speech, leaves, and begins anew."""

    def again(asked: Asked) -> None:
        server.at(server.clock.now + (asked.refused.retry_after_s if asked.refused else 0.01), send)

    def send() -> None:
        if server.clock.now < 1 + REQUESTS / RATE:
            server.ask("leaver", 30, within_s=25.0, leaves_after_s=after_s, then=again)

    server.at(0.0, send)


@pytest.mark.parametrize("one_address", [False, True])
@pytest.mark.parametrize("work_per_s", [50, 60, 70, 100])
def test_one_client_that_leaves_after_each_request_costs_its_neighbours_nothing(
    work_per_s: float, one_address: bool
) -> None:
    """30 s of speech, gone after 0.9 s: at 50 a second, 20 of 75 were whole before, 46 without words, 4 refused."""
    server = Server(work_per_s, degrade=True)
    neighbours = neighbours_of(server, one_address=one_address)
    keep_leaving(server)
    server.run()
    assert sum(asked.ended == "left" for asked in server.asked) >= (1 if work_per_s < 100 else 0)
    assert Counter(asked.is_whole for asked in neighbours) == {True: REQUESTS}


@pytest.mark.parametrize("connections", [4, 16])
@pytest.mark.parametrize("work_per_s", [50, 70, 100])
def test_many_connections_of_one_client_take_no_more_than_its_share(work_per_s: float, connections: int) -> None:
    """Whoever comes while it is alone may find the room full; from then on it has its share and they have theirs."""
    server = Server(work_per_s, degrade=True)
    neighbours = neighbours_of(server)
    for _ in range(connections):
        keep_leaving(server)
    server.run()
    found_full = [asked for asked in neighbours if not asked.is_whole]
    assert len(found_full) <= 3
    assert all(asked.at < 5.0 for asked in found_full)
    refused = Counter(asked.refused.reason for asked in server.asked if asked.refused)
    assert refused[SHARE] > 0
    assert refused[ROOM] == 0


def test_without_a_share_the_same_client_takes_everything() -> None:
    server = Server(50, degrade=True, client_share=1.0)
    neighbours = neighbours_of(server)
    for _ in range(16):
        keep_leaving(server)
    server.run()
    assert sum(asked.is_whole for asked in neighbours) < REQUESTS / 3


def test_a_client_that_is_alone_may_use_all_the_room() -> None:
    counts = []
    for share in (0.5, 1.0):
        server = Server(50, client_share=share)
        counts.append(sum(server.ask("only", 3, within_s=10.0).refused is None for _ in range(100)))
    assert counts[0] == counts[1] > 10


def test_a_share_is_of_the_time_that_others_wait_and_its_refusal_says_so() -> None:
    clock = Clock()
    gateway = Admission(False, clock, client_share=0.5)
    gateway.admit(3, 4.0, client="other")
    with ExitStack() as running:

        def admit_many() -> None:
            for _ in range(1000):
                running.enter_context(gateway.admit(3, 25.0, client="many").running())

        with pytest.raises(Overloaded, match="this client has its share") as refused:
            admit_many()
        lane = gateway.lanes[0]
        assert lane.expected_s(0.0) <= 0.5 * 4.0 < lane.expected_s(10.0)
        assert lane.state().requests > 1
        assert gateway.admit(3, 4.0, client="other").effort is Effort.WHOLE  # half of the room is left
        assert refused.value.reason == SHARE
        assert 1 <= refused.value.retry_after_s <= 4
        clock.now += 0.1
        assert gateway.admit(3, 25.0, client="new").effort is Effort.WHOLE


def test_one_request_at_a_time_is_let_in_whatever_its_size() -> None:
    clock = Clock()
    gateway = Admission(False, clock, client_share=0.1)
    gateway.admit(1, 2.0, client="other")
    first = gateway.admit(30, 25.0, client="long")
    with first.running(), pytest.raises(Overloaded):
        gateway.admit(30, 25.0, client="long")
    assert gateway.admit(30, 25.0, client="long").effort is Effort.WHOLE


def test_others_that_ask_for_the_impossible_take_no_room() -> None:
    """Their millisecond counts as a second, of which a client may fill half."""
    clock = Clock()
    gateway = Admission(False, clock, client_share=0.5)
    for _ in range(20):
        with gateway.admit(3, 25.0, client="many").running():
            clock.now += 0.1
    with pytest.raises(Overloaded):
        gateway.admit(3, 0.001, client="hasty")
    with gateway.admit(3, 25.0, client="many").running():
        assert gateway.admit(3, 25.0, client="many").effort is Effort.WHOLE


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002::/64"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("testclient", "testclient"),
        ("", UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_a_client_is_an_address_or_a_network(address: str | None, client: str) -> None:
    request = SimpleNamespace(client=None if address is None else SimpleNamespace(host=address))
    assert client_of(request) == client  # type: ignore[arg-type]


def test_clients_are_forgotten() -> None:
    clock = Clock()
    recent = RecentClients(clock)
    recent.add("a", 3.0)
    recent.add("b", 5.0)
    assert recent.patience_of_others_s("a") == 5.0
    assert recent.patience_of_others_s("c") == 3.0
    clock.now += CLIENT_MEMORY_S + 0.1
    assert recent.patience_of_others_s("c") is None
    for number in range(3 * MOST_CLIENTS):
        recent.add(f"{number}", 1.0)
    assert len(recent._asked) == MOST_CLIENTS
