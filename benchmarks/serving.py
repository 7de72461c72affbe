"""The rivals side by side: two obvious servers, the same with a greedy beam, and this application's two profiles.

    python -m benchmarks.serving --json FILE --manifest MANIFEST.tsv

Closed loop: each client sends its next clip when it has its last answer. The monoliths get audio files, the cluster
envelopes that were encoded beforehand. The systems run one after another, in rounds; a row is the median of the rounds.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Final

import httpx
import matplotlib as mpl
import numpy as np
import psutil
import soundfile
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

from amser.client.device import Device, DeviceSettings, SendFailed
from amser.features import SAMPLE_RATE, Float32, resample, to_mono
from benchmarks.asr import read_manifest
from benchmarks.measuring.bootstrap import Integers, per_cent
from benchmarks.measuring.closed_loop import (
    Connect,
    Pass,
    Reply,
    Send,
    Server,
    agreement,
    figures,
    measure,
    word_errors,
)
from benchmarks.measuring.monolith import READY, ROUTE, Arrangement
from benchmarks.measuring.report import write_rows
from deployments.local_cluster import DEFAULT_CONFIG, LOOPBACK, LocalCluster, free_port

mpl.use("Agg")
CONFIGS: Final = {"distributed": DEFAULT_CONFIG, "fused": DEFAULT_CONFIG.with_name("serve_config.fused.yaml")}
RIVALS: Final = {  # arguments of benchmarks.measuring.monolith
    "openai-whisper-monolith": ("--recognizer", "openai-whisper"),
    "faster-whisper-monolith": ("--recognizer", "faster-whisper"),
    "faster-whisper-monolith-greedy": ("--recognizer", "faster-whisper", "--beam-size", "1"),
}
SYSTEMS: Final = (*RIVALS, *CONFIGS)
REFERENCE: Final = "openai-whisper-monolith"  # whose emotions the others are compared with
LANGUAGE: Final = "en"
STEP: Final = "standard"  # of the codec klt, the device's default
READY_WITHIN_S: Final = 180.0
STOP_WITHIN_S: Final = 10.0
POLL_S: Final = 0.2
ANSWER_WITHIN_S: Final = 120.0
WARM_UP: Final = 2  # clips of each client, before those that count
SEED: Final = 0  # of the order of the clips
BY_CLIP: Final = ("errors_by_clip", "words_by_clip")  # of a row: all rounds added up, not written
COLUMNS: Final = (
    "system", "clients", "arrangement", "requests_per_second", "seconds_of_speech_per_second", "p50_ms", "p95_ms",
    "p99_ms", "cpu_seconds_per_request", "rss_mb", "wer", "emotion_agreement", "failures", "degraded",
)  # fmt: skip
# Of two cores: one request on both, or a request on each. Which is faster depends on the clients.
ARRANGEMENTS: Final = (Arrangement(1, 2), Arrangement(2, 1))
NOTHING: Final = Pass(0.0, (), {}, 0.0, 0.0)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording as a file and as a waveform, (samples,) at 16 kHz, and what is said in it."""

    reference: str
    audio: bytes
    waveform: Float32

    @property
    def seconds(self) -> float:
        return self.waveform.size / SAMPLE_RATE


def read_clips(manifest: Path, root: Path | None, limit: int) -> list[Clip]:
    """Clips spread evenly over the lengths, of as many readers as there are, in an order that is always the same."""
    with manifest.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))
    chosen = spread([(row["speaker"], float(row["seconds"])) for row in rows], limit)
    files = read_manifest(manifest, root, None)
    return [_read_clip(*files[position]) for position in chosen]


def spread(clips: Sequence[tuple[str, float]], limit: int) -> list[int]:
    """Which of (reader, seconds) to take: one of each of `limit` equal parts by length, of the reader heard least."""
    by_length = sorted(range(len(clips)), key=lambda position: clips[position][1])
    parts = min(limit, len(clips))
    heard: Counter[str] = Counter()
    chosen = []
    for part in range(parts):
        candidates = by_length[part * len(clips) // parts : (part + 1) * len(clips) // parts]
        chosen.append(min(candidates, key=lambda position: heard[clips[position][0]]))
        heard[clips[chosen[-1]][0]] += 1
    random.Random(SEED).shuffle(chosen)  # or the longest would come together
    return chosen


def _read_clip(path: Path, reference: str) -> Clip:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return Clip(reference, path.read_bytes(), resample(to_mono(samples), rate))


class MonolithProcess:
    """A context manager: `benchmarks.measuring.monolith` as a child process on loopback.

    Args:
        command: its arguments.
        arrangement: of its workers.
        log: where everything goes that it prints.

    Raises:
        RuntimeError: on entering, where it ends or does not get ready.
    """

    def __init__(self, command: Sequence[str], arrangement: Arrangement, log: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self._log = log
        self._command = [sys.executable, "-m", "benchmarks.measuring.monolith", *command, f"--port={port}"]
        self._command += [f"--workers={arrangement.workers}", f"--threads={arrangement.threads}"]
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(arrangement.threads)}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MonolithProcess:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=self._environment
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def processes(self) -> list[psutil.Process]:
        """The server and its workers."""
        with suppress(psutil.NoSuchProcess):
            if self._process is not None:
                server = psutil.Process(self._process.pid)
                return [server, *server.children(recursive=True)]
        return []

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the monolith ended with {process.returncode}; see {self._log}")
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}{READY}", timeout=5, trust_env=False).is_success:
                    return
            time.sleep(POLL_S)
        raise RuntimeError(f"the monolith was not ready within {READY_WITHIN_S:g} s; see {self._log}")

    def _stop(self) -> None:
        processes = self.processes()
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_WITHIN_S)
        _, alive = psutil.wait_procs(processes, timeout=1)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        self._process = None


