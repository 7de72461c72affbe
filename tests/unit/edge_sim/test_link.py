"""Packets over a link: traces that are replayed, BLE's connection events, LoRa's airtime and duty cycle, headers."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amser.client.device import Device, DeviceSettings
from amser.client.exchange.failures import SendFailed
from edge_sim.link import (
    LARGEST_TRACE,
    BleLink,
    Burst,
    ConstantLink,
    LoRaLink,
    MalformedTrace,
    Trace,
    TraceLink,
    TraceTooLarge,
    read_trace,
)
from edge_sim.protocol import (
    FULL_HANDSHAKE,
    IP_PACKET,
    IP_TCP_HEADER,
    RESUMED_HANDSHAKE,
    SEGMENT,
    DatagramStack,
    TcpStack,
    request_header,
    segments,
    tls_records,
    websocket_frame,
)

BLE = BleLink(30, 6, 1, 150, 30)
LORA = LoRaLink(7, 125, 1, 8, 1, 1000, 30)


def trace_file(folder: Path, text: str) -> Path:
    path = folder / "made.trace"
    path.write_text(text)
    return path


def test_a_trace_delivers_1500_bytes_at_each_line_and_begins_again_at_its_end(tmp_path: Path) -> None:
    trace = read_trace(trace_file(tmp_path, "10\n20\n20\n\n100\n"))
    assert trace.opportunities_ms == (10, 20, 20, 100)
    assert trace.mbit_s == pytest.approx(0.48)  # 4 × 1500 bytes in 100 ms
    assert trace.delivered(0.0, 1) == 0.010
    assert trace.delivered(0.0, 1500) == 0.010
    assert trace.delivered(0.0, 1501) == 0.020
    assert trace.delivered(0.011, 4500) == 0.100
    assert trace.delivered(0.0, 6000 + 1) == 0.110
    assert trace.delivered(1.015, 1500) == 1.020
    assert trace.delivered(0.5, 0) == 0.5


def test_a_packet_that_is_ready_on_the_millisecond_of_an_opportunity_takes_it() -> None:
    assert Trace((10, 20)).delivered(0.01, 1500) == 0.01
    assert Trace((10, 30)).delivered(0.03 * 7, 1500) == pytest.approx(0.21)
    assert Trace((10, 30)).delivered(0.03 * 7, 1501) == pytest.approx(0.22)
    assert Trace((0, 30)).delivered(0.0, 1500) == 0.0


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=20).map(sorted),
    st.floats(0, 10),
    st.floats(0, 1),
    st.integers(1, 60_000),
    st.integers(0, 60_000),
)
def test_on_a_trace_more_bytes_or_a_later_start_never_arrive_earlier(
    times: list[int], start_s: float, later_s: float, count: int, more: int
) -> None:
    trace = Trace(tuple(times))
    assert start_s <= trace.delivered(start_s, count) <= trace.delivered(start_s, count + more)
    assert trace.delivered(start_s, count) <= trace.delivered(start_s + later_s, count) + 1e-9


@pytest.mark.parametrize("text", ["", "\n", "0\n0\n", "10\n9\n", "1.5\n", "-3\n", "ten\n", "9" * 5000])
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedTrace):
        read_trace(trace_file(tmp_path, text))


def test_the_refusal_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(MalformedTrace, match="line 3: 4 ms come after 5 ms"):
        read_trace(trace_file(tmp_path, "1\n5\n4\n"))


def test_a_trace_of_too_many_bytes_or_hours_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.trace"
    with path.open("wb") as file:
        file.truncate(LARGEST_TRACE + 1)
    with pytest.raises(TraceTooLarge, match=str(LARGEST_TRACE)):
        read_trace(path)
    with pytest.raises(TraceTooLarge, match="24 hours"):
        read_trace(trace_file(tmp_path, "1\n86400001\n"))


def test_each_direction_has_its_own_throughput() -> None:
    constant = ConstantLink(1, 10, 50)
    assert constant.end(2.0, [1000, 250], "up") == pytest.approx(2.01)
    assert constant.end(2.0, [1000, 250], "down") == pytest.approx(2.001)
    replayed = TraceLink(Trace((100,)), Trace((10,)), 50)
    assert replayed.end(0.0, [1500, 1500], "up") == 0.2
    assert replayed.end(0.0, [1500, 1500], "down") == 0.02
    assert replayed.end(0.1, [1500], "up") == pytest.approx(0.101)  # no time at all would be infinite power


def test_ble_sends_a_few_packets_at_each_connection_event() -> None:
    assert [len(train) for train in BLE.trains([261] * 14)] == [6, 6, 2]
    assert BLE.begin(0.031, "up", None) == pytest.approx(0.060)
    assert BLE.begin(0.060, "up", None) == pytest.approx(0.060)
    # 261 bytes and the 10 of the answer at 1 Mbit/s, two inter-frame spaces
    assert BLE.end(0.0, [261], "up") == pytest.approx(0.002468)
    assert BLE.end(0.0, [261] * 6, "up") < 0.030


@pytest.mark.parametrize(
    ("spreading_factor", "packet", "milliseconds"),
    [(7, 235, 368.896), (7, 13, 46.336), (12, 64, 2793.472), (9, 12, 144.384)],  # as published calculators give them
)
def test_lora_airtime_follows_the_data_sheet(spreading_factor: int, packet: int, milliseconds: float) -> None:
    link = LoRaLink(spreading_factor, 125, 1, 8, 1, 1000, 30)
    assert 1000 * link.airtime_s(packet) == pytest.approx(milliseconds)


def test_lora_is_silent_for_99_airtimes_after_a_packet_and_receives_the_answer_a_second_after_it() -> None:
    sent = Burst(5.0, 5.4)
    assert LORA.begin(5.5, "up", sent) == pytest.approx(5.4 + 99 * 0.4)
    assert LORA.begin(100.0, "up", sent) == 100.0
    assert LORA.begin(5.5, "down", sent) == pytest.approx(6.4)
    assert LORA.begin(8.0, "down", sent) == 8.0


def test_a_message_is_cut_into_segments_with_a_header_each() -> None:
    assert segments(0) == ()
    assert segments(1) == (IP_TCP_HEADER + 1,)
    assert segments(SEGMENT) == (IP_PACKET,)
    assert segments(SEGMENT + 1) == (IP_PACKET, IP_TCP_HEADER + 1)


@given(st.integers(0, 1_000_000))
def test_no_byte_of_a_message_is_lost_or_sent_twice(message: int) -> None:
    packets = segments(message)
    assert sum(packets) - IP_TCP_HEADER * len(packets) == message
    gateway = DatagramStack(222, 13, 2, 0)
    datagrams = gateway.request(message, True)
    headers = 13 if len(datagrams) == 1 else 15
    assert sum(datagrams) - headers * len(datagrams) == message
    assert max(datagrams) <= 222 + 13


def test_tls_and_websocket_add_what_their_standards_say() -> None:
    assert tls_records(100) == 122  # as measured with OpenSSL
    assert tls_records(16_384) == 16_406
    assert tls_records(16_385) == 16_385 + 44
    assert [websocket_frame(body, masked=True) - body for body in (125, 126, 65_535, 65_536)] == [6, 8, 8, 14]
    assert [websocket_frame(body, masked=False) - body for body in (125, 126, 65_536)] == [2, 4, 10]


def test_a_resumed_session_saves_the_certificates_and_no_round_trip() -> None:
    full, resumed = TcpStack().opening(), TcpStack(resumed=True).opening()
    assert [flight.direction for flight in full] == [flight.direction for flight in resumed] == ["up", "down"] * 2
    saved = sum(sum(flight.packets) for flight in full) - sum(sum(flight.packets) for flight in resumed)
    assert saved == sum(FULL_HANDSHAKE[:2]) - sum(RESUMED_HANDSHAKE[:2])


def test_the_header_that_is_counted_is_the_one_that_the_device_sends() -> None:
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            connection, _ = server.accept()
            with connection:
                while b"\r\n\r\n" not in received:
                    received.extend(connection.recv(65_536))

        thread = threading.Thread(target=take)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with Device(DeviceSettings(url=url, attempts=1)) as device:
            speech = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
            utterance = device.encode(speech, datetime.now(UTC))
            with pytest.raises(SendFailed):
                device.send(utterance)
        thread.join()
    header = bytes(received).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    counted = request_header(url, len(utterance.envelope))
    own_id = str(utterance.utterance_id).encode()
    assert header.lower() == counted.lower().replace(b"00000000-0000-0000-0000-000000000000", own_id)
