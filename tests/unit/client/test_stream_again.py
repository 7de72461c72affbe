"""What a stream does when its connection ends: the cluster is played by a server that closes when it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from amser.client.stream import StreamClient, StreamFailed, StreamSettings
from amser.client.stream.asynchronous import MESSAGE_SAMPLES, WINDOW

PROBLEM = {"title": "Too many sockets", "detail": "this client has as many sockets as it may"}


@asynccontextmanager
async def cluster(behave: Callable[[int, ServerConnection], Any]) -> AsyncIterator[str]:
    """Its address. `behave` gets the number of the connection, from 0, after its `start`."""
    count = -1

    async def connected(connection: ServerConnection) -> None:
        nonlocal count
        count += 1
        await connection.recv()
        await behave(count, connection)

    async with serve(connected, "127.0.0.1", 0, subprotocols=["amser.v1"]) as server:  # type: ignore[list-item]
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def ready(connection: ServerConnection, following: int = 0) -> None:
    await connection.send(json.dumps({"type": "ready", "session": "one", "next": following, "utterance": 0}))


async def answered(connection: ServerConnection) -> None:
    """An answer to whatever ends."""
    async for message in connection:
        if isinstance(message, str) and json.loads(message)["type"] == "end":
            at = json.loads(message)["at"]
            answer = {"transcript": {"text": "Good morning."}, "emotion": "happy", "confidence": 0.7}
            await connection.send(json.dumps({"type": "final", "utterance": 0, "next": at, "answer": answer}))


async def refuse(connection: ServerConnection, **more: float) -> None:
    await connection.send(json.dumps({"type": "error", "problem": PROBLEM, **more}))
    await connection.close(1013 if more else 1008)


async def final_text(url: str, **settings: Any) -> str:
    async with StreamClient(StreamSettings(url, format="pcm16", **settings)) as client:
        client.send(np.zeros(2 * MESSAGE_SAMPLES))
        client.end()
        return (await client.final()).text


async def test_one_that_is_told_when_to_come_back_comes_back() -> None:
    async def behave(count: int, connection: ServerConnection) -> None:
        if count < 2:
            await refuse(connection, again_s=0.05)
            return
        await ready(connection)
        await answered(connection)

    async with cluster(behave) as url:
        assert await final_text(url) == "Good morning."


async def test_one_that_is_refused_for_good_says_why() -> None:
    async def behave(_: int, connection: ServerConnection) -> None:
        await refuse(connection)

    async with cluster(behave) as url:
        with pytest.raises(StreamFailed, match="Too many sockets") as failed:
            await final_text(url)
    assert failed.value.problem == PROBLEM


async def test_one_that_never_finds_room_says_why() -> None:
    async def behave(_: int, connection: ServerConnection) -> None:
        await ready(connection)
        await refuse(connection, again_s=0.05)

    async with cluster(behave) as url:
        with pytest.raises(StreamFailed, match="as many sockets as it may"):
            await final_text(url, give_up_s=3)


async def test_one_that_would_have_to_wait_too_long_says_so_at_once() -> None:
    async def behave(_: int, connection: ServerConnection) -> None:
        await refuse(connection, again_s=60)

    async with cluster(behave) as url:
        with pytest.raises(StreamFailed, match="as many sockets as it may"):
            await asyncio.wait_for(final_text(url, give_up_s=20), 15)


async def test_an_end_waits_for_the_answer_to_the_one_before() -> None:
    """A cluster without room answers `refused`: a second end would take both utterances as one."""
    ends: list[int] = []

    async def behave(_: int, connection: ServerConnection) -> None:
        await ready(connection)
        utterance = 0
        async for message in connection:
            if isinstance(message, bytes):
                continue
            at = json.loads(message)["at"]
            ends.append(at)
            if len(ends) == 1:
                await asyncio.sleep(0.2)
                refused = {"type": "refused", "utterance": 0, "again_s": 0.05, "problem": PROBLEM}
                await connection.send(json.dumps(refused))
                continue
            await connection.send(json.dumps({"type": "final", "utterance": utterance, "next": at, "answer": {}}))
            utterance += 1

    async with cluster(behave) as url, StreamClient(StreamSettings(url, format="pcm16")) as client:
        for _ in range(2):
            client.send(np.zeros(2 * MESSAGE_SAMPLES))
            client.end()
        assert [(await client.final()).utterance for _ in range(2)] == [0, 1]
    assert ends == [2, 2, 4]


async def test_a_cut_is_given_as_long_after_a_long_connection_as_after_a_short_one() -> None:
    async def behave(count: int, connection: ServerConnection) -> None:
        await ready(connection)
        if count == 0:
            await asyncio.sleep(0.6)  # longer than the client would wait without a connection
            connection.transport.abort()
            return
        await answered(connection)

    async with cluster(behave) as url:
        assert await final_text(url, give_up_s=0.5) == "Good morning."


async def test_no_more_is_on_its_way_than_the_cluster_has_room_for() -> None:
    taken: list[int] = []

    async def behave(_: int, connection: ServerConnection) -> None:
        await ready(connection)
        received = 0
        while True:
            try:
                message = await asyncio.wait_for(connection.recv(), 1)
            except TimeoutError:
                taken.append(received)
                await connection.send(json.dumps({"type": "ack", "next": received, "first": 0}))
                continue
            if isinstance(message, str):
                final = {"type": "final", "utterance": 0, "next": received, "answer": {}}
                await connection.send(json.dumps(final))
                return
            received += 1

    async with cluster(behave) as url, StreamClient(StreamSettings(url, format="pcm16")) as client:
        client.send(np.zeros(80 * MESSAGE_SAMPLES))
        client.end()
        await client.final()
    assert taken == [WINDOW, 2 * WINDOW]
