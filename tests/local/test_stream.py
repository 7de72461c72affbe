"""Speech over real sockets into the real gateway: answers, cuts, refusals."""

from __future__ import annotations

import asyncio
import io
import json
import random
import wave
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from recordings import CAPTURED_AT, Waveform, speakers, waveform_of
from served import serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from amser import wire
from amser.client.stream import Event, StreamClient, StreamSettings, stream
from amser.codecs.klt import HEADER, StreamEncoder
from amser.features import SAMPLE_RATE, log_mel
from deployments.settings import Settings

PIECE = SAMPLE_RATE // 10


@pytest.fixture(scope="module")
def replica() -> Iterator[tuple[str, Any]]:
    settings = Settings(
        auth="none", profile="fused", requests={"deadline_s": 90}, streams={"burst_s": 400, "idle_s": 2}
    )
    with serving(settings) as served:
        yield served


@pytest.fixture(scope="module")
def url(replica: tuple[str, Any]) -> str:
    return replica[0]


@pytest.fixture(scope="module")
def spoken() -> Waveform:
    """Some seconds of a speaker, as 16-bit samples have them."""
    waveform = waveform_of(speakers(1)[0]["path"])
    return np.rint(waveform * 32768).clip(-32768, 32767).astype(np.float32) / 32768


def compared(answer: dict[str, Any]) -> dict[str, Any]:
    """What has to be equal: all but ids and times."""
    kept = (
        "emotion",
        "probabilities",
        "confidence",
        "transcript",
        "speech",
        "speech_probability",
        "doubts",
        "degraded",
    )
    return {name: answer[name] for name in kept}


async def said(settings: StreamSettings, waveform: Waveform, pace: float = 0.0) -> tuple[list[Event], StreamClient]:
    events: list[Event] = []
    async with StreamClient(settings) as client:
        for start in range(0, waveform.size, PIECE):
            client.send(waveform[start : start + PIECE])
            await asyncio.sleep(pace)
        client.end()
        async for event in client.events():
            events.append(event)
            if event.type != "partial":
                return events, client
    raise AssertionError("no final answer")


def uploaded(url: str, waveform: Waveform) -> dict[str, Any]:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform * 32768).astype("<i2").tobytes())
    answer: dict[str, Any] = httpx.post(f"{url}/v1/emotion/audio", content=content.getvalue(), timeout=120).json()
    return answer


def of_envelope(url: str, waveform: Waveform) -> dict[str, Any]:
    import uuid

    mel = log_mel(waveform, clamp=False)
    encoder = StreamEncoder()
    payload = encoder.push(mel) + encoder.finish()
    envelope = wire.Envelope(
        "klt", "whisper80", mel.shape[1], mel.shape[1] / 100, None, "a-test", uuid.uuid4(), CAPTURED_AT, payload
    )
    headers = {"Content-Type": wire.MEDIA_TYPE}
    answer: dict[str, Any] = httpx.post(
        f"{url}/v1/emotion", content=wire.pack(envelope), headers=headers, timeout=120
    ).json()
    return answer


async def test_pcm_gets_the_answer_of_the_upload(url: str, spoken: Waveform) -> None:
    events, _ = await said(StreamSettings(url, format="pcm16"), spoken)
    assert compared(events[-1].document["answer"]) == compared(await asyncio.to_thread(uploaded, url, spoken))
    assert events[-1].document["answer"]["input"]["codec"] == "pcm16"


async def test_klt_gets_the_answer_of_the_envelope_from_a_hundredth_of_the_bytes(url: str, spoken: Waveform) -> None:
    events, client = await said(StreamSettings(url, frontend="numpy"), spoken)
    assert compared(events[-1].document["answer"]) == compared(await asyncio.to_thread(of_envelope, url, spoken))
    assert client.bytes_sent < 420 * spoken.size / SAMPLE_RATE + 150


async def test_words_come_while_somebody_speaks_and_stable_ones_stay(url: str, spoken: Waveform) -> None:
    events, _ = await said(StreamSettings(url), spoken, pace=0.1)
    partials = [event for event in events if event.type == "partial"]
    assert partials
    assert any(event.text for event in partials)
    assert any(event.emotion for event in partials)
    for before, later in zip(partials, partials[1:], strict=False):
        assert later.stable.startswith(before.stable)
        assert later.text.startswith(later.stable)


async def test_the_cluster_says_where_an_utterance_ends(url: str, spoken: Waveform) -> None:
    pause = np.random.default_rng(0).normal(0, 1e-4, SAMPLE_RATE).astype(np.float32)
    both = np.concatenate((spoken, pause, spoken, pause))
    finals: list[Event] = []
    async with StreamClient(StreamSettings(url, ends="cluster")) as client:
        for start in range(0, both.size, PIECE):
            client.send(both[start : start + PIECE])
            await asyncio.sleep(0.05)
        async for event in client.events():
            if event.type == "final":
                finals.append(event)
                if sum(len(each.text) for each in finals) > 1.5 * len(finals[0].text) and len(finals) > 1:
                    break
    assert [event.utterance for event in finals] == list(range(len(finals)))
    assert all(event.document["reason"] == "pause" for event in finals)


