"""What the gateway reads beside bodies: headers and queries, and the answers that it kept under a request's key."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final
from uuid import UUID

from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response

from amser import wire
from deployments.gateway.answer_store import EmbeddedStore, StoreUnavailable
from deployments.gateway.idempotency import Idempotency, Reply
from deployments.gateway.preferences import LANGUAGE, Preferences, read_language, read_preferences
from deployments.gateway.problems import Refusal
from tests.fuzz.targets.base import Target
from tests.fuzz.targets.client import shared_memory
from tests.fuzz.targets.envelope import envelopes

CLASSES: Final = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
LANGUAGES: Final = frozenset({"en", "de", "pt", "zh", "haw"})


class Requests(Target):
    """Headers and query parameters. An input is a query, then values of headers, a line each."""

    name: ClassVar[str] = "headers"
    tokens: ClassVar[tuple[bytes, ...]] = (
        b"emotions=", b"language=", b"handling=strict", b"auto", b"en-US", b"zh-Hant-TW", b"%00", b"%ff", b"&", b",",
        b"1e9",
        b"9" * 400, "١٢".encode(), b"no-store", b"x-klingon", b"i-default", b"angry,sad",
    )  # fmt: skip

    def seeds(self) -> list[bytes]:
        return [
            b"language=pt-BR&emotions=angry,happy\nhandling=strict\n2500\nno-store",
            b"language=auto\nrespond-async, handling=strict; foo=bar\n1\n",
            b"emotions=angry&emotions=sad\n\n0\nmax-age=0, no-store",
            b"language=de-Latn-1996-x-private\n\n\n",
        ]

    def accepts(self, data: bytes) -> bool:
        query, *values = data.split(b"\n", 3)
        names = (b"prefer", b"amser-deadline-ms", b"cache-control")
        headers = Headers(raw=list(zip(names, values, strict=False)))
        parameters = QueryParams(query)
        try:
            preferences = read_preferences(headers, parameters, longest_s=25.0, classes=CLASSES)
            language = read_language(parameters.get(LANGUAGE), LANGUAGES)
        except Refusal as refused:
            refused.problem("id").model_dump_json(exclude_none=True).encode()
            return False
        assert 0 < preferences.within_s <= 25
        assert language is None or language in LANGUAGES
        assert not preferences.emotions or len(preferences.emotions) >= 2
        return True


class Keys(Target):
    """Requests that are the same must have one key, others another; what the store gives back must be an answer."""

    name: ClassVar[str] = "keys"
    tokens: ClassVar[tuple[bytes, ...]] = (
        b"{}",
        b"null",
        b'{"a": 1}',
        b'{"a": "\\n"}',
        b'{"\\u0100": "\\ud800"}',
        b"\n",
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files = Path(tempfile.mkdtemp(prefix="amser-fuzz-", dir=shared_memory()))
        self._store = EmbeddedStore(self._files / "keys", ttl_s=60, max_answers=100, max_bytes=1 << 20)
        self._resends = Idempotency(self._store, ttl_s=60)
        self._loop = asyncio.new_event_loop()
        self._envelope = wire.unpack(envelopes()[0])
        self._own = self._resends.key({}, self._envelope, Preferences(1.0, 1.0, False))

    def seeds(self) -> list[bytes]:
        reply = Reply(b'{"text": "a"}', {"Server-Timing": "asr;dur=1", "Amser-Request-Id": "id"})
        return [reply.to_bytes(), b"{}\n", b"\n{}", b"[1]\n", b'{"a": 5}\n', envelopes()[0][20:60]]

    def accepts(self, data: bytes) -> bool:
        self._keys_differ(data)
        return self._loop.run_until_complete(self._is_replayed(data))

    def close(self) -> None:
        self._store.close()
        self._loop.close()
        shutil.rmtree(self._files, ignore_errors=True)

    def _keys_differ(self, data: bytes) -> None:
        preferences = Preferences(1.0, 1.0, bool(data[:1] > b"\x7f"))
        other = replace(self._envelope, utterance_id=UUID(bytes=(data + bytes(16))[:16]), payload=data)
        one, same = (self._resends.key({}, each, preferences) for each in (other, replace(other)))
        assert one == same, "the same request has another key"
        assert one != self._own, "another request has the same key"

    async def _is_replayed(self, data: bytes) -> bool:
        key = data[-32:]
        await self._store.put(key, data)
        ran = False

        async def run() -> Reply:
            nonlocal ran
            ran = True
            return Reply(b"computed", {})

        reply = await self._resends.once(key, run)
        Response(reply.body, headers={**reply.headers})
        return not ran


class Stores(Target):
    """The file in which the gateway keeps answers, damaged: it is read, or begun anew; nothing else comes of it."""

    name: ClassVar[str] = "store"
    tokens: ClassVar[tuple[bytes, ...]] = (b"SQLite format 3\0", b"CREATE TABLE", b"answers", b"{")
    slowest_s: ClassVar[float] = 10.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files = Path(tempfile.mkdtemp(prefix="amser-fuzz-", dir=shared_memory()))
        self._loop = asyncio.new_event_loop()

    def seeds(self) -> list[bytes]:
        made = self._made("made")
        for each in range(20):
            self._loop.run_until_complete(made.put(b"key%d" % each, b"{}\n" + bytes(each * 50)))
        made._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        made.close()
        return [(self._files / "made" / "answers.sqlite").read_bytes()]

    def accepts(self, data: bytes) -> bool:
        folder = self._files / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        (folder / "answers.sqlite").write_bytes(data)
        try:
            store = self._made("damaged")
        except StoreUnavailable:
            return False
        try:
            return self._loop.run_until_complete(self._used(store))
        finally:
            store.close()

    def close(self) -> None:
        self._loop.close()
        shutil.rmtree(self._files, ignore_errors=True)

    async def _used(self, store: EmbeddedStore) -> bool:
        well = True
        for each in range(3):
            try:
                await store.get(b"key%d" % each)
                await store.put(b"new%d" % each, b"{}\n")
                store.expire()
            except StoreUnavailable:
                well = False
        return well

    def _made(self, name: str) -> EmbeddedStore:
        return EmbeddedStore(self._files / name, ttl_s=60, max_answers=30, max_bytes=100_000)