@contextmanager
def started(system: str, arrangement: Arrangement | None, log: Path) -> Iterator[Server]:
    """A system that is ready, and is gone afterwards."""
    if arrangement is not None:
        with MonolithProcess(RIVALS[system], arrangement, log) as monolith:
            yield monolith
    else:
        with LocalCluster(CONFIGS[system], log=log, http_port=0) as cluster:
            cluster.wait_until_ready()
            yield cluster


def files_to(url: str, clips: Sequence[Clip]) -> Connect:
    """Clients of a monolith."""

    @contextmanager
    def connect() -> Iterator[Send]:
        with httpx.Client(timeout=ANSWER_WITHIN_S, trust_env=False, verify=False) as http:

            def send(clip: int) -> Reply:
                try:
                    answer = http.post(f"{url}{ROUTE}", params={"language": LANGUAGE}, content=clips[clip].audio)
                    document = answer.raise_for_status().json()
                except httpx.HTTPError as error:
                    return Reply(failure=f"{type(error).__name__}: {error}")
                return Reply(document["transcript"]["text"], document["emotion"])

            yield send

    return connect


def envelopes_to(url: str, clips: Sequence[Clip]) -> Connect:
    """Clients of the cluster."""
    settings = DeviceSettings(url=url, step=STEP, language=LANGUAGE, answer_timeout_s=ANSWER_WITHIN_S)
    encoder, captured_at = Device(settings), datetime.now(UTC)
    prepared = [encoder.encode(clip.waveform, captured_at) for clip in clips]

    @contextmanager
    def connect() -> Iterator[Send]:
        with Device(settings) as device:

            def send(clip: int) -> Reply:
                try:
                    answer = device.send(prepared[clip])
                except SendFailed as error:
                    return Reply(failure=f"{type(error).__name__}: {error}")
                return Reply(answer.text, answer.emotion, bool(answer.degraded))

            yield send

    return connect


def row(
    system: str,
    clients: int,
    passes: Mapping[Arrangement | None, Sequence[Pass]],
    clips: Sequence[Clip],
    reference: Pass,
) -> Row:
    """The fastest arrangement; of its rounds the median of every figure, and the sum of what is missing.

    Args:
        system: its name.
        clients: that sent at the same time.
        passes: one a round, by arrangement.
        clips: that were sent.
        reference: whose emotions are compared; one without replies makes the agreement None.
    """
    references, seconds = [clip.reference for clip in clips], [clip.seconds for clip in clips]
    rounds = {each: [figures(done, references, seconds) for done in passes[each]] for each in passes}
    speeds = {each: round(median(one["requests_per_second"] for one in rounds[each]), 3) for each in rounds}
    best = max(speeds, key=speeds.__getitem__)
    agreed = median(agreement(done.replies, reference.replies) for done in passes[best])
    heard = [word_errors(references, [done.replies[clip].text for clip in range(len(clips))]) for done in passes[best]]
    return {
        "system": system,
        "clients": clients,
        "arrangement": _name(best),
        "requests_per_second_by_arrangement": {_name(each): speed for each, speed in speeds.items()},
        "rounds": len(rounds[best]),
        **{name: round(median(each[name] for each in rounds[best]), 3) for name in rounds[best][0]},
        **{name: sum(int(each[name]) for each in rounds[best]) for name in ("failures", "degraded")},
        "emotion_agreement": None if isnan(agreed) else round(agreed, 3),
        **{name: np.sum(each, axis=0) for name, each in zip(BY_CLIP, zip(*heard, strict=True), strict=True)},
    }


def _name(arrangement: Arrangement | None) -> str:
    return f"{arrangement} (workers × threads)" if arrangement else "replicas of one thread, by Ray"


