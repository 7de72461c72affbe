"""The devices: which kind each one is, on which radio, how it behaves; and what their exchanges cost their radios.

A fleet is a few arrays: a hundred thousand devices take about a megabyte. The energy is worked out after the run, from
each device's exchanges in time order, because what a radio's tail costs depends on when the next exchange comes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from amser.client.exchange.connection import KEPT_ALIVE_S
from edge_sim.exchange import Exchange, simulate
from edge_sim.hardware import load_hardware
from edge_sim.protocol import ANSWER_DATAGRAM, TcpStack
from edge_sim.radio import Radio, State, load_radio
from load_tests.fleet.payloads import Codec
from load_tests.fleet.scenario import Misbehaviour, Scenario
from load_tests.report.record import Sample
from load_tests.report.summary import GOOD

CLOCK_ERROR_S: Final = 0.5  # standard deviation of a device's clock: what SNTP leaves between two synchronisations
FLOOD_ADDRESS: Final = "203.0.113.66"  # of TEST-NET-3 (RFC 5737)
PLACES: Final = 1 << 12  # where in the conversation a device may begin; it is taken modulo its length


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a fleet.

    Attributes:
        number: from 0 on.
        hardware, radio: their names.
        codec: name and setting.
        behaviour: `good`, or that of a `scenario.Misbehaviour`.
        clock_error_s: what its clock is ahead.
        place: where in the conversation it begins.
    """

    number: int
    hardware: str
    radio: str
    codec: Codec
    behaviour: str
    clock_error_s: float
    place: int

    @property
    def device_id(self) -> str:
        return f"fleet-{self.number}"

    @property
    def address(self) -> str:
        """IPv4, of its own; those that flood share one."""
        if self.behaviour == Misbehaviour.FLOODING:
            return FLOOD_ADDRESS
        return f"10.{self.number >> 16}.{self.number >> 8 & 255}.{self.number & 255}"


class Fleet:
    """Devices whose kinds and behaviours have the scenario's shares, to the nearest device. The same for a seed.

    Args:
        scenario: its devices, mix and misbehaviour.
        seed: who is what.

    Raises:
        edge_sim.constants.UnknownName: a kind that does not exist.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])  # another stream than that of the schedule
        self._kinds = tuple(load_hardware(name) for name in scenario.mix)
        self._behaviours = (GOOD, *scenario.misbehaviour)
        bad = tuple(scenario.misbehaviour.values())
        count = scenario.devices
        self._kind = _shared_out(count, tuple(scenario.mix.values()), rng)
        self._behaviour = _shared_out(count, (max(0.0, 1 - sum(bad)), *bad), rng)
        self._radio = rng.integers(0, 256, count, np.uint8)
        self._clock_error_s = rng.normal(0, CLOCK_ERROR_S, count).astype(np.float32)
        self._place = rng.integers(0, PLACES, count, np.uint16)
        self._seed = seed

    def __len__(self) -> int:
        return self._kind.size

    def __getitem__(self, number: int) -> Member:
        kind = self._kinds[self._kind[number]]
        return Member(
            number,
            kind.name,
            kind.radios[self._radio[number] % len(kind.radios)],
            kind.codec,
            str(self._behaviours[self._behaviour[number]]),
            float(self._clock_error_s[number]),
            int(self._place[number]),
        )

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """Every codec setting in the fleet."""
        return tuple(dict.fromkeys(kind.codec for kind in self._kinds))

    def speakers(self, arrivals: int) -> NDArray[np.int64]:
        """Which device each arrival belongs to. Each device is a Poisson process then, as the whole fleet is."""
        return np.random.default_rng([self._seed, 2]).integers(0, len(self), arrivals)


def _shared_out(count: int, shares: Sequence[float], rng: np.random.Generator) -> NDArray[np.uint8]:
    """An index into `shares` for each of `count`, in random order; a share that is not 0 gets its nearest number."""
    ends = np.rint(count * np.cumsum(shares) / np.sum(shares)).astype(int)
    return rng.permutation(np.repeat(np.arange(len(shares), dtype=np.uint8), np.diff(ends, prepend=0)))


def radio_usage(samples: Iterable[Sample]) -> list[Sample]:
    """Samples with bytes and joules of their radios, in place of the bytes of the bodies that they come with.

    What a radio would have drawn while idle is left out. A request that never left its device costs nothing.
    """
    found = list(samples)
    of_each: Mapping[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(found):
        if sample.sent_s is not None and sample.bytes_up:
            of_each[sample.device].append(index)
    for indices in of_each.values():
        indices.sort(key=lambda index: found[index].sent_s or 0.0)
        radio = _radio(found[indices[0]].radio)
        session = simulate(radio, (_exchange(found[index], radio) for index in indices))
        for index, outcome in zip(indices, session.outcomes, strict=True):
            joules = sum(value for state, value in outcome.joules.items() if state is not State.IDLE)
            up, down = outcome.bytes_up, outcome.bytes_down
            found[index] = replace(found[index], bytes_up=up, bytes_down=down, joules=joules)
    return found


@cache
def _radio(name: str) -> Radio:
    radio = load_radio(name)
    if isinstance(radio.stack, TcpStack):
        return replace(radio, stack=replace(radio.stack, idle_limit_s=KEPT_ALIVE_S))
    return radio


def _exchange(sample: Sample, radio: Radio) -> Exchange:
    assert sample.sent_s is not None
    down = min(sample.bytes_down, ANSWER_DATAGRAM) if radio.has_gateway else sample.bytes_down
    return Exchange(sample.sent_s, sample.bytes_up, down, sample.service_s or 0.0)
