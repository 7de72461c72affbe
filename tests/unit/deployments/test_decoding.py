"""Uploads are decoded in processes that may die: of a file, of a signal, of a limit, and nobody else notices."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from audio_bombs import BOMBS, STATUS_OF_A_BOMB, wav_of_32_channels
from recordings import DATA, Waveform, audio_file, noise

from amser import audio
from amser.audio import AudioTooCostly, AudioTooLong
from amser.errors import SignalError
from amser.features import SAMPLE_RATE
from deployments.gateway.uploads.decoding import DecoderCrashed, Decoders, DecoderUnavailable
from deployments.gateway.utterances.answers import refusal
from deployments.settings import DecodingSettings

MAX_FRAMES = 3000
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def wav() -> bytes:
    return audio_file(noise(3), "wav", "pcm_s16le")


@pytest.fixture(scope="module")
def shared() -> Iterator[Decoders]:
    """Workers that see what the tests before have sent."""
    decoders = Decoders(DecodingSettings(workers=1), MAX_FRAMES)
    yield decoders
    decoders.close()


@pytest.fixture
def decoders(request: pytest.FixtureRequest) -> Iterator[Decoders]:
    """With the settings that a test is marked with, see `settings`."""
    opened = Decoders(DecodingSettings(**request.param), MAX_FRAMES)
    yield opened
    opened.close()


def settings(**values: float) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("decoders", [values], indirect=True, ids=[""])


def peak(pid: int) -> int:
    """Bytes of resident memory that a process had at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def in_process(content: bytes) -> Waveform:
    return audio.decode(io.BytesIO(content), MAX_FRAMES).waveform


async def gone(pid: int, within_s: float = 20) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.05)
                continue
        return True
    return False


async def test_a_file_is_decoded_as_in_this_process(shared: Decoders, wav: bytes) -> None:
    for content in (wav, (DATA / "cases" / "mediarecorder.webm").read_bytes()):
        heard = await shared.decode(content)
        assert heard.format == ("wav" if content is wav else "webm")
        assert heard.waveform.dtype == np.float32
        np.testing.assert_array_equal(heard.waveform, in_process(content))


@pytest.mark.parametrize(("content", "error"), BOMBS.values(), ids=BOMBS)
async def test_a_bomb_gets_its_status_and_stays_small(shared: Decoders, wav: bytes, content: bytes, error: str) -> None:
    await shared.decode(wav)
    (pid,) = shared.pids()
    with pytest.raises(SignalError) as refused:
        await shared.decode(content)
    assert type(refused.value).__name__ == error
    answer = refusal(refused.value, within_s=25, retry_after_s=1)
    assert answer is not None
    assert answer.status == STATUS_OF_A_BOMB[error]
    assert answer.limit
    assert shared.pids() == [pid]  # refused, not died of
    assert peak(pid) < 160 * MEGABYTE


async def test_eight_channels_of_one_sample_are_one_sample(shared: Decoders) -> None:
    heard = await shared.decode((DATA / "cases" / "eight-channels-52-bytes.wav").read_bytes())
    assert heard.waveform.size == 1


async def test_a_recording_over_the_limit_is_refused_as_such(shared: Decoders) -> None:
    with pytest.raises(AudioTooLong) as refused:
        await shared.decode(audio_file(noise(31), "flac", "flac"))
    assert refused.value.limit == "up to 30 s"


@settings(workers=1, memory_mb=64)
async def test_what_takes_more_memory_than_it_may_is_refused(decoders: Decoders, wav: bytes) -> None:
    await decoders.decode(wav)
    (pid,) = decoders.pids()
    idle = peak(pid)
    with pytest.raises(AudioTooCostly, match="too much memory"):
        await decoders.decode(wav_of_32_channels())
    assert peak(pid) - idle < 64 * MEGABYTE
    assert (await decoders.decode(wav)).waveform.size == 3 * SAMPLE_RATE


@settings(workers=1, cpu_s=1, memory_mb=300)
async def test_the_kernel_holds_the_limits(decoders: Decoders, wav: bytes) -> None:
    await decoders.decode(wav)
    (pid,) = decoders.pids()
    assert resource.prlimit(pid, resource.RLIMIT_CPU)[0] in (2, 3)  # one second, and what it had used, rounded up
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    space, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    assert space == hard
    assert space - psutil.Process(pid).memory_info().vms <= 300 * MEGABYTE


@pytest.mark.parametrize(
    ("sent", "error", "cause"),
    [
        (signal.SIGSEGV, DecoderCrashed, "the decoder broke down on this file"),
        (signal.SIGKILL, DecoderCrashed, "the decoder broke down on this file"),
        (signal.SIGXCPU, AudioTooCostly, "decoding the audio takes too much computing time; accepted: 5 s"),
    ],
)
async def test_a_worker_that_dies_costs_its_own_request(
    wav: bytes, sent: signal.Signals, error: type[SignalError], cause: str
) -> None:
    decoders = Decoders(DecodingSettings(), MAX_FRAMES)
    try:
        await asyncio.gather(*(decoders.decode(wav) for _ in range(2)))
        victim = decoders.pids()[-1]  # the next in turn
        os.kill(victim, signal.SIGSTOP)
        dying = asyncio.ensure_future(decoders.decode(wav))
        await asyncio.sleep(0.2)
        assert victim not in decoders.pids()
        neighbours = [asyncio.ensure_future(decoders.decode(wav)) for _ in range(5)]
        os.kill(victim, sent)
        os.kill(victim, signal.SIGCONT)
        with pytest.raises(error) as refused:
            await dying
        assert str(refused.value).startswith(cause)
        answer = refusal(refused.value, within_s=25, retry_after_s=1)
        assert answer is not None
        assert answer.status == 422
        for heard in await asyncio.gather(*neighbours):
            assert heard.waveform.size == 3 * SAMPLE_RATE
        assert await gone(victim)
        assert len(decoders.pids()) == 2  # it was replaced
    finally:
        decoders.close()


