"""Requests and answers over a radio: when each was sent and answered, bytes over the radio, joules by state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from edge_sim.link import Burst, Direction
from edge_sim.protocol import Flight
from edge_sim.radio import Interval, Radio, RadioStateMachine, State, joules_by_state

# A congestion window is forgotten after a retransmission timeout without traffic (RFC 5681, 4.1), 1 s at least (6298).
WINDOW_KEPT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer.

    Attributes:
        at_s: when the device has it ready. It waits until the exchange before it is over.
        up_bytes: of the request's body.
        down_bytes: of the answer's body.
        server_s: from the last byte of the request to the first of the answer.
    """

    at_s: float
    up_bytes: int
    down_bytes: int
    server_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an exchange.

    Attributes:
        at_s: when it was ready.
        sent_s: when the last byte of the request was sent.
        answered_s: when the last byte of the answer was there.
        bytes_up, bytes_down: over the radio, with every header, handshake and acknowledgement.
        joules: by state, from the start of this exchange to the start of the next one: its tail is its own.
    """

    at_s: float
    sent_s: float
    answered_s: float
    bytes_up: int
    bytes_down: int
    joules: dict[State, float]

    @property
    def seconds(self) -> float:
        """From ready to answered."""
        return self.answered_s - self.at_s


@dataclass(frozen=True, slots=True)
class Session:
    """All exchanges of a device, and its radio's timeline up to the end of the last tail."""

    outcomes: tuple[Outcome, ...]
    timeline: tuple[Interval, ...]

    @property
    def joules(self) -> dict[State, float]:
        """By state."""
        return joules_by_state(self.timeline)

    @property
    def radio_joules(self) -> float:
        """What the exchanges cost: all states but idle, which the radio would have been in without them."""
        return sum(joules for state, joules in self.joules.items() if state is not State.IDLE)

    @property
    def bytes_over_radio(self) -> int:
        """In both directions."""
        return sum(outcome.bytes_up + outcome.bytes_down for outcome in self.outcomes)


def simulate(radio: Radio, exchanges: Iterable[Exchange]) -> Session:
    """One exchange after the other, over one radio.

    Nothing is lost on the way. TCP's window begins at ten segments, doubles each round trip, and is never full.

    Args:
        radio: power, link and protocol (`edge_sim.radio.load_radio`).
        exchanges: in the order of `at_s`.

    Raises:
        ValueError: they are in another order.
    """
    device = _Connection(radio)
    outcomes = [device.exchange(each) for each in _in_order(exchanges)]
    return device.close(outcomes)


def _in_order(exchanges: Iterable[Exchange]) -> Iterator[Exchange]:
    previous: Exchange | None = None
    for each in exchanges:
        if previous is not None and each.at_s < previous.at_s:
            raise ValueError(f"the exchange of {each.at_s} s comes after that of {previous.at_s} s")
        previous = each
        yield each


class _Connection:
    """The device's end, through time."""

    def __init__(self, radio: Radio) -> None:
        self._radio = radio
        self._rtt_s = radio.link.rtt_ms / 1000
        self._machine: RadioStateMachine | None = None
        self._began: list[int] = []  # where in the timeline each exchange begins
        self._free_s = 0.0  # the exchange before is over
        self._is_open = False
        self._last_sent: Burst | None = None
        self._window: dict[Direction, int] = {}
        self._last_traffic: dict[Direction, float] = {}
        self._bytes: dict[Direction, int] = {"up": 0, "down": 0}

    def exchange(self, wanted: Exchange) -> Outcome:
        stack = self._radio.stack
        now_s = max(wanted.at_s, self._free_s)
        machine = self._machine = self._machine or RadioStateMachine(self._radio.power, wanted.at_s)
        machine.rest(now_s)
        self._began.append(len(machine.timeline))
        self._bytes = {"up": 0, "down": 0}
        if now_s - self._free_s > stack.idle_limit_s:
            self._is_open = False
        first = not self._is_open
        if first:
            self._window, self._last_traffic, self._is_open = {}, {}, True
            now_s = self._handshake(now_s, stack.opening())
        sent_s = now_s = self._send(now_s, "up", stack.request(wanted.up_bytes, first), in_handshake=False)
        now_s += self._rtt_s + wanted.server_s
        answer = stack.answer(wanted.down_bytes, first)
        answered_s = now_s = self._send(now_s, "down", answer, in_handshake=False)
        if not stack.keep_alive:
            self._is_open = False
            now_s = self._handshake(now_s, stack.closing())
        self._free_s = now_s
        return Outcome(wanted.at_s, sent_s, answered_s, self._bytes["up"], self._bytes["down"], {})

    def close(self, outcomes: list[Outcome]) -> Session:
        """The last tail; and each exchange gets the joules of its part of the timeline."""
        if self._machine is None:
            return Session((), ())
        self._machine.fall_asleep()
        timeline, ends = self._machine.timeline, [*self._began[1:], None]
        parts = [timeline[start:end] for start, end in zip(self._began, ends, strict=True)]
        with_joules = [replace(each, joules=joules_by_state(part)) for each, part in zip(outcomes, parts, strict=True)]
        return Session(tuple(with_joules), tuple(timeline))

    def _handshake(self, now_s: float, flights: tuple[Flight, ...]) -> float:
        """Flights that answer each other: what comes down left a round trip after what went up."""
        went_up = False
        for direction, packets in flights:
            if direction == "down" and went_up:
                now_s += self._rtt_s
            went_up = direction == "up"
            now_s = self._send(now_s, direction, packets, in_handshake=True)
        return now_s

    def _send(self, now_s: float, direction: Direction, packets: tuple[int, ...], *, in_handshake: bool) -> float:
        """Sends in rounds as the congestion window opens; returns when the last byte has left.

        A handshake's packets are acknowledged by those that answer them, and do not open the window.
        """
        stack = self._radio.stack
        if now_s - self._last_traffic.get(direction, now_s) > WINDOW_KEPT_S:
            self._window.pop(direction, None)
        window = self._window.get(direction, stack.window or len(packets))
        while packets:
            train, packets = packets[:window], packets[window:]
            acknowledgements = () if in_handshake else stack.acknowledgements(len(train))
            began_s = now_s
            now_s = self._round(now_s, direction, train, sum(acknowledgements))
            window += len(train) if stack.window else 0
            if packets:
                now_s = max(now_s, began_s + self._rtt_s)
        if stack.window and not in_handshake:
            self._window[direction] = window
        self._last_traffic[direction] = now_s
        return now_s

    def _round(self, now_s: float, direction: Direction, packets: tuple[int, ...], acknowledgements: int) -> float:
        machine, link = self._machine, self._radio.link
        assert machine is not None
        of_each = acknowledgements / len(packets)
        for train in link.trains(packets):
            start_s = machine.wake(link.begin(now_s, direction, self._last_sent))
            now_s = link.end(start_s, train, direction)
            moved: dict[Direction, int] = {"up": sum(train), "down": sum(train)}
            moved["down" if direction == "up" else "up"] = round(of_each * len(train))
            machine.transfer(now_s, direction, moved["up"], moved["down"])
            self._bytes["up"] += moved["up"]
            self._bytes["down"] += moved["down"]
            if direction == "up":
                self._last_sent = Burst(start_s, now_s)
        return now_s
