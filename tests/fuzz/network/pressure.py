"""Many connections, slow ones, and everything at once."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from random import Random
from typing import Final

from tests.fuzz.mutations import mutate
from tests.fuzz.network.exchange import Closed, Connection, post, request
from tests.fuzz.network.requests import HEADERS, METHODS, PATHS, VALUES
from tests.fuzz.network.site import Site
from tests.fuzz.targets.audio import TOKENS, files
from tests.fuzz.targets.envelope import envelopes, repaired

SLOW: Final = 150  # connections of each kind that send slowly; two kinds are more than a replica takes requests (256)
MOST: Final = 1000  # connections of the flood
STEP_S: Final = 1.0  # between two bytes of each slow connection
GIVEN_UP_WITHIN_S: Final = 45.0  # a connection that has sent 45 bytes by then should be closed
TOGETHER: Final = 4  # clients of the mix


def slow(site: Site) -> None:
    """Slow-loris: headers, bodies and chunked bodies, a byte a second each; all connections at once."""
    with _allowed(4 * SLOW + 100):
        while not site.is_over:
            _slowly(site)


def _slowly(site: Site) -> None:
    body = envelopes()[0]
    head = b"POST /v1/emotion HTTP/1.1\r\nHost: a\r\nContent-Type: application/vnd.amser.v1\r\n"
    kinds = {  # what is sent at once, and what follows byte by byte
        "headers": (b"GET /healthz HTTP/1.1\r\nHost: a\r\n", b"X-a: b\r\n"),
        "a body": (head + b"Content-Length: %d\r\n\r\n" % len(body), body),
        "a chunked body": (head + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nA\r\n"),
        "half a request": (b"GET /he", b""),
    }
    began = time.monotonic()
    alive: list[tuple[str, Connection]] = []
    for _ in range(SLOW):
        for kind, (start, _) in kinds.items():
            if site.is_over:
                break
            with suppress(OSError, Closed):
                connection = site.connect(1)
                alive.append((kind, connection))
                connection.send(start)
            site.count(start, False)
    sent = 0
    while alive and not site.is_over and time.monotonic() - began < GIVEN_UP_WITHIN_S:
        time.sleep(STEP_S)
        still = []
        for kind, connection in alive:
            rest = kinds[kind][1]
            if _still(connection, rest[sent % len(rest) : sent % len(rest) + 1] if rest else b""):
                still.append((kind, connection))
        alive = still
        sent += 1
    if time.monotonic() - began >= GIVEN_UP_WITHIN_S:
        for kind, count in Counter(kind for kind, _ in alive).items():
            what = f"{count} of {SLOW} connections are open after {GIVEN_UP_WITHIN_S:g} s"
            site.find("stall", f"slow: {kind} at a byte a second is never given up", what)
    for _, connection in alive:
        connection.hang_up()


def _still(connection: Connection, byte: bytes) -> bool:
    """Sends a byte. Whether the cluster still wants one; an answer, such as 408, ends it too."""
    try:
        if byte:
            connection.send(byte)
        connection.socket.settimeout(0.001)
        try:
            connection.answer()
        except TimeoutError:
            return True
    except (Closed, OSError, ValueError):
        pass
    connection.hang_up()
    return False


def flood(site: Site) -> None:
    """Connections by the thousand, most without a request; then a good request on a new one."""
    good = site.utterance()
    with _allowed(MOST + 100):
        while not site.is_over:
            opened: list[Connection] = []
            kind = site.source.choice(("idle", "a request each", "half a request"))
            data = {"idle": b"", "a request each": request("GET", "/healthz"), "half a request": b"GET /he"}[kind]
            while len(opened) < MOST and not site.is_over:
                try:
                    connection = site.connect(5)
                except OSError:  # the cluster takes no more: a limit, and no fault
                    break
                opened.append(connection)
                with suppress(Closed):
                    if data:
                        connection.send(data)
                site.count(data, False)
            site.check(site.ask(good.request, "during a flood", "POST"), good, f"during a flood ({kind})")
            if kind == "a request each":
                _answered(site, opened, data)
            for connection in opened:
                connection.hang_up()
            time.sleep(1)


def _answered(site: Site, opened: list[Connection], data: bytes) -> None:
    for connection in opened:
        try:
            connection.socket.settimeout(20)
            site.judge(connection.answer(), "a flood of requests", data)
        except TimeoutError:
            site.find("stall", "a flood of requests: no answer", "within 20 s", data)
            return
        except (Closed, OSError, ValueError) as error:
            site.find("refusal", "a flood of requests: closed without an answer", repr(error), data)
            return


def mix(site: Site) -> None:
    """Good requests, bad ones, and clients that leave, all at once; every good answer must be the right one."""
    utterances = [site.utterance(number) for number in range(3)]
    audio = files()

    def good(source: Random) -> None:
        chosen = source.choice(utterances)
        site.check(site.ask(chosen.request, "a good request in the mix", "POST"), chosen, "the mix")

    def envelope(source: Random) -> None:
        body = repaired(mutate(source.choice(envelopes()), source))
        site.ask(post(body), "an envelope in the mix", "POST")

    def upload(source: Random) -> None:
        body = mutate(source.choice(audio), source, TOKENS)
        site.ask(post(body, "/v1/emotion/audio", "audio/wav"), "an audio file in the mix", "POST")

    def leaves(source: Random) -> None:
        data = source.choice(utterances).request
        with suppress(Closed, OSError):
            connection = site.connect()
            connection.send(data[: source.randrange(1, len(data) + 1)])
            time.sleep(source.random())
            connection.hang_up()
        site.count(data, False)

    def odd(source: Random) -> None:
        method = source.choice(METHODS)
        data = request(method, source.choice(PATHS), {source.choice(HEADERS): source.choice(VALUES)})
        site.ask(data, "a request in the mix", method)

    kinds: tuple[Callable[[Random], None], ...] = (good, good, good, envelope, upload, leaves, odd, odd)

    def client(number: int) -> None:
        source = Random(site.source.random() + number)
        while not site.is_over:
            source.choice(kinds)(source)

    with ThreadPoolExecutor(TOGETHER) as clients:
        for done in [clients.submit(client, number) for number in range(TOGETHER)]:
            done.result()


@contextmanager
def _allowed(files: int) -> Iterator[None]:
    """So many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
    yield