async def test_cuts_lose_no_word_and_double_none(url: str, spoken: Waveform) -> None:
    whole = (await said(StreamSettings(url), spoken))[0][-1]
    chance = random.Random(1)
    async with StreamClient(StreamSettings(url)) as client:

        async def cut() -> None:
            while True:
                await asyncio.sleep(chance.uniform(0.05, 0.4))
                if client._connection is not None:
                    client._connection.transport.abort()

        cutting = asyncio.create_task(cut())
        for start in range(0, spoken.size, PIECE):
            client.send(spoken[start : start + PIECE])
            await asyncio.sleep(0.05)
        client.end()
        await asyncio.sleep(0.5)
        cutting.cancel()
        final = await asyncio.wait_for(client.final(), 60)
    assert client.connections > 3
    assert compared(final.document["answer"]) == compared(whole.document["answer"])


async def test_another_replica_gets_the_utterance_anew(replica: tuple[str, Any], spoken: Waveform) -> None:
    url, served = replica
    whole = (await said(StreamSettings(url), spoken))[0][-1]
    async with StreamClient(StreamSettings(url)) as client:
        client.send(spoken[: spoken.size // 2])
        await asyncio.sleep(1)
        assert client._connection is not None
        client._connection.transport.abort()
        await asyncio.sleep(0.05)
        served._streams._sessions._left.clear()
        served._streams._sessions._open.clear()
        client.send(spoken[spoken.size // 2 :])
        client.end()
        final = await asyncio.wait_for(client.final(), 60)
    assert compared(final.document["answer"]) == compared(whole.document["answer"])


def test_the_synchronous_stream_ends_with_the_answer(url: str, spoken: Waveform) -> None:
    pieces = [spoken[start : start + PIECE] for start in range(0, spoken.size, PIECE)]
    events = list(stream(pieces, StreamSettings(url)))
    assert events[-1].type == "final"
    assert events[-1].text


async def test_an_utterance_that_is_too_short_fails_and_the_stream_goes_on(url: str, spoken: Waveform) -> None:
    async with StreamClient(StreamSettings(url)) as client:
        assert not client.end()
        client.send(spoken[:800])
        assert client.end()
        assert (await client.final()).document["problem"]["type"] == "/problems/unusable"
        client.send(spoken)
        client.end()
        assert (await client.final()).type == "final"


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        ("{}", "bad-message"),
        ('{"type":"ping"}', "bad-message"),
        ('{"type":"start","format":"klt"}', "bad-message"),
        ('{"type":"start","format":"klt","header":"000000"}', "malformed"),
        ('{"type":"start","format":"pcm16","language":"xx"}', "unknown-language"),
        ('{"type":"start","format":"pcm16","emotions":"bored,angry"}', "unknown-emotions"),
    ],
)
async def test_a_start_that_is_none_is_told_what_is_wrong(url: str, first: str, kind: str) -> None:
    async with connect(f"ws{url[4:]}/v1/stream") as socket:
        await socket.send(first)
        message = json.loads(await socket.recv())
        assert message["type"] == "error"
        assert message["problem"]["type"] == f"/problems/{kind}"
        with pytest.raises(ConnectionClosed):
            await socket.recv()


async def test_a_block_that_is_cut_is_refused(url: str) -> None:
    async with connect(f"ws{url[4:]}/v1/stream") as socket:
        encoder = StreamEncoder()
        blocks = encoder.push(np.zeros((80, 16), np.float32))
        await socket.send(json.dumps({"type": "start", "format": "klt", "header": blocks[:HEADER].hex()}))
        assert json.loads(await socket.recv())["type"] == "ready"
        await socket.send(blocks[HEADER:-1])
        assert json.loads(await socket.recv())["problem"]["type"] == "/problems/malformed"


async def test_who_says_nothing_is_closed(url: str) -> None:
    async with connect(f"ws{url[4:]}/v1/stream") as socket:
        await socket.send('{"type":"start","format":"pcm16"}')
        await socket.recv()
        await socket.send('{"type":"ping"}')
        assert json.loads(await socket.recv()) == {"type": "pong"}
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4000


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/v1/emotion", {}, 404), ("/nothing", {}, 404), ("/v1/stream", {"Origin": "https://evil.example"}, 403)],
)
async def test_a_socket_that_is_refused_gets_a_problem_document(
    url: str, path: str, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws{url[4:]}{path}", additional_headers=headers)
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["Content-Type"] == "application/problem+json"


async def test_a_replica_that_ends_tells_its_clients_to_go_elsewhere(replica: tuple[str, Any]) -> None:
    url, served = replica
    async with connect(f"ws{url[4:]}/v1/stream") as socket:
        await socket.send('{"type":"start","format":"pcm16"}')
        await socket.recv()
        served._streams.drain()
        await socket.send('{"type":"ping"}')
        kinds = [json.loads(text)["type"] async for text in socket]
        assert kinds[-1] == "reconnect"
