"""Bodies that are handed on from a file: whole, as plain messages, and a few pieces at a time."""

from __future__ import annotations

import asyncio
import pickle
from tempfile import TemporaryFile

import pytest
from starlette.types import Message

from deployments.intake.bodies import Bodies, BodyTooLarge, TooManyBodies
from deployments.intake.handing import PIECE, UNDER_WAY, hand_on
from deployments.intake.limits import BodySettings


async def disconnected() -> Message:
    return {"type": "http.disconnect"}


async def test_a_body_is_handed_on_no_faster_than_it_is_taken() -> None:
    content = bytes(range(251)) * (2 * UNDER_WAY * PIECE // 251)
    with TemporaryFile() as file:
        file.write(content)
        receive = hand_on(file, disconnected)
        held = [await receive() for _ in range(UNDER_WAY)]
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        got = [pickle.loads(pickle.dumps(piece)) for piece in held]  # as Ray's proxy sends them
        held.clear()
        got.append(dict(await waiting))
        del waiting
        while got[-1]["more_body"]:
            got.append(dict(await receive()))
        assert all(type(piece) is dict for piece in got)
        assert b"".join(piece["body"] for piece in got) == content
        assert await receive() == {"type": "http.disconnect"}


async def test_an_empty_body_is_one_message() -> None:
    with TemporaryFile() as file:
        assert dict(await hand_on(file, disconnected)()) == {"type": "http.request", "body": b"", "more_body": False}


async def test_a_spooled_body_is_in_a_file_and_its_bytes_are_limited() -> None:
    bodies = Bodies(BodySettings(held_bytes=1000))

    async def pieces(count: int):  # type: ignore[no-untyped-def]
        for _ in range(count):
            yield bytes(100)

    async with bodies.spooled(pieces(6), "client", 600) as file:
        assert file.read() == bytes(600)
        assert bodies.held_bytes == 600
        with pytest.raises(TooManyBodies):
            async with bodies.spooled(pieces(6), "client", 600):
                pass
    assert bodies.held_bytes == 0
    with pytest.raises(BodyTooLarge):
        async with bodies.spooled(pieces(7), "client", 600):
            pass
    assert bodies.held_bytes == 0