def comparisons(rows: Sequence[Row]) -> list[str]:
    """Throughput against throughput and WER against WER, for each number of clients that both were measured with."""
    by_key = {(each["system"], each["clients"]): each for each in rows}
    lines = []
    for clients in sorted({each["clients"] for each in rows}):
        for ours, rival in [*(("fused", rival) for rival in RIVALS), ("distributed", "fused")]:
            one, other = by_key.get((ours, clients)), by_key.get((rival, clients))
            if one and other:
                ratio = one["requests_per_second"] / other["requests_per_second"]
                more, error = wer_above(one, other)
                line = f"{ours} / {rival} = {ratio:.2f} × throughput, WER {more:+.2f} ± {error:.2f} points"
                degraded = one["degraded"] + other["degraded"]
                warning = f"; NOT THE SAME WORK: {_count(degraded, 'answer')} degraded" if degraded else ""
                lines.append(f"{_count(clients, 'client')}: {line}{warning}")
    return lines


def wer_above(one: Row, other: Row) -> tuple[float, float]:
    """By how many points the first has the higher WER on the same clips, and the standard error of that difference."""
    words: Integers = np.array(one["words_by_clip"])
    rates = [np.array(each["errors_by_clip"]) / np.sum(each["words_by_clip"]) for each in (one, other)]
    return per_cent((rates[0] - rates[1]) * words.sum(), words)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def plot(rows: Sequence[Row], file: Path) -> None:
    """Requests a second of each system, a panel for each number of clients."""
    counts = sorted({each["clients"] for each in rows})
    figure, all_axes = pyplot.subplots(1, len(counts), figsize=(6 * len(counts), 2.6), squeeze=False, sharey=True)
    for axes, clients in zip(all_axes[0], counts, strict=True):
        here = [each for each in reversed(rows) if each["clients"] == clients]
        bars = axes.barh([each["system"] for each in here], [each["requests_per_second"] for each in here])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set(title=f"clients: {clients}", xlabel="requests a second")
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="where the rows go; the plot goes beside it")
    parser.add_argument("--manifest", type=Path, required=True, help="columns path, text, speaker and seconds")
    parser.add_argument("--root", type=Path, help="folder that the paths are relative to (default: found from them)")
    parser.add_argument("--limit", type=int, default=40, help="clips, spread over lengths and readers (%(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3, help="of all systems; a row is their median (%(default)s)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument(
        "--arrangement",
        metavar="WORKERSxTHREADS",
        type=lambda text: Arrangement(*map(int, text.split("x"))),
        nargs="+",
        default=ARRANGEMENTS,
        help="of the monoliths; all are measured and a row shows the fastest (1x2 2x1)",
    )
    parser.add_argument("--log", type=Path, default=Path("runs/serving.log"), help="what the systems print")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended then too

    console = Console()
    clips = read_clips(options.manifest, options.root, options.limit)
    passes: dict[tuple[str, int], dict[Arrangement | None, list[Pass]]] = {}
    rows: list[Row] = []
    for number, system in itertools.product(range(options.rounds), options.systems):
        for arrangement in [None] if system in CONFIGS else options.arrangement:
            with started(system, arrangement, options.log) as server:
                connect = (envelopes_to if system in CONFIGS else files_to)(server.url, clips)
                for count in options.clients:
                    measure(server, connect, range(min(WARM_UP * count, len(clips))), count)
                    done = measure(server, connect, range(len(clips)), count)
                    passes.setdefault((system, count), {}).setdefault(arrangement, []).append(done)
                    speed = len(clips) / done.elapsed_s
                    console.print(f"round {number + 1}: {system}, {_count(count, 'client')}: {speed:.3f} requests/s")
        reference = next((done[0] for key in passes if key[0] == REFERENCE for done in passes[key].values()), NOTHING)
        rows = [row(*key, passes[key], clips, reference) for key in sorted(passes, key=_order)]
        seconds = round(sum(clip.seconds for clip in clips), 2)
        written = [{name: value for name, value in each.items() if name not in BY_CLIP} for each in rows]
        about = {"clips": len(clips), "speech_s": seconds, "memory": "PSS", "compared": comparisons(rows)}
        write_rows(options.json, written, command="benchmarks.serving", **about)
    table = Table(*COLUMNS, title="Serving")
    for each in rows:
        table.add_row(*(str(each[column]) for column in COLUMNS))
    console.print(table)
    for line in comparisons(rows):
        console.print(line)
    plot(rows, options.json.with_suffix(".png"))


def _order(key: tuple[str, int]) -> tuple[int, int]:
    return SYSTEMS.index(key[0]), key[1]


if __name__ == "__main__":
    main()
