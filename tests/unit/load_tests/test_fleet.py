"""The fleet: shares to the nearest device, the same for a seed, and energy from each device's own history."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edge_sim.exchange import Exchange, simulate
from edge_sim.hardware import load_hardware
from edge_sim.radio import State, load_radio
from load_tests.fleet.members import Fleet, radio_usage
from load_tests.fleet.scenario import Scenario, load_scenario
from load_tests.report.record import DROPPED, OK, Sample

MIXED = load_scenario("mixed-devices").adjusted(devices=1000)
BAD = load_scenario("bad-clients").adjusted(devices=1000)


def members(scenario: Scenario, seed: int = 1) -> list[tuple[object, ...]]:
    fleet = Fleet(scenario, seed)
    return [(m.hardware, m.radio, m.behaviour, m.clock_error_s, m.place) for m in map(fleet.__getitem__, range(1000))]


def test_the_mix_is_that_of_the_scenario() -> None:
    counts = Counter(member[0] for member in members(MIXED))
    assert counts == {"phone": 500, "speaker": 200, "ear-bud": 200, "lora-sensor": 100}


def test_so_many_devices_misbehave() -> None:
    counts = Counter(member[2] for member in members(BAD))
    assert counts == {"good": 750, "broken": 100, "slow": 50, "oversized": 50, "vanishing": 50}


def test_each_device_has_a_radio_and_the_codec_of_its_hardware() -> None:
    fleet = Fleet(MIXED, 1)
    for number in range(len(fleet)):
        member, hardware = fleet[number], load_hardware(fleet[number].hardware)
        assert member.radio in hardware.radios
        assert member.codec == hardware.codec
    assert set(fleet.codecs) == {("klt", "standard"), ("klt", "low"), ("klt", "38")}
    assert {member[1] for member in members(MIXED) if member[0] == "phone"} == {"lte", "wifi", "3g"}


def test_a_seed_is_a_fleet() -> None:
    assert members(MIXED, 1) == members(MIXED, 1)
    assert members(MIXED, 1) != members(MIXED, 2)


def test_every_device_speaks_as_often_as_any_other() -> None:
    spoken = np.bincount(Fleet(MIXED, 1).speakers(100_000), minlength=1000)
    assert spoken.min() > 50
    assert spoken.max() < 150


def test_a_hundred_thousand_devices_are_small() -> None:
    fleet = Fleet(MIXED.adjusted(devices=100_000), 1)
    size = sum(value.nbytes for value in vars(fleet).values() if isinstance(value, np.ndarray))
    assert size < 1_000_000


def sample(sent_s: float, device: int = 0, radio: str = "lte", up: int = 800, down: int = 700) -> Sample:
    return Sample(sent_s, sent_s, sent_s + 0.3, 200, OK, device, "phone", radio, bytes_up=up, bytes_down=down)


def test_bytes_and_joules_are_those_of_the_radios_model() -> None:
    expected = simulate(load_radio("lte"), [Exchange(10.0, 800, 700, 0.3)]).outcomes[0]
    (found,) = radio_usage([sample(10.0)])
    assert (found.bytes_up, found.bytes_down) == (expected.bytes_up, expected.bytes_down)
    assert found.bytes_up > 800
    assert found.joules == pytest.approx(sum(j for state, j in expected.joules.items() if state is not State.IDLE))


def test_a_tail_that_the_next_exchange_cuts_short_costs_less() -> None:
    alone = radio_usage([sample(10.0)])[0].joules
    first, second = radio_usage([sample(10.0), sample(12.0)])
    assert first.joules < 0.6 * alone
    assert second.joules == pytest.approx(alone, rel=0.25)


def test_the_history_is_each_devices_own_and_its_order_that_of_time() -> None:
    together = radio_usage([sample(12.0), sample(10.0, device=1), sample(10.0)])
    assert together[1].joules == pytest.approx(radio_usage([sample(10.0)])[0].joules)
    assert together[2].joules < together[1].joules


def test_a_connection_that_was_idle_for_too_long_is_made_again() -> None:
    soon, late = radio_usage([sample(0.0), sample(50.0)])[1], radio_usage([sample(0.0), sample(60.0)])[1]
    assert late.bytes_up > soon.bytes_up + 500


def test_what_was_never_sent_costs_nothing() -> None:
    dropped = replace(sample(1.0), sent_s=None, done_s=None, outcome=DROPPED, bytes_up=0, bytes_down=0)
    refused = replace(sample(2.0), status=0, outcome="connection refused", bytes_up=0, bytes_down=0)
    assert radio_usage([dropped, refused]) == [dropped, refused]


def test_a_gateway_passes_a_few_bytes_of_an_answer_on() -> None:
    (found,) = radio_usage([sample(0.0, radio="lora", up=60)])
    assert found.bytes_down < 100
