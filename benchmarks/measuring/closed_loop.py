"""Clients that each wait for their answer before they send the next clip, and what that costs those who answer.

`benchmarks.serving` drives every system with it. It knows neither clusters nor models: a system is something that
connects, and a list of processes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import psutil
from whisper.normalizers import EnglishTextNormalizer

from benchmarks.measuring import bootstrap
from benchmarks.measuring.bootstrap import Integers
from benchmarks.measuring.command import NothingMeasured


class Server(Protocol):
    """A system that runs."""

    url: str

    def processes(self) -> list[psutil.Process]:
        """All that it consists of."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a clip.

    Attributes:
        text, emotion: of the answer; no emotion where nobody speaks.
        degraded: the answer left something out, so it cost less than it should.
        failure: why there is no answer; empty where there is one.
    """

    text: str = ""
    emotion: str | None = None
    degraded: bool = False
    failure: str = ""


Send = Callable[[int], Reply]  # the number of a clip → its answer
Connect = Callable[[], AbstractContextManager[Send]]  # a client of its own


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass through the clips.

    Attributes:
        elapsed_s: from the first request to the last answer.
        latencies_ms: of the answers.
        replies: by the number of the clip.
        cpu_s: user and system time of the server's processes.
        memory_mb: of the server's processes after the pass; a page that several share is counted once (PSS).
    """

    elapsed_s: float
    latencies_ms: tuple[float, ...]
    replies: Mapping[int, Reply]
    cpu_s: float
    memory_mb: float


def measure(server: Server, connect: Connect, clips: Sequence[int], clients: int) -> Pass:
    """Clients that share a list of clips: whoever is free sends the next one, so that the order is always the same.

    Args:
        server: whose CPU time and memory are read.
        connect: opens one client's connection.
        clips: numbers, in the order of sending; each once.
        clients: that send at the same time.
    """
    lock = threading.Lock()
    remaining: Iterator[int] = iter(clips)
    latencies: list[float] = []
    replies: dict[int, Reply] = {}

    def client() -> None:
        with connect() as send:
            while True:
                with lock:
                    clip = next(remaining, None)
                if clip is None:
                    return
                sent = time.perf_counter()
                reply = send(clip)
                if not reply.failure:
                    latencies.append(1000 * (time.perf_counter() - sent))
                replies[clip] = reply

    before = cpu_seconds(server.processes())
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        try:
            for running in [pool.submit(client) for _ in range(clients)]:
                running.result()
        finally:
            with lock:  # an interrupted pass sends nothing more
                remaining = iter(())
    elapsed = time.perf_counter() - started
    after = cpu_seconds(server.processes())
    used = sum(seconds - before.get(process, 0.0) for process, seconds in after.items())
    return Pass(elapsed, tuple(latencies), replies, used, memory_mb(server.processes()))


def cpu_seconds(processes: Iterable[psutil.Process]) -> dict[psutil.Process, float]:
    """User and system time of each process that still runs."""
    used = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used[process] = times.user + times.system
    return used


def memory_mb(processes: Iterable[psutil.Process]) -> float:
    """Proportional set size: each process's own pages, and its share of those that it has in common with others."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 1e6


def word_errors(references: Sequence[str], texts: Sequence[str]) -> tuple[Integers, Integers]:
    """Errors and words of each text, on what Whisper's English normaliser has levelled, as in `benchmarks.asr`.

    Where nothing is said, neither counts.
    """
    normalize = EnglishTextNormalizer()
    pairs = [(normalize(reference), normalize(text)) for reference, text in zip(references, texts, strict=True)]
    spoken = np.array([bool(reference) for reference, _ in pairs], bool)
    errors, words = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    said = [pair for pair in pairs if pair[0]]
    errors[spoken], words[spoken] = bootstrap.word_errors([pair[0] for pair in said], [pair[1] for pair in said])
    return errors, words


def wer(references: Sequence[str], texts: Sequence[str]) -> float:
    """Per cent of the words; see `word_errors`."""
    errors, words = word_errors(references, texts)
    return 100 * float(errors.sum() / words.sum())


def agreement(replies: Mapping[int, Reply], reference: Mapping[int, Reply]) -> float:
    """Share of the clips, of those that both answered, with the same emotion; NaN where there is none."""
    both = [clip for clip in replies.keys() & reference.keys() if not replies[clip].failure + reference[clip].failure]
    return float(np.mean([replies[clip].emotion == reference[clip].emotion for clip in both])) if both else float("nan")


def figures(done: Pass, references: Sequence[str], seconds: Sequence[float]) -> dict[str, float]:
    """What a row says of one pass. A clip without an answer counts with all its words, and with no throughput.

    Args:
        done: the pass.
        references: what is said in each clip.
        seconds: of speech in each clip.

    Raises:
        NothingMeasured: no clip was answered.
    """
    asked = sorted(done.replies)
    answered = [clip for clip in asked if not done.replies[clip].failure]
    if not answered:
        raise NothingMeasured(f"no request was answered; the first failure: {done.replies[asked[0]].failure}")
    p50, p95, p99 = np.percentile(done.latencies_ms, (50, 95, 99))
    return {
        "requests_per_second": len(answered) / done.elapsed_s,
        "seconds_of_speech_per_second": sum(seconds[clip] for clip in answered) / done.elapsed_s,
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "cpu_seconds_per_request": done.cpu_s / len(answered),
        "rss_mb": done.memory_mb,
        "wer": wer([references[clip] for clip in asked], [done.replies[clip].text for clip in asked]),
        "failures": len(asked) - len(answered),
        "degraded": sum(done.replies[clip].degraded for clip in answered),
    }
