"""What sending speech costs a simulated device: payloads and CPU time are measured, the radio is simulated.

The seconds and joules of computing are CPU time here × the device's `cpu_slowdown`, one assumption for all codecs: it
is unfair to those that have fixed-point encoders for small processors, Opus above all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

from amser.features import SAMPLE_RATE, Float32
from edge_sim.exchange import Exchange, Outcome, simulate
from edge_sim.hardware import Hardware
from edge_sim.protocol import ANSWER_BODY, ANSWER_DATAGRAM, DatagramStack, TcpStack
from edge_sim.radio import Radio, State
from edge_sim.transports import Transport

Mode = Literal["alone", "conversation", "batch"]
Connection = Literal["keep-alive", "new", "websocket", "gateway"]

MODES: Final[tuple[Mode, ...]] = get_args(Mode)
CONNECTIONS: Final[tuple[Connection, ...]] = ("keep-alive", "new", "websocket")  # of a radio without a gateway
PAUSE_S: Final[Mapping[Mode, float]] = MappingProxyType({"alone": 60.0, "conversation": 2.0})
SERVER_S: Final = 0.3  # from request to answer in the cluster: an utterance of 4 s, docs/api.md


@dataclass(frozen=True, slots=True)
class Encoded:
    """The same utterances through one transport.

    Attributes:
        transport: at one setting.
        seconds: duration of each utterance.
        payload_bytes: of each.
        cpu_s: measured, of encoding each, on the machine of the measurement.
    """

    transport: Transport
    seconds: tuple[float, ...]
    payload_bytes: tuple[int, ...]
    cpu_s: tuple[float, ...]

    @property
    def mean_bytes(self) -> float:
        """Of a payload."""
        return sum(self.payload_bytes) / len(self.payload_bytes)


@dataclass(frozen=True, slots=True)
class Costs:
    """What an utterance costs: means over the utterances of one device, radio, mode and connection.

    Attributes:
        utterances: over so many.
        seconds_of_speech: duration.
        payload_bytes: body of the request.
        bytes_over_radio: in both directions, with headers, handshakes and acknowledgements.
        seconds: from the end of the utterance to its answer, without the wait for the utterances before it. In a batch,
            all of it over the number of utterances.
        queued_seconds: that wait. Where it grows, the radio cannot keep up.
        radio_joules: without idle, which the radio would be in anyway.
        compute_joules: of encoding.
        radio_joules_by_state: with idle.
        battery_share: of a full battery, for radio and computing.
    """

    utterances: int
    seconds_of_speech: float
    payload_bytes: float
    bytes_over_radio: float
    seconds: float
    queued_seconds: float
    radio_joules: float
    compute_joules: float
    radio_joules_by_state: Mapping[State, float]
    battery_share: float


def encode(transport: Transport, waveforms: Sequence[Float32]) -> Encoded:
    """Every utterance through a transport; CPU time of this process.

    Raises:
        amser.errors.SignalError: an utterance that the transport cannot carry.
    """
    transport.encode(waveforms[0])  # what is set up once is not measured
    sizes: list[int] = []
    cpu_s: list[float] = []
    for waveform in waveforms:
        started = time.process_time()
        sizes.append(len(transport.encode(waveform)))
        cpu_s.append(time.process_time() - started)
    return Encoded(transport, tuple(each.size / SAMPLE_RATE for each in waveforms), tuple(sizes), tuple(cpu_s))


def costs(encoded: Encoded, hardware: Hardware, radio: Radio, mode: Mode, connection: Connection) -> Costs:
    """What the utterances cost a device.

    Args:
        encoded: by `encode`.
        hardware: battery and processor.
        radio: one of the hardware's.
        mode: `alone`, an utterance a minute: each pays for its own promotion and tail. `conversation`, two seconds
            between one utterance and the next: the tail never ends on LTE and 3G. `batch`, all at once, one after the
            other, without the cluster's time.
        connection: kept, new for each utterance, or a WebSocket; a radio with a gateway has no choice.
    """
    radio = _on_connection(radio, connection, encoded.transport)
    answer_bytes = ANSWER_DATAGRAM if isinstance(radio.stack, DatagramStack) else len(ANSWER_BODY)
    wanted = list(_exchanges(encoded, hardware, mode, answer_bytes))
    session = simulate(radio, wanted)
    count, cpu_s = len(wanted), sum(encoded.cpu_s)
    queued_s = sum(_queued(session.outcomes))
    if mode == "batch":
        total_s = session.outcomes[-1].answered_s
    else:
        waited_s = sum(outcome.seconds for outcome in session.outcomes)
        total_s = hardware.supply.compute_seconds(cpu_s) - queued_s + waited_s
    compute_joules = hardware.supply.compute_joules(cpu_s)
    return Costs(
        utterances=count,
        seconds_of_speech=sum(encoded.seconds) / count,
        payload_bytes=encoded.mean_bytes,
        bytes_over_radio=session.bytes_over_radio / count,
        seconds=total_s / count,
        queued_seconds=queued_s / count,
        radio_joules=session.radio_joules / count,
        compute_joules=compute_joules / count,
        radio_joules_by_state={state: joules / count for state, joules in session.joules.items()},
        battery_share=hardware.supply.battery_share(session.radio_joules + compute_joules) / count,
    )


def _exchanges(encoded: Encoded, hardware: Hardware, mode: Mode, answer_bytes: int) -> Iterator[Exchange]:
    """What the device has to send, and when. Encoding begins where an utterance ends, in a batch where it can."""
    now_s = 0.0
    for seconds, size, cpu_s in zip(encoded.seconds, encoded.payload_bytes, encoded.cpu_s, strict=True):
        compute_s = hardware.supply.compute_seconds(cpu_s)
        if mode == "batch":
            now_s += compute_s
            yield Exchange(now_s, size, answer_bytes)
        else:
            now_s += seconds
            yield Exchange(now_s + compute_s, size, answer_bytes, SERVER_S)
            now_s += max(PAUSE_S[mode], compute_s)


def _on_connection(radio: Radio, connection: Connection, transport: Transport) -> Radio:
    """The radio with its stack set for a connection and a transport's route."""
    if isinstance(radio.stack, TcpStack):
        stack = replace(
            radio.stack,
            keep_alive=connection != "new",
            websocket=connection == "websocket",
            route=transport.route,
            media_type=transport.media_type,
        )
        return replace(radio, stack=stack)
    return radio


def _queued(outcomes: Sequence[Outcome]) -> Iterator[float]:
    """Seconds that each exchange waited for the one before it."""
    for before, outcome in zip(outcomes, outcomes[1:], strict=False):
        yield max(0.0, before.answered_s - outcome.at_s)
