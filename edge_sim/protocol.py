"""Messages → packets: TCP/IP, TLS 1.3, HTTP/1.1 or WebSocket; or bare datagrams to a gateway (BLE, LoRa).

Headers below IP (802.11, PDCP) are not counted: the power models of those radios were fitted to IP throughput.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import httpx

from amser.client.exchange.utterances import ROUTE, UTTERANCE_HEADER
from amser.wire import MEDIA_TYPE
from edge_sim.link import Direction

URL: Final = "https://emotion.example.org"

IP_PACKET: Final = 1500  # bytes at most
IP_TCP_HEADER: Final = 20 + 20 + 12  # bytes: IPv4, TCP, its timestamps option
SEGMENT: Final = IP_PACKET - IP_TCP_HEADER  # bytes of data in a packet
SYN: Final = 20 + 40  # bytes: IPv4, TCP with its options at the opening
PACKETS_PER_ACK: Final = 2  # RFC 1122, 4.2.3.2
INITIAL_WINDOW: Final = 10  # segments, RFC 6928

TLS_RECORD: Final = 16_384  # bytes of data at most
TLS_RECORD_OVERHEAD: Final = 5 + 1 + 16  # bytes: header, inner type, AES-GCM's tag
CLOSE_NOTIFY: Final = 2 + TLS_RECORD_OVERHEAD  # bytes


class _Handshake(NamedTuple):
    client_hello: int
    server: int  # from ServerHello to Finished
    client_finished: int
    tickets: int


# Bytes, measured: httpx's TLS context against OpenSSL 3.0, AES-256-GCM, ALPN, two ECDSA P-256 certificates (508 and 465
# bytes; those of a public authority are a few hundred bytes longer: timestamps and addresses of lists).
FULL_HANDSHAKE: Final = _Handshake(517, 1349, 80, 510)
RESUMED_HANDSHAKE: Final = _Handshake(581, 241, 80, 255)

# What uvicorn and our ingress write before the answer below, without the digits of its length; measured.
ANSWER_HEADER: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: Sun, 22 Nov 2026 07:47:11 GMT\r\n"
    b"server: uvicorn\r\n"
    b"server-timing: queue;dur=33.52, mel;dur=0.31, asr;dur=190.91, text_embedding;dur=0.22, "
    b"text_encoder;dur=59.81, fusion;dur=4.93, total;dur=290.1, mel-queue;dur=0.41, asr-queue;dur=31.27, "
    b"text_embedding-queue;dur=0.52, text_encoder-queue;dur=0.67, fusion-queue;dur=0.73\r\n"
    b"amser-request-id: e5fcc075-e301-4a07-887f-2d19d550fb42\r\n"
    b"content-length: \r\n"
    b"content-type: application/json\r\n\r\n"
)
# The answer of docs/api.md, as the ingress writes it.
ANSWER_BODY: Final = (
    b'{"request_id":"e5fcc075-e301-4a07-887f-2d19d550fb42","emotion":"angry","probabilities":{"angry":0.8312,'
    b'"disgust":0.0021,"fear":0.1381,"happy":0.0194,"neutral":0.0013,"sad":0.0061,"surprise":0.0018},'
    b'"confidence":0.8312,"uncertain":false,"doubts":[],"speech":"yes","speech_probability":0.9871,'
    b'"transcript":{"text":"Kids are talking by the door.","language":"en","average_log_probability":-0.3112},'
    b'"input":{"codec":"svd-f16","bytes":9855,"seconds":4.104,"rank":10},'
    b'"timings_ms":{"queue":33.52,"mel":0.31,"asr":190.91,"text_embedding":0.22,"text_encoder":59.81,"fusion":4.93,'
    b'"total":290.1},"models":{"asr":"whisper-base (onnxruntime)","text_embedding":"spacy-en-core-web-md",'
    b'"text_encoder":"all-minilm-l6-v2","fusion":"amser-states"},"degraded":[],"warnings":[]}'
)
ANSWER_DATAGRAM: Final = 8  # bytes a gateway passes on: the label, and seven probabilities of a byte each

_UPGRADE: Final = (
    "GET {route} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_SWITCHING: Final = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_MASK: Final = 4  # bytes, in every frame of a client (RFC 6455, 5.3)


class Flight(NamedTuple):
    """Packets that one side sends without waiting: their direction, and bytes over the radio of each."""

    direction: Direction
    packets: tuple[int, ...]


class Stack(Protocol):
    """How messages travel.

    Attributes:
        keep_alive: one connection for all exchanges, or one for each.
        idle_limit_s: a kept connection that was idle for longer is opened anew.
        window: packets that may be sent before the first acknowledgement; None where nothing limits them.
    """

    @property
    def keep_alive(self) -> bool: ...
    @property
    def idle_limit_s(self) -> float: ...
    @property
    def window(self) -> int | None: ...

    def opening(self) -> tuple[Flight, ...]:
        """What is sent before the first request. Where the direction changes, half a round trip passes."""

    def closing(self) -> tuple[Flight, ...]:
        """What is sent after the last answer."""

    def request(self, body: int, first: bool) -> tuple[int, ...]:
        """Packets of a request with so many bytes of body; `first` on its connection."""

    def answer(self, body: int, first: bool) -> tuple[int, ...]:
        """Packets of an answer."""

    def acknowledgements(self, packets: int) -> tuple[int, ...]:
        """Packets that the other side sends for so many."""


def request_header(url: str, body: int, route: str = ROUTE, media_type: str = MEDIA_TYPE) -> bytes:
    """The header of the request that `amser.client.device.Device` makes, as httpx writes it (a test compares)."""
    headers = {"Content-Type": media_type, UTTERANCE_HEADER: str(UUID(int=0))}
    with httpx.Client(trust_env=False, verify=False) as client:  # the certificates are not needed to count bytes
        request = client.build_request("POST", url.rstrip("/") + route, content=bytes(body), headers=headers)
    lines = [f"{request.method} ".encode() + request.url.raw_path + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@cache
def _request_header_bytes(url: str, digits: int, route: str, media_type: str) -> int:
    """Its length depends on the body's only through the digits of Content-Length."""
    return len(request_header(url, 10 ** (digits - 1), route, media_type))


