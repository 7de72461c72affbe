"""HTTP that is framed wrongly: lengths that lie, chunks that are none, two requests in one, ends that come early.

What is no HTTP may be refused in plain text, since no application has seen it. It must be refused once, and what is
hidden in it must not be answered: behind a reverse proxy it would be somebody else's request.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from functools import cache
from random import Random
from typing import Final

from tests.fuzz.mutations import mutate
from tests.fuzz.network.exchange import MEDIA_TYPE, Closed, post, request
from tests.fuzz.network.site import Site, Utterance
from tests.fuzz.targets.envelope import envelopes

HIDDEN: Final = b"GET /healthz HTTP/1.1\r\nHost: hidden\r\n\r\n"
HEAD: Final = b"POST /v1/emotion HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: " + MEDIA_TYPE.encode() + b"\r\n"
TOKENS: Final = (
    b"HTTP/1.1", b"Content-Length: ", b"Transfer-Encoding: chunked", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": ", b"\0",
    b"0\r\n\r\n", b"Connection: close", b"Expect: 100-continue", b" ", b"\t", b"HTTP/0.9", b"HTTP/2.0", b"Host: ",
)  # fmt: skip
PIPELINED: Final = 5
QUIET_S: Final = 1.0  # without a further byte


@cache
def smuggled() -> tuple[tuple[str, bytes], ...]:
    """Requests with another one in what may be their body."""
    size = str(len(HIDDEN) + 5).encode()
    chunked = b"0\r\n\r\n" + HIDDEN
    spellings = (
        b"Transfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: \x0bchunked",
        b"X: y\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding:\r\n chunked",
    )  # fmt: skip
    made = [
        (f"both framings ({spelling.decode('latin-1')!r})",
         HEAD + b"Content-Length: " + size + b"\r\n" + spelling + b"\r\n\r\n" + chunked)
        for spelling in spellings
    ]  # fmt: skip
    length = str(len(HIDDEN)).encode()
    for name, lines in {
        "two lengths": b"Content-Length: 0\r\nContent-Length: " + length,
        "two lengths in one": b"Content-Length: 0, " + length,
        "a folded length": b"Content-Length: \r\n " + length,
        "a length with a plus": b"Content-Length: +" + length,
        "a length in hexadecimal": b"Content-Length: 0x%x" % len(HIDDEN),
        "a length with an underscore": b"Content-Length: " + length[:1] + b"_" + length[1:],
        "a length behind a NUL": b"Content-Length: \0" + length,
        "a length with a space before its colon": b"Content-Length : " + length,
        "a negative length": b"Content-Length: -" + length,
        "a length that overflows": b"Content-Length: 18446744073709551616",
    }.items():
        made.append((name, HEAD + lines + b"\r\n\r\n" + HIDDEN))
    return tuple(made)


@cache
def misframed() -> tuple[tuple[str, bytes], ...]:
    """Requests that end too early or late, or are no HTTP."""
    body = envelopes()[0]
    start = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    made = [
        ("a chunk of another size", start + b"5\r\nabc\r\n0\r\n\r\n"),
        ("a chunk without a number", start + b"zz\r\nabc\r\n0\r\n\r\n"),
        ("a negative chunk", start + b"-5\r\nabcde\r\n0\r\n\r\n"),
        ("a chunk that overflows", start + b"ffffffffffffffffff\r\nabc"),
        ("an extension of 100 kB", start + b"3;" + b"x" * 100_000 + b"\r\nabc\r\n0\r\n\r\n"),
        ("trailers of 100 kB", start + b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 15_000 + b"\r\n"),
        ("20,000 chunks of a byte", start + b"1\r\nA\r\n" * 20_000 + b"0\r\n\r\n"),
        ("a body that is chunked well", start + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)),
        ("no HTTP", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(200)),
        ("HTTP/0.9", b"GET /healthz\r\n\r\n"),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n"),
        ("no host", b"GET /healthz HTTP/1.1\r\n\r\n"),
        ("two hosts", b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("line feeds alone", b"GET /healthz HTTP/1.1\nHost: a\n\n"),
        ("a NUL in a header", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        ("a header without a name", b"GET /healthz HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        ("a header of 1 MB", b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n"),
        ("10,000 headers", b"GET /healthz HTTP/1.1\r\n" + b"X-%d: y\r\n" * 10_000 % tuple(range(10_000)) + b"\r\n"),
        ("a path of 1 MB", b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a WebSocket", request("GET", "/v1/emotion", {"Connection": "Upgrade", "Upgrade": "websocket",
                                "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})),
        ("HTTP/2 by upgrade", request("GET", "/healthz", {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c",
                                      "HTTP2-Settings": "AAMAAABkAAQAAP__"})),
        ("100-continue", post(body, Expect="100-continue")),
        ("a length too short", HEAD + b"Content-Length: 10\r\n\r\n" + body),
    ]  # fmt: skip
    return tuple(made)


def framing(site: Site) -> None:
    """All of it in any order, mutated too, and connections that are used oddly but rightly."""
    source = site.source
    good = site.utterance()
    while not site.is_over:
        kind = source.randrange(7)
        if kind == 0:
            _smuggle(site, *source.choice(smuggled()))
        elif kind == 1:
            name, data = source.choice(misframed())
            site.ask(data, name)
        elif kind in (2, 3):
            _, data = source.choice(smuggled() + misframed())
            site.ask(_ended(mutate(data, source, TOKENS)), "HTTP that is mutated")
        elif kind == 4:
            _pipelined(site, good)
        elif kind == 5:
            _half_closed(site, good)
        else:
            _leave_early(site, source, good)


def _smuggle(site: Site, name: str, data: bytes) -> None:
    """What is hidden in a request must not be answered."""
    answers = 0
    try:
        with site.connect(QUIET_S) as connection:
            with suppress(Closed):
                connection.send(data)
            while answers < 3:
                answer = connection.answer()
                answers += 1
                if answers == 1:
                    site.judge(answer, name, data)
                elif answer.status == 200:
                    site.find("wrong", f"{name}: a hidden request was answered", str(answer.body[:200]), data)
    except (Closed, OSError, ValueError):
        pass
    site.count(data, answers > 0)


def _pipelined(site: Site, good: Utterance) -> None:
    """Several requests at once are answered in their order."""
    data = b"".join([HIDDEN, good.request] * 2 + [HIDDEN])
    label = "pipelined"
    try:
        with site.connect() as connection:
            connection.send(data)
            answers = [connection.answer("POST") for _ in range(PIPELINED)]
    except (Closed, TimeoutError, OSError, ValueError) as error:
        site.find("wrong", "pipelined: not every request was answered", repr(error), data)
        site.count(data, False)
        return
    for number, answer in enumerate(answers):
        if number % 2:
            site.check(answer, good, label)
        elif answer.status != 200:
            site.judge(answer, label, data)
    site.count(data, True)


def _half_closed(site: Site, good: Utterance) -> None:
    """A client that says it sends no more still waits for its answer."""
    try:
        with site.connect() as connection:
            connection.send(good.request)
            connection.socket.shutdown(socket.SHUT_WR)
            answer = connection.answer("POST")
        site.check(answer, good, "half closed")
        site.count(good.request, answer.status == 200)
    except Closed:  # taken for one that left, as most servers do
        site.count(good.request, False)
    except TimeoutError:
        site.find("stall", "half closed: no answer", "within 40 s", good.request)


def _leave_early(site: Site, source: Random, good: Utterance) -> None:
    """Hangs up at any byte of a request, or while its answer is computed."""
    with suppress(Closed, OSError):
        connection = site.connect()
        connection.send(good.request[: source.randrange(1, len(good.request) + 200)])
        time.sleep(source.choice((0.0, 0.01, 0.2, 0.5)))
        connection.hang_up()
    site.count(good.request, False)


def _ended(data: bytes) -> bytes:
    """With an end: a server may wait for what does not come, and this target is not the one that waits."""
    return data + b"\r\n\r\n"
