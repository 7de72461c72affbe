"""What a radio draws, by hand-computed numbers; and the constants it is computed from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sim.constants import ASSUMPTION, BadConstants, UnknownName, read_yaml, sourced
from edge_sim.exchange import Exchange, Session, simulate
from edge_sim.hardware import DEVICES, Supply, hardware_names, load_hardware
from edge_sim.link import ConstantLink, LoRaLink, Trace, TraceLink
from edge_sim.protocol import DatagramStack, TcpStack
from edge_sim.radio import (
    RADIOS,
    Power,
    Radio,
    RadioStateMachine,
    State,
    joules_by_state,
    load_radio,
    radio_names,
)

# Round numbers: promotion 0.5 s at 2 W; sending 1 W and 1 W per Mbit/s; receiving half that; tail 10 s at 0.5 W
POWER = Power(500, 2000, 1000, 1000, 500, 500, 10_000, 500, 10)
BARE = DatagramStack(10**9, 0, 0, 0)  # a message is a packet, without headers
PLAIN = Radio("plain", POWER, ConstantLink(1, 1, 100), BARE)


def states(session: Session) -> list[State]:
    return [interval.state for interval in session.timeline]


def exchanges(*times: float, up: int = 125_000, down: int = 12_500, server_s: float = 0.0) -> list[Exchange]:
    return [Exchange(at_s, up, down, server_s) for at_s in times]


def on_tcp(radio: str, **options: Any) -> Radio:
    return replace(load_radio(radio), stack=TcpStack(**options))


def test_one_exchange_by_hand() -> None:
    session = simulate(PLAIN, exchanges(3.0, server_s=0.4))
    (outcome,) = session.outcomes
    assert outcome.sent_s == pytest.approx(3 + 0.5 + 1)  # promotion, 1 Mbit at 1 Mbit/s
    assert outcome.answered_s == pytest.approx(4.5 + 0.1 + 0.4 + 0.1)  # round trip, cluster, 0.1 Mbit
    assert states(session) == [State.PROMOTION, State.ACTIVE, State.TAIL, State.ACTIVE, State.TAIL]
    assert outcome.joules == pytest.approx(
        {
            State.IDLE: 0.0,
            State.PROMOTION: 0.5 * 2,
            State.ACTIVE: 1 * (1 + 1) + 0.1 * (0.5 + 0.5),
            State.TAIL: 0.5 * 0.5 + 10 * 0.5,
        }
    )


def test_the_next_exchange_cuts_the_tail_short_and_needs_no_promotion() -> None:
    session = simulate(PLAIN, exchanges(0.0, 5.0))
    assert states(session).count(State.PROMOTION) == 1
    first, second = session.outcomes
    assert first.answered_s == pytest.approx(1.7)
    assert first.joules[State.TAIL] == pytest.approx(0.5 * (0.1 + 5.0 - 1.7))
    assert second.sent_s == pytest.approx(6.0)
    assert second.joules[State.PROMOTION] == 0
    assert second.joules[State.TAIL] == pytest.approx(0.5 * (0.1 + 10))


def test_after_the_tail_the_radio_is_idle_and_must_be_promoted_again() -> None:
    session = simulate(PLAIN, exchanges(0.0, 20.0))
    assert states(session).count(State.PROMOTION) == 2
    assert session.joules[State.IDLE] == pytest.approx(0.010 * (20 - 11.7))
    assert session.radio_joules == pytest.approx(sum(session.joules.values()) - session.joules[State.IDLE])


def test_a_cluster_slower_than_the_tail_costs_a_second_promotion() -> None:
    session = simulate(PLAIN, exchanges(0.0, server_s=30.0))
    assert states(session) == [
        State.PROMOTION, State.ACTIVE, State.TAIL, State.IDLE, State.PROMOTION, State.ACTIVE, State.TAIL,
    ]  # fmt: skip
    assert session.outcomes[0].answered_s == pytest.approx(1.5 + 0.1 + 30 + 0.5 + 0.1)


def test_a_tail_of_two_steps() -> None:
    machine = RadioStateMachine(replace(POWER, second_tail_ms=2000, second_tail_mw=100))
    machine.transfer(1.0, "up", 1, 0)
    machine.fall_asleep()
    assert [(each.start_s, each.end_s, each.watts) for each in machine.timeline[1:]] == [(1, 11, 0.5), (11, 13, 0.1)]
    assert machine.wake(12.9) == 13.0


def test_an_exchange_waits_for_the_one_before() -> None:
    session = simulate(PLAIN, exchanges(0.0, 0.1))
    assert session.outcomes[1].sent_s == pytest.approx(1.7 + 1)
    assert session.outcomes[1].seconds == pytest.approx(1.7 + 1 + 0.1 + 0.1 - 0.1)


def test_exchanges_out_of_order_are_refused_and_none_cost_nothing() -> None:
    with pytest.raises(ValueError, match="comes after"):
        simulate(PLAIN, exchanges(1.0, 0.5))
    nothing = simulate(PLAIN, [])
    assert (nothing.outcomes, nothing.radio_joules) == ((), 0)


radio_and_gaps = st.tuples(
    st.sampled_from(radio_names()),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50_000), st.floats(0, 15)), min_size=1, max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(radio_and_gaps)
def test_the_timeline_has_no_gaps_and_every_joule_belongs_to_one_exchange(
    given_: tuple[str, list[tuple[float, int, float]]],
) -> None:
    name, gaps = given_
    at_s, wanted = 0.0, []
    for gap, size, server_s in gaps:
        at_s += gap
        wanted.append(Exchange(at_s, size, 700, server_s))
    session = simulate(load_radio(name), wanted)
    for before, after in zip(session.timeline, session.timeline[1:], strict=False):
        assert before.end_s == after.start_s
    by_hand = math.fsum(each.watts * (each.end_s - each.start_s) for each in session.timeline)
    assert sum(session.joules.values()) == pytest.approx(by_hand)
    assert sum(sum(outcome.joules.values()) for outcome in session.outcomes) == pytest.approx(by_hand)
    for outcome in session.outcomes:
        assert outcome.at_s < outcome.sent_s < outcome.answered_s


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(radio_names()), st.integers(1, 200_000), st.integers(0, 50_000), st.booleans())
def test_more_bytes_never_cost_less(name: str, size: int, more: int, keep_alive: bool) -> None:
    radio = load_radio(name)
    if isinstance(radio.stack, TcpStack):
        radio = replace(radio, stack=replace(radio.stack, keep_alive=keep_alive))
    small, large = (simulate(radio, [Exchange(0.0, each, 100)]) for each in (size, size + more))
    assert small.bytes_over_radio <= large.bytes_over_radio
    assert small.outcomes[0].sent_s <= large.outcomes[0].sent_s + 1e-9
    # A larger message may use up a round trip that a smaller one spends in the tail at less power, never at more
    assert small.radio_joules <= large.radio_joules + 1e-9


def test_on_lte_the_tail_dwarfs_the_bytes_and_on_lora_the_bytes_are_everything() -> None:
    lte, lora = (simulate(load_radio(name), [Exchange(0.0, 10_000, 8, 0.3)]).joules for name in ("lte", "lora"))
    assert lte[State.TAIL] > 50 * lte[State.ACTIVE]
    assert lora[State.ACTIVE] > 0.95 * sum(lora.values())


def test_lte_draws_what_the_paper_says() -> None:
    radio = replace(load_radio("lte"), stack=BARE)
    session = simulate(radio, [Exchange(0.0, 750_000, 1)])  # 1 s at 6 Mbit/s
    assert session.timeline[0].joules == pytest.approx(0.2601 * 1.2107)
    assert session.timeline[1].watts == pytest.approx(1.28804 + 6 * 0.43839)
    assert session.timeline[-1].joules == pytest.approx(11.576 * 1.060)


@pytest.mark.parametrize("gap_s", [2.0, 60.0])
def test_keeping_the_connection_saves_bytes_time_and_energy(gap_s: float) -> None:
    wanted = exchanges(0.0, gap_s, 2 * gap_s, up=10_000, down=700, server_s=0.3)
    kept, new, resumed = (
        simulate(on_tcp("lte", **options), wanted)
        for options in ({}, {"keep_alive": False}, {"keep_alive": False, "resumed": True})
    )
    assert kept.bytes_over_radio < resumed.bytes_over_radio < new.bytes_over_radio
    assert kept.radio_joules < resumed.radio_joules <= new.radio_joules
    # TCP and TLS take a round trip each
    assert new.outcomes[1].seconds - kept.outcomes[1].seconds == pytest.approx(2 * 0.070, rel=0.1)


def test_a_kept_connection_that_idled_too_long_is_opened_anew() -> None:
    wanted = exchanges(0.0, 4.0, 20.0, up=1000, down=700)
    first, soon, late = simulate(on_tcp("wifi", idle_limit_s=5.0), wanted).outcomes
    assert soon.bytes_up < first.bytes_up == late.bytes_up


def test_tls_costs_a_round_trip_and_its_bytes() -> None:
    plain, encrypted = (
        simulate(on_tcp("wifi", url=url, tls=tls), [Exchange(0.0, 1000, 700)])
        for url, tls in (("http://emotion.example.org", False), ("https://emotion.example.org", True))
    )
    rtt_s = load_radio("wifi").link.rtt_ms / 1000
    more = encrypted.outcomes[0].answered_s - plain.outcomes[0].answered_s
    assert rtt_s < more < 1.3 * rtt_s
    assert 2000 < encrypted.bytes_over_radio - plain.bytes_over_radio < 3500


def test_a_websocket_is_cheaper_than_http_from_the_second_utterance_on() -> None:
    wanted = exchanges(0.0, 2.0, up=1000, down=700)
    http, websocket = (simulate(on_tcp("wifi", websocket=flag), wanted).outcomes for flag in (False, True))
    assert websocket[0].seconds - http[0].seconds == pytest.approx(0.030, abs=0.003)  # the upgrade's round trip
    assert websocket[1].bytes_up < http[1].bytes_up - 200


def test_slow_start_takes_a_round_trip_for_each_doubling() -> None:
    fast = replace(load_radio("wifi"), link=ConstantLink(10_000, 10_000, 100), power=replace(POWER, promotion_ms=0))
    opened = replace(fast, stack=TcpStack(tls=False))

    def round_trips(size: int) -> float:
        return (simulate(opened, [Exchange(0.0, size, 1)]).outcomes[0].sent_s - 0.1) / 0.1

    header = 300  # of HTTP, at most
    assert round_trips(10 * 1448 - header) == pytest.approx(0, abs=0.01)
    assert round_trips(10 * 1448 + 1) == pytest.approx(1, abs=0.01)
    assert round_trips(30 * 1448 + 1) == pytest.approx(2, abs=0.01)
    assert round_trips(70 * 1448 + 1) == pytest.approx(3, abs=0.01)


def test_the_window_stays_open_between_exchanges_that_follow_each_other() -> None:
    link = ConstantLink(10_000, 10_000, 100)
    radio = replace(load_radio("wifi"), link=link, stack=TcpStack(tls=False))
    soon = simulate(radio, exchanges(0.0, 0.0, up=40_000, down=1)).outcomes
    late = simulate(radio, exchanges(0.0, 30.0, up=40_000, down=1)).outcomes
    assert soon[1].sent_s - soon[0].answered_s < 0.01
    assert late[1].sent_s - 30.0 > 0.1


def test_a_lora_message_takes_a_hundred_times_its_airtime_for_each_packet_but_the_last() -> None:
    radio = load_radio("lora")
    assert isinstance(radio.link, LoRaLink)
    (outcome,) = simulate(radio, [Exchange(0.0, 660, 8)]).outcomes  # three packets of 220 bytes, 2 of fragmentation
    airtime_s = radio.link.airtime_s(235)
    assert outcome.bytes_up == 3 * 235
    assert outcome.sent_s == pytest.approx((100 + 100 + 1) * airtime_s)
    assert outcome.answered_s - outcome.sent_s == pytest.approx(1.0 + radio.link.airtime_s(21))
    two = simulate(radio, [Exchange(0.0, 220, 8), Exchange(0.0, 220, 8)])
    assert two.outcomes[1].sent_s == pytest.approx(101 * radio.link.airtime_s(233))


def test_lora_and_ble_cost_what_is_commonly_said_of_a_byte() -> None:
    lora, ble = (simulate(load_radio(name), [Exchange(0.0, 10_000, 1)]) for name in ("lora", "ble"))
    assert lora.joules[State.ACTIVE] / 10_000 == pytest.approx(150e-6, rel=0.15)
    assert ble.joules[State.ACTIVE] / 10_000 == pytest.approx(0.3e-6, rel=0.2)


def test_a_trace_stands_in_for_a_constant_link() -> None:
    radio = replace(PLAIN, link=TraceLink(Trace((12,)), Trace((12,)), 100))  # 1500 bytes in 12 ms: 1 Mbit/s
    constant, replayed = (simulate(each, exchanges(0.0)).outcomes[0] for each in (PLAIN, radio))
    assert replayed.answered_s == pytest.approx(constant.answered_s, abs=0.03)
    assert replayed.joules[State.ACTIVE] == pytest.approx(constant.joules[State.ACTIVE], rel=0.03)


@pytest.mark.parametrize(("file", "kind"), [(RADIOS, "radios"), (DEVICES, "devices")])
def test_every_constant_has_a_unit_in_its_name_and_a_source(file: str, kind: str) -> None:
    units = ["ms", "mw", "mbit_s", "us", "s", "percent", "khz", "bytes", "joules", "watts"]
    counts = {"packets_per_event", "spreading_factor", "coding_rate", "preamble_symbols", "cpu_slowdown"}
    document = read_yaml(file)

    def constants(section: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for name, entry in section.items():
            if isinstance(entry, dict):
                found += [(name, entry)] if "value" in entry else constants(entry)
            else:
                assert not isinstance(entry, int | float), f"{name} has no source"
        return found

    listed = constants(document[kind])
    assert len(listed) > 10
    for name, entry in listed:
        assert name in counts or any(name.endswith(f"_{unit}") for unit in units), name
        source = entry["source"]
        assert source in document["sources"] or len(source.removeprefix(ASSUMPTION)) > 5, name
        assert source in document["sources"] or source.startswith(ASSUMPTION), name


def test_every_radio_and_device_loads() -> None:
    assert radio_names() == ("lte", "3g", "wifi", "ble", "lora")
    assert hardware_names() == ("phone", "speaker", "ear-bud", "lora-sensor")
    assert load_hardware("phone").radio().name == "lte"
    assert load_hardware("phone").radio("wifi").name == "wifi"
    assert load_hardware("lora-sensor").radio().has_gateway


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownName, match="no radio '5g'; there are lte, 3g, wifi, ble, lora"):
        load_radio("5g")
    with pytest.raises(UnknownName, match="no device 'watch'; there are phone, speaker, ear-bud, lora-sensor"):
        load_hardware("watch")
    with pytest.raises(UnknownName, match="no ear-bud radio 'lte'; there are ble"):
        load_hardware("ear-bud").radio("lte")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"battery_joules": {"value": 1}}, "needs a value and a source"),
        ({"battery_joules": {"value": 1, "source": "hearsay"}}, "neither in `sources` nor an assumption"),
        ({"battery_joules": {"value": -1, "source": "paper"}}, "no number from 0 on"),
        ({"battery_joules": {"value": "1 J", "source": "paper"}}, "no number from 0 on"),
        ({"weight_kg": {"value": 1, "source": "paper"}}, "no constant weight_kg"),
    ],
)
def test_a_constant_that_cannot_be_used_is_named(change: dict[str, Any], message: str) -> None:
    section = {name: {"value": 1, "source": "paper"} for name in ("battery_joules", "compute_watts", "cpu_slowdown")}
    sourced(Supply, section, {"paper": "a paper"}, "made")
    with pytest.raises(BadConstants, match=message):
        sourced(Supply, section | change, {"paper": "a paper"}, "made")
    with pytest.raises(BadConstants, match="made: lacks cpu_slowdown"):
        sourced(Supply, {name: section[name] for name in list(section)[:2]}, {"paper": "a paper"}, "made")


def test_computing_costs_measured_time_times_slowdown_times_watts() -> None:
    supply = Supply(battery_joules=600, compute_watts=2, cpu_slowdown=5)
    assert supply.compute_seconds(0.1) == pytest.approx(0.5)
    assert supply.compute_joules(0.1) == pytest.approx(1.0)
    assert supply.battery_share(6) == pytest.approx(0.01)


def test_joules_by_state_lists_every_state() -> None:
    assert joules_by_state([]) == dict.fromkeys(State, 0.0)