def websocket_frame(body: int, masked: bool) -> int:
    """Bytes of a WebSocket message in one frame (RFC 6455, 5.2)."""
    length = 2 if body < 126 else 4 if body < 65_536 else 10
    return length + (_MASK if masked else 0) + body


def tls_records(message: int) -> int:
    """Bytes of a message in TLS 1.3 records."""
    return message + TLS_RECORD_OVERHEAD * math.ceil(message / TLS_RECORD)


def segments(message: int) -> tuple[int, ...]:
    """IP packets of a TCP message, in bytes."""
    full, rest = divmod(message, SEGMENT)
    return (IP_PACKET,) * full + ((IP_TCP_HEADER + rest,) if rest else ())


@dataclass(frozen=True, slots=True)
class TcpStack:
    """HTTP/1.1 or WebSocket over TLS 1.3 over TCP.

    Attributes:
        url: of the cluster; it is part of every request's header.
        keep_alive: one connection for all exchanges, or one for each.
        idle_limit_s: a kept connection that was idle for longer is opened anew. httpx's own default is 5 s.
        tls: encrypted.
        resumed: the TLS session is resumed (a pre-shared key: no certificates; no 0-RTT data).
        websocket: frames on an upgraded connection, or an HTTP request for each utterance.
        route: path of the request.
        media_type: of its body.
    """

    url: str = URL
    keep_alive: bool = True
    idle_limit_s: float = math.inf
    tls: bool = True
    resumed: bool = False
    websocket: bool = False
    route: str = ROUTE
    media_type: str = MEDIA_TYPE

    @property
    def window(self) -> int:
        return INITIAL_WINDOW

    def opening(self) -> tuple[Flight, ...]:
        flights = [Flight("up", (SYN,)), Flight("down", (SYN,))]
        acknowledgement = (IP_TCP_HEADER,)
        if self.tls:
            flights.append(Flight("up", acknowledgement + segments(self._handshake.client_hello)))
            flights.append(Flight("down", segments(self._handshake.server)))
        else:
            flights.append(Flight("up", acknowledgement))
        if self.websocket:
            host = httpx.URL(self.url).netloc.decode()
            upgrade = self._encrypted(len(_UPGRADE.format(route=self.route, host=host)))
            flights.append(Flight("up", segments(upgrade + self._finished)))
            flights.append(Flight("down", segments(self._encrypted(len(_SWITCHING)) + self._tickets)))
        return tuple(flights)

    def closing(self) -> tuple[Flight, ...]:
        farewell = segments(CLOSE_NOTIFY) if self.tls else ()
        fin = (IP_TCP_HEADER,)
        return Flight("up", farewell + fin), Flight("down", fin), Flight("up", fin)

    def request(self, body: int, first: bool) -> tuple[int, ...]:
        if self.websocket:
            return segments(self._encrypted(websocket_frame(body, masked=True)))
        header = _request_header_bytes(self.url, len(str(body)), self.route, self.media_type)
        message = self._encrypted(header + body)
        return segments(message + (self._finished if first else 0))

    def answer(self, body: int, first: bool) -> tuple[int, ...]:
        if self.websocket:
            return segments(self._encrypted(websocket_frame(body, masked=False)))
        message = self._encrypted(len(ANSWER_HEADER) + len(str(body)) + body)
        return segments(message + (self._tickets if first else 0))

    def acknowledgements(self, packets: int) -> tuple[int, ...]:
        return (IP_TCP_HEADER,) * math.ceil(packets / PACKETS_PER_ACK)

    @property
    def _handshake(self) -> _Handshake:
        return RESUMED_HANDSHAKE if self.resumed else FULL_HANDSHAKE

    @property
    def _finished(self) -> int:
        """The client's end of the handshake travels with its first message."""
        return self._handshake.client_finished if self.tls else 0

    @property
    def _tickets(self) -> int:
        """Session tickets travel with the server's first message."""
        return self._handshake.tickets if self.tls else 0

    def _encrypted(self, message: int) -> int:
        return tls_records(message) if self.tls else message


