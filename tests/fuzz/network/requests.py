"""Well-formed HTTP with odd contents: paths, methods, queries, values of headers, and bodies that are mutated."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from functools import cache
from random import Random
from typing import Final
from urllib.parse import quote

import soundfile
from audio_bombs import BOMBS, STATUS_OF_A_BOMB
from recordings import silence

from tests.fuzz.mutations import mutate
from tests.fuzz.network.exchange import MEDIA_TYPE, post, request
from tests.fuzz.network.site import FULL, Site
from tests.fuzz.targets.audio import TOKENS, files
from tests.fuzz.targets.envelope import Envelopes, envelopes, repaired

ROUTES: Final = ("/", "/healthz", "/readyz", "/v1/models", "/v1/emotion", "/v1/emotion/audio", "/docs", "/openapi.json")
METHODS: Final = ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "FOO", "get")
PATHS: Final = (
    "/%2e%2e/%2e%2e/etc/passwd", "/../../etc/passwd", "//", "//v1//emotion", "/v1/emotion/", "/v1/%65motion", "/.",
    "/v1/emotion%00", "/%00", "/%c0%ae%c0%ae/", "/%ff%fe", "/v1/emotion;x=y", "/v1/emotion?", "/v1/emotion#x",
    "/\\..\\",
    "/v1/emotion/audio/..", "/static-offline-docs/../../../../etc/passwd", "/static-offline-docs/%2e%2e/%2e%2e/x", "*",
    "/-/routes", "/-/healthz", "/v1/emotion/%2e%2e%2fmodels", "/" + "a" * 4000, "/" + "%41" * 2000, "/?" + "a=b&" * 500,
    "http://127.0.0.1/healthz", "http://evil.example/healthz", "/healthz?x=%", "/healthz?%zz", "/\u202e", "/v2/emotion",
)  # fmt: skip
VALUES: Final = (
    "", "0", "-1", "+5", "1.5", "1e9", "9" * 400, "NaN", "null", "\u0661", "%00", "'; DROP TABLE answers; --",
    "a" * 5000,
    "\ud800", "\xff", "\t", "handling=strict", "handling=strict, handling=lenient", "handling=\"strict\"", ",,,,", "=",
    "en", "auto", "EN-us", "zh-Hant", "xx", "en,de", "angry,sad", "angry", "angry,angry", "angry,bored", "1", "60",
    "2500",
    "a, " * 300, "{}", "gzip", "chunked", "127.0.0.1", "127.0.0.1, " * 50, "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
)  # fmt: skip
HEADERS: Final = (
    "Prefer", "Amser-Deadline-Ms", "Cache-Control", "Content-Type", "Content-Encoding", "Accept", "Accept-Encoding",
    "Authorization", "Host", "Origin", "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "X-Request-Id", "Cookie",
    "Amser-Utterance-Id", "traceparent", "tracestate", "Range", "If-None-Match", "Expect", "Connection", "Upgrade",
    "TE",
    "serve_multiplexed_model_id", "X-HTTP-Method-Override", "Content-Range", "Sec-WebSocket-Key", "Amser-Request-Id",
)  # fmt: skip
QUERIES: Final = ("language", "emotions", "emotions[]", "language&language", "_method", "")
AUDIO_TYPES: Final = ("audio/wav", "audio/ogg", "text/html", "multipart/form-data; boundary=x", "")


def requests(site: Site) -> None:
    """Paths, methods, queries and header values."""
    source = site.source
    body = envelopes()[0]
    while not site.is_over:
        kind = source.randrange(4)
        if kind == 0:
            method = source.choice(METHODS)
            path = source.choice(PATHS if source.random() < 0.7 else ROUTES)
            data = request(method, path, {}, b"" if source.random() < 0.2 else None)
            label = f"{method} of a path"
        elif kind == 1:
            method, path = source.choice(METHODS), source.choice(ROUTES)
            data = request(method, path, _headers(source))
            label = f"{method} {path}"
        else:
            method = "POST"
            path = source.choice(("/v1/emotion", "/v1/emotion/audio"))
            sent = body[: source.choice((len(body), len(body), 10, 0))]
            if source.random() < 0.6:
                path += "?" + "&".join(_query(source) for _ in range(source.choice((1, 1, 2, 9))))
            data = request(method, path, {"Content-Type": MEDIA_TYPE, **_headers(source)}, sent)
            label = f"POST {path.partition('?')[0]}"
        site.ask(data, label, method)


def bodies(site: Site) -> None:
    """Envelopes and audio files, mutated, on the routes that take them."""
    source = site.source
    tokens, seeds = Envelopes.tokens, envelopes()
    while not site.is_over:
        if source.random() < 0.5:
            body = mutate(source.choice(seeds), source, tokens, seeds)
            data = post(repaired(body) if source.random() < 0.8 else body)
            site.ask(data, "an envelope", "POST")
        else:
            body = mutate(source.choice(files()), source, TOKENS, files())
            data = post(body, "/v1/emotion/audio?language=en", source.choice(AUDIO_TYPES))
            answer = site.ask(data, "an audio file", "POST")
            if answer is not None and b"broke down on this file" in answer.body:
                site.find("crash", "a decoding worker died of an upload", str(answer.body[:500]), data)


@cache
def bombs() -> tuple[tuple[str, bytes, frozenset[int]], ...]:
    """Small bodies that claim or unfold to much: what each is, its request, and the statuses that are right."""
    refused = frozenset({400, 413, 415, 422})
    zeros = gzip.compress(bytes(64 << 20))
    nested = gzip.compress(zeros)
    packed = {
        "gzip": zeros,
        "gzip, gzip": nested,
        "deflate": zlib.compress(bytes(64 << 20)),
        "br": zeros,
        "zstd": zeros,
    }
    made = [
        (f"Content-Encoding: {name}", post(body, target, kind, Content_Encoding=name), refused)
        for name, body in packed.items()
        for target, kind in (("/v1/emotion", MEDIA_TYPE), ("/v1/emotion/audio", "audio/wav"))
    ]
    made += [
        (f"audio: {name}", post(body, "/v1/emotion/audio", "audio/wav"), frozenset({STATUS_OF_A_BOMB[kind]}))
        for name, (body, kind) in BOMBS.items()
    ]
    content = io.BytesIO()
    soundfile.write(content, silence(600), 16_000, format="FLAC")  # ten minutes in 60 kB
    made.append(("audio: ten minutes of silence", post(content.getvalue(), "/v1/emotion/audio"), frozenset({413})))
    deep = json.dumps([]).encode() * 3 + b"[" * 100_000
    made.append(("nested JSON", post(deep, media_type="application/json"), refused))
    made.append(("a megabyte too much", post(bytes(2 << 20)), refused))
    made.append(("eleven megabytes of zeros", post(bytes(11 << 20), "/v1/emotion/audio"), refused))
    return tuple(made)


def bombs_over_http(site: Site) -> None:
    """All of `bombs`, again and again."""
    while not site.is_over:
        order = list(bombs())
        site.source.shuffle(order)
        for name, data, statuses in order:
            if site.is_over:
                return
            answer = site.ask(data, name, "POST")
            if answer is not None and answer.status not in statuses | FULL:
                said = f"{answer.status} {answer.body[:500]!r}"
                site.find("wrong", f"{name}: answered with {answer.status}", said, data[:65_536])


def _headers(source: Random) -> dict[str, str | bytes]:
    made: dict[str, str | bytes] = {}
    for _ in range(source.choice((1, 1, 2, 5))):
        value: str | bytes = source.choice(VALUES)
        if source.random() < 0.2:
            value = bytes(byte for byte in source.randbytes(12) if byte >= 32)
        made[source.choice(HEADERS)] = value
    return made


def _query(source: Random) -> str:
    value = source.choice(VALUES)
    name = source.choice(QUERIES)
    if source.random() < 0.2:
        return f"{name}=%{source.randrange(256):02x}%{source.randrange(256):02x}"
    return f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}"
