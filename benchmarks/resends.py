"""Microseconds that a request costs where answers are kept for resends, by the store that keeps them.

python -m benchmarks.resends --redis redis://127.0.0.1:6379/0

The pipeline is left out: what is measured is the key, the store and the bookkeeping of one event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
from rich.table import Table

from amser.client.device import Device, DeviceSettings
from amser.features import SAMPLE_RATE
from amser.wire import unpack
from benchmarks.measuring import command
from benchmarks.measuring.console import output, table
from benchmarks.measuring.report import write_rows
from deployments.gateway.answer_store import AnswerStore, EmbeddedStore, RedisStore
from deployments.gateway.idempotency import Idempotency, Reply
from deployments.gateway.preferences import Preferences
from deployments.replica.deadline import NEVER
from deployments.settings import IdempotencySettings
from load_tests.commands import count

ANSWER: Final = Reply(b"x" * 1500, {"Server-Timing": "x" * 300, "Amser-Request-Id": "x" * 36})
PREFERENCES: Final = Preferences(25.0, NEVER, strict=True)
SPEECH_S: Final = 4
ROUND: Final = 400  # utterances that are new, then sent again


@command.benchmark("resends")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    settings = IdempotencySettings()
    with tempfile.TemporaryDirectory() as folder:
        embedded = EmbeddedStore(
            Path(folder) / "answers",
            ttl_s=settings.ttl_s,
            max_answers=settings.max_answers,
            max_bytes=settings.max_bytes,
        )
        stores: dict[str, AnswerStore | None] = {"none": None, "embedded": embedded}
        if options.redis:
            stores["redis"] = RedisStore(options.redis, settings.ttl_s)
        rows = asyncio.run(_rows(stores, options.rounds, settings))
    write_rows(options.json, rows)
    output().print(costs_table(rows))


async def _rows(
    stores: dict[str, AnswerStore | None], rounds: int, settings: IdempotencySettings
) -> list[dict[str, Any]]:
    full = stores["embedded"]
    assert full is not None
    for _ in range(settings.max_answers):
        await full.put(os.urandom(32), ANSWER.to_bytes())
    return [await _row(name, Idempotency(store, settings.ttl_s), rounds) for name, store in stores.items()]


async def _row(name: str, resends: Idempotency, rounds: int) -> dict[str, Any]:
    noise = np.random.default_rng(0).standard_normal(SPEECH_S * SAMPLE_RATE, dtype=np.float32) * np.float32(0.1)
    envelope = unpack(Device(DeviceSettings()).encode(noise, datetime.now(UTC)).envelope)
    times: dict[str, list[float]] = {"first": [], "resend": []}
    for _ in range(rounds):
        spoken = [replace(envelope, utterance_id=uuid4()) for _ in range(ROUND)]
        for into in times.values():
            for each in spoken:
                started = time.perf_counter()
                await resends.once(resends.key({}, each, PREFERENCES), _answered)
                into.append(1e6 * (time.perf_counter() - started))
    row: dict[str, Any] = {"store": name, "n": rounds * ROUND, "payload_bytes": len(envelope.payload)}
    return row | {f"{kind}_us": round(float(np.median(each)), 1) for kind, each in times.items()}


async def _answered() -> Reply:
    return ANSWER


def costs_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows as they are printed."""
    made = table("Keeping answers: median microseconds a request", ("store", "first", "resend"))
    for row in rows:
        made.add_row(row["store"], f"{row['first_us']:.1f}", f"{row['resend_us']:.1f}")
    return made


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("resends", __doc__)
    parser.add_argument("--redis", metavar="URL", help="of a Redis server, to be measured too")
    parser.add_argument("--rounds", type=count, default=5, help=f"of {ROUND} utterances (default: 5)")
    return parser


if __name__ == "__main__":
    main()
