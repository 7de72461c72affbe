"""What a device reads: the cluster's answers, whoever sends them, and its spool, whatever a disk made of it."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import ClassVar
from uuid import uuid4

import httpx
from answering import ANSWER
from recordings import CAPTURED_AT

from amser.client.delivery import Delivery, DeliverySettings
from amser.client.device import DeviceSettings
from amser.client.exchange.utterances import Utterance
from amser.client.spool import Spool, SpoolLimits
from amser.client.spool_view import SpoolError
from tests.fuzz.mutations import mutate_document
from tests.fuzz.targets.base import Target
from tests.fuzz.targets.envelope import envelopes

HEADERS = ("Content-Type", "Retry-After", "Date", "Amser-Rate-Hint", "Preference-Applied", "Content-Encoding")
TEXT_TOKENS = tuple(
    token.encode()
    for token in (
        "1e999", "-1", "NaN", "Infinity", "9" * 400, "null", "true", "[]", "{}", '"\\ud800"', '"\\u0000"', "[[[[",
        '"text"', '"transcript"', '"emotion"', '"probabilities"', '"confidence"', '"doubts"', '"degraded"',
        '"parameter":"language"', '"status"', "step=22;reason=noise", "Wed, 21 Oct 2026 07:28:00 GMT", "gzip",
        "deflate",
        "429", "503", "422", "200", "307", "\n", "٣", "-99:99",
    )
)  # fmt: skip


def shared_memory() -> Path:
    """A folder in memory where there is one: files of SQLite are synced at every step."""
    return Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


class Answers(Target):
    """A whole delivery: spool → device → answer → spool. An input is a status, headers and a body, a line each."""

    name: ClassVar[str] = "answers"
    tokens: ClassVar[tuple[bytes, ...]] = TEXT_TOKENS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._response = httpx.Response(500)
        self._files = Path(tempfile.mkdtemp(prefix="amser-fuzz-", dir=shared_memory()))
        self._spool = Spool(self._files / "answers.spool", SpoolLimits(max_results=5))
        self._delivery = Delivery(DeviceSettings(url="http://127.0.0.1:9"), DeliverySettings(partial_answers=1))
        self._delivery.__enter__()
        transport = httpx.MockTransport(lambda _: self._response)
        self._delivery._device._connection._client = httpx.Client(transport=transport)
        self._envelope = envelopes()[0]

    def seeds(self) -> list[bytes]:
        problem = json.dumps(
            {"type": "about:blank", "title": "No", "status": 422, "parameter": "language", "detail": ""}
        )
        refused = f"422\n\n\n\n\n\n\n{problem}"
        busy = "429\napplication/problem+json\n5\nWed, 21 Oct 2026 07:28:00 GMT\n\n\n\n{}"
        good = b"200\napplication/json\n\n\nstep=22;reason=noise\nhandling=strict\n\n" + ANSWER
        return [good, refused.encode(), busy.encode(), b"307\n\n\n\n\n\n\n", b"200\n\n\n\n\n\ngzip\n\x1f\x8b"]

    def accepts(self, data: bytes) -> bool:
        status, *values = data.split(b"\n", len(HEADERS) + 1)
        body = values.pop() if len(values) > len(HEADERS) else b""
        headers = [(name.encode(), value) for name, value in zip(HEADERS, values, strict=False) if value]
        code = int(status) if status.isdigit() and len(status) == 3 and status[0] in b"2345" else 200
        self._response = httpx.Response(code, headers=headers, stream=httpx.ByteStream(body))
        utterance = Utterance(self._envelope, uuid4(), 1.0, 1.0)
        self._spool.put(utterance, CAPTURED_AT)
        results = list(self._delivery.batch(self._spool))
        stored = self._spool.results()
        if results:
            assert stored[-1] == results[-1] or _has_nan(results[-1].answer), "what was stored is not what was read"
        for waiting in self._spool.waiting():
            assert math.isfinite(waiting.not_before), "an utterance that waits for ever"
            self._spool.refuse(waiting.utterance_id, "tried")
        return bool(results)

    def mutated(self, data: bytes, source: Random, others: tuple[bytes, ...]) -> bytes:
        *head, body = data.split(b"\n", len(HEADERS) + 1)
        with suppress(ValueError, RecursionError):
            if source.random() < 0.6:
                document = mutate_document(json.loads(body), source)
                return b"\n".join([*head, json.dumps(document, ensure_ascii=source.random() < 0.9).encode()])
        return super().mutated(data, source, others)

    def close(self) -> None:
        self._delivery.__exit__(None, None, None)
        self._spool.close()
        shutil.rmtree(self._files, ignore_errors=True)


def _has_nan(answer: object) -> bool:
    return "nan" in repr(answer).lower()


class Spools(Target):
    """A spool whose file a disk has damaged: it is used, or it is refused as damaged and left as it is."""

    name: ClassVar[str] = "spool"
    tokens: ClassVar[tuple[bytes, ...]] = (b"SQLite format 3\0", b"AMSP", b"CREATE TABLE", b"waiting", b"results", b"{")
    slowest_s: ClassVar[float] = 10.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files = Path(tempfile.mkdtemp(prefix="amser-fuzz-", dir=shared_memory()))
        self._path = self._files / "damaged.spool"

    def seeds(self) -> list[bytes]:
        made = self._files / "made.spool"
        with Spool(made) as spool:
            empty = self._content(made, spool)
            spoken = [Utterance(b"AMSR" + bytes(100), uuid4(), 1.0, 1.5) for _ in range(6)]
            for each in spoken:
                spool.put(each, datetime.now(UTC), note="a note")
            answers = Answers(self.folder)
            try:
                answers.accepts(answers.seeds()[0])
                (result, *_) = answers._spool.results()
            finally:
                answers.close()
            assert result.answer is not None
            spool.settle(spoken[0].utterance_id, result.answer)
            spool.refuse(spoken[1].utterance_id, "422 Unprocessable")
            spool.postpone(spoken[2].utterance_id, 5)
            return [empty, self._content(made, spool)]

    def accepts(self, data: bytes) -> bool:
        for left in self._files.glob("damaged.spool*"):
            left.unlink()
        self._path.write_bytes(data)
        try:
            with Spool(self._path) as spool:
                spool.waiting(), spool.results(), spool.drops(), spool.next_due_s()
                spool.expire()
                for each in spool.due(10):
                    spool.utterance(each.utterance_id)
                utterance = Utterance(b"AMSR", uuid4(), 1.0, 1.0)
                spool.put(utterance, CAPTURED_AT)
                spool.refuse(utterance.utterance_id, "tried")
        except SpoolError as error:
            str(error).encode()
            return False
        return True

    def close(self) -> None:
        shutil.rmtree(self._files, ignore_errors=True)

    @staticmethod
    def _content(path: Path, spool: Spool) -> bytes:
        spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()
