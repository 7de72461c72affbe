"""What a radio draws, state by state: idle → promotion → active → tail → idle (Huang et al., MobiSys 2012).

Active power is a base plus a share for throughput in each direction. The tail is what a network keeps a radio awake
for after its last packet; it ends early where the next packet comes, and that one needs no promotion then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from edge_sim.constants import BadConstants, UnknownName, read_yaml, sourced
from edge_sim.link import BleLink, ConstantLink, Direction, Link, LoRaLink
from edge_sim.protocol import DatagramStack, Stack, TcpStack

RADIOS: Final = "radios.yaml"
_LINKS: Final[dict[str, Any]] = {"internet": ConstantLink, "ble": BleLink, "lora": LoRaLink}


class State(StrEnum):
    IDLE = "idle"
    PROMOTION = "promotion"
    ACTIVE = "active"
    TAIL = "tail"


@dataclass(frozen=True, slots=True)
class Interval:
    """Time in one state at one power."""

    state: State
    start_s: float
    end_s: float
    watts: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    @property
    def joules(self) -> float:
        return self.watts * self.seconds


@dataclass(frozen=True, slots=True)
class Power:
    """What a radio draws. Milliwatts; 1 mW per Mbit/s is 1 nJ a bit.

    Attributes:
        promotion_ms, promotion_mw: from idle to active.
        sending_mw, sending_mw_per_mbit_s: while packets go up: a base, and what throughput adds.
        receiving_mw, receiving_mw_per_mbit_s: while packets come down.
        tail_ms, tail_mw: awake after the last packet.
        second_tail_ms, second_tail_mw: a lower step of it (3G's FACH).
        idle_mw: asleep, paging or beacons included.
    """

    promotion_ms: float
    promotion_mw: float
    sending_mw: float
    sending_mw_per_mbit_s: float
    receiving_mw: float
    receiving_mw_per_mbit_s: float
    tail_ms: float
    tail_mw: float
    idle_mw: float
    second_tail_ms: float = 0.0
    second_tail_mw: float = 0.0

    @property
    def tail_s(self) -> float:
        """Seconds of both steps."""
        return (self.tail_ms + self.second_tail_ms) / 1000

    def active_watts(self, seconds: float, direction: Direction, up_bytes: int, down_bytes: int) -> float:
        """Mean power while so many bytes are transferred; `direction` is that of the data, the rest acknowledges it."""
        base = self.sending_mw if direction == "up" else self.receiving_mw
        megabits = self.sending_mw_per_mbit_s * up_bytes + self.receiving_mw_per_mbit_s * down_bytes
        return (base + 8e-6 * megabits / seconds) / 1000


class RadioStateMachine:
    """A radio through time, idle at first. Times must not decrease.

    Args:
        power: what its states draw.
        start_s: when the timeline begins.
    """

    def __init__(self, power: Power, start_s: float = 0.0) -> None:
        self.power = power
        self.timeline: list[Interval] = []
        self.now_s = start_s
        self._active_until_s = -math.inf

    def rest(self, until_s: float) -> None:
        """Nothing is sent until then: what is left of the tail, then idle."""
        power, end_s = self.power, self._active_until_s
        for milliseconds, milliwatts in (
            (power.tail_ms, power.tail_mw),
            (power.second_tail_ms, power.second_tail_mw),
        ):
            end_s += milliseconds / 1000
            self._spend(State.TAIL, min(end_s, until_s), milliwatts / 1000)
        self._spend(State.IDLE, until_s, power.idle_mw / 1000)

    def wake(self, at_s: float) -> float:
        """Something is to be sent or received then.

        Returns:
            The second at which the radio is ready: after the promotion, where it was idle.
        """
        self.rest(at_s)
        if self.now_s > self._active_until_s + self.power.tail_s:
            self._spend(State.PROMOTION, self.now_s + self.power.promotion_ms / 1000, self.power.promotion_mw / 1000)
        return self.now_s

    def transfer(self, until_s: float, direction: Direction, up_bytes: int, down_bytes: int) -> None:
        """Bytes are transferred from now until then, which is later. The radio must be awake."""
        watts = self.power.active_watts(until_s - self.now_s, direction, up_bytes, down_bytes)
        self._spend(State.ACTIVE, until_s, watts)
        self._active_until_s = until_s

    def fall_asleep(self) -> None:
        """The tail after the last packet, to its end."""
        if self._active_until_s > -math.inf:
            self.rest(max(self.now_s, self._active_until_s + self.power.tail_s))

    def _spend(self, state: State, until_s: float, watts: float) -> None:
        if until_s > self.now_s:
            self.timeline.append(Interval(state, self.now_s, until_s, watts))
            self.now_s = until_s


def joules_by_state(timeline: Sequence[Interval]) -> dict[State, float]:
    """Joules of every state, also of those that did not occur."""
    return {state: math.fsum(each.joules for each in timeline if each.state is state) for state in State}


@dataclass(frozen=True, slots=True)
class Radio:
    """A radio, its link and how messages travel over it. `dataclasses.replace` overrides any of it.

    Attributes:
        name: in radios.yaml.
        power: what its states draw.
        link: throughput and round trip.
        stack: protocol headers.
    """

    name: str
    power: Power
    link: Link
    stack: Stack

    @property
    def has_gateway(self) -> bool:
        """A gateway speaks HTTP for the device."""
        return isinstance(self.stack, DatagramStack)


def radio_names() -> tuple[str, ...]:
    """The radios of radios.yaml."""
    return tuple(read_yaml(RADIOS)["radios"])


def load_radio(name: str) -> Radio:
    """A radio of radios.yaml.

    Raises:
        edge_sim.constants.UnknownName: there is none of that name.
        edge_sim.constants.BadConstants: its constants cannot be used.
    """
    document = read_yaml(RADIOS)
    radios, sources = document["radios"], document["sources"]
    if name not in radios:
        raise UnknownName("radio", name, radios)
    section = radios[name]
    power = sourced(Power, section["power"], sources, f"{name}.power")
    kind = section["link"].get("kind")
    if kind not in _LINKS:
        raise BadConstants(f"{name}.link.kind: {kind!r} is none of {', '.join(_LINKS)}")
    link: Link = sourced(_LINKS[kind], section["link"], sources, f"{name}.link")
    if kind == "internet":
        return Radio(name, power, link, TcpStack())
    return Radio(name, power, link, sourced(DatagramStack, section["packet"], sources, f"{name}.packet"))