@dataclass(frozen=True, slots=True)
class DatagramStack:
    """Packets to a gateway, which speaks HTTP for the device: no TCP/IP over the radio.

    Attributes:
        payload_limit_bytes: of one packet.
        header_bytes: of one packet, below the payload.
        fragment_header_bytes: within the payload, where a message takes more than one packet.
        ack_bytes: what the other side answers to each packet.
    """

    payload_limit_bytes: int
    header_bytes: int
    fragment_header_bytes: int
    ack_bytes: int
    keep_alive: bool = True
    idle_limit_s: float = math.inf

    @property
    def window(self) -> None:
        return None

    def opening(self) -> tuple[Flight, ...]:
        return ()

    def closing(self) -> tuple[Flight, ...]:
        return ()

    def request(self, body: int, first: bool) -> tuple[int, ...]:  # noqa: ARG002
        if body <= self.payload_limit_bytes:
            return (self.header_bytes + body,)
        piece = self.payload_limit_bytes - self.fragment_header_bytes
        full, rest = divmod(body, piece)
        header = self.header_bytes + self.fragment_header_bytes
        return (header + piece,) * full + ((header + rest,) if rest else ())

    def answer(self, body: int, first: bool) -> tuple[int, ...]:
        return self.request(body, first)

    def acknowledgements(self, packets: int) -> tuple[int, ...]:
        return (self.ack_bytes,) * packets if self.ack_bytes else ()