async def test_a_worker_that_died_while_it_was_idle_costs_no_request(wav: bytes) -> None:
    decoders = Decoders(DecodingSettings(workers=1), MAX_FRAMES)
    await decoders.decode(wav)
    (pid,) = decoders.pids()
    os.kill(pid, signal.SIGKILL)
    assert await gone(pid)
    assert (await decoders.decode(wav)).waveform.size == 3 * SAMPLE_RATE
    decoders.close()


@settings(workers=1, wall_s=1)
async def test_a_worker_that_takes_too_long_is_killed(decoders: Decoders, wav: bytes) -> None:
    await decoders.decode(wav)
    (pid,) = decoders.pids()
    for content in (wav, bytes(5_000_000)):  # the second does not fit into the socket
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(AudioTooCostly, match="takes too long; accepted: 1 s"):
            await decoders.decode(content)
        assert 0.9 < time.monotonic() - began < 6
        assert await gone(pid)
        await decoders.decode(wav)
        (pid,) = decoders.pids()


@settings(workers=1, wall_s=1)
async def test_a_client_that_leaves_frees_its_worker_and_its_place_in_the_queue(decoders: Decoders, wav: bytes) -> None:
    await decoders.decode(wav)
    os.kill(decoders.pids()[0], signal.SIGSTOP)
    left = [asyncio.ensure_future(decoders.decode(wav)) for _ in range(20)]
    await asyncio.sleep(0.2)
    for request in left:
        request.cancel()
    began = time.monotonic()
    assert (await decoders.decode(wav)).waveform.size == 3 * SAMPLE_RATE
    assert time.monotonic() - began < 15  # the limit and the start of another process; not twenty times the limit


@settings(workers=1, requests=2)
async def test_a_worker_is_replaced_after_its_time(decoders: Decoders, wav: bytes) -> None:
    pids = []
    for _ in range(4):
        await decoders.decode(wav)
        pids += decoders.pids()
    first, second, again, third = pids
    assert second == again  # started in place of the first one after its second file
    assert len({first, second, third}) == 3


@settings(workers=1, resident_mb=1)
async def test_a_worker_that_grew_is_replaced(decoders: Decoders, wav: bytes) -> None:
    await decoders.decode(wav)
    (pid,) = decoders.pids()
    await decoders.decode(wav)
    assert await gone(pid)


@settings(workers=1)
async def test_a_worker_is_small_and_knows_no_secrets(
    decoders: Decoders, wav: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMSER_API_KEY", "secret")
    await decoders.decode(wav)
    (pid,) = decoders.pids()
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    loaded = Path(f"/proc/{pid}/maps").read_text()
    assert "libav" in loaded
    assert "/torch/" not in loaded
    assert "/ray/" not in loaded
    assert peak(pid) < 120 * MEGABYTE


@pytest.mark.parametrize("interpreter", ["/nowhere/python", "/bin/false"])
async def test_where_no_worker_starts_it_is_no_fault_of_the_file(
    wav: bytes, monkeypatch: pytest.MonkeyPatch, interpreter: str
) -> None:
    decoders = Decoders(DecodingSettings(), MAX_FRAMES)
    monkeypatch.setattr(sys, "executable", interpreter)
    with pytest.raises(DecoderUnavailable) as failed:
        await decoders.decode(wav)
    answer = refusal(failed.value, within_s=25, retry_after_s=1)
    assert answer is not None
    assert (answer.status, answer.retry_after_s) == (503, 1)
    monkeypatch.undo()
    assert all([await gone(pid) for pid in decoders.pids()])
    assert (await decoders.decode(wav)).waveform.size == 3 * SAMPLE_RATE
    decoders.close()


REPLICA = """
import asyncio, os, signal, sys
from deployments.gateway.uploads.decoding import Decoders
from deployments.settings import DecodingSettings

decoders = Decoders(DecodingSettings(), 3000)
asyncio.run(decoders.decode(sys.stdin.buffer.read()))
print(*decoders.pids(), flush=True)
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, 0])
async def test_no_worker_outlives_its_replica(wav: bytes, sent: int) -> None:
    command = [sys.executable, "-c", REPLICA, str(int(sent))]
    replica = subprocess.run(command, input=wav, stdout=subprocess.PIPE, timeout=120, check=False)
    assert replica.returncode == -sent
    (pid,) = map(int, replica.stdout.split())
    assert await gone(pid)
