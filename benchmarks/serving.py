"""Reference systems beside ours: servers around two Whisper libraries, and this application's two profiles.

    python -m benchmarks.serving --manifest SPEECH.tsv
    python -m benchmarks.serving --manifest SPEECH.tsv --also SHORT_SPEECH.tsv --clients 1 8 32

Closed loop: each client sends its next clip when it has its last answer. The reference systems get audio files, the
cluster envelopes that were encoded beforehand. The systems run one after another, in rounds that begin with another
one each; a row is the median of the rounds, and systems are compared within each round.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any, Final

import httpx
import numpy as np
from rich.table import Table

from amser.client.device import Device, DeviceSettings
from amser.client.exchange.failures import SendFailed
from amser.features import SAMPLE_RATE, Float32
from benchmarks.measuring import command, manifest
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
from benchmarks.measuring.cluster import CONFIGS, require_models, running
from benchmarks.measuring.console import output, progress, status, table
from benchmarks.measuring.manifest import Recording
from benchmarks.measuring.reference_server import ROUTE, Arrangement, ReferenceProcess
from benchmarks.measuring.report import write_rows
from benchmarks.plots.serving import plot
from load_tests.commands import count
from load_tests.simulation.planning import Offer

REFERENCE_SYSTEMS: Final = {  # arguments of benchmarks.measuring.reference_server
    "openai-whisper-monolith": ("--recognizer", "openai-whisper"),
    "faster-whisper-monolith": ("--recognizer", "faster-whisper"),
    "faster-whisper-monolith-greedy": ("--recognizer", "faster-whisper", "--beam-size", "1"),
}
SYSTEMS: Final = (*REFERENCE_SYSTEMS, *CONFIGS)
REFERENCE: Final = "openai-whisper-monolith"  # whose emotions the others are compared with
LANGUAGE: Final = "en"
STEP: Final = "standard"  # of the codec klt, the device's default
ANSWER_WITHIN_S: Final = 120.0
WARM_UP: Final = 2  # clips of each client, before those that count
SEED: Final = 0  # of the order of the clips
BY_CLIP: Final = ("errors_by_clip", "words_by_clip")  # of a row: all rounds added up, not written
CORES: Final = len(os.sched_getaffinity(0))
UNIT_OF_ARRANGEMENT: Final = " (workers × threads)"
BY_RAY: Final = "replicas of one thread, by Ray"
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


def read_clips(recordings: Sequence[Recording], limit: int) -> list[Clip]:
    """Clips spread evenly over the lengths, of as many speakers as there are, in an order that is always the same."""
    lengths = [
        (each.speaker or "", each.seconds or each.waveform().size / SAMPLE_RATE)
        for each in progress(recordings, "lengths")
    ]
    return [_read_clip(recordings[position]) for position in spread(lengths, limit)]


def spread(clips: Sequence[tuple[str, float]], limit: int) -> list[int]:
    """Which of (speaker, seconds) to take: one of each of `limit` equal parts by length, of the speaker taken least."""
    by_length = sorted(range(len(clips)), key=lambda position: clips[position][1])
    parts = min(limit, len(clips))
    taken: Counter[str] = Counter()
    chosen = []
    for part in range(parts):
        candidates = by_length[part * len(clips) // parts : (part + 1) * len(clips) // parts]
        chosen.append(min(candidates, key=lambda position: taken[clips[position][0]]))
        taken[clips[chosen[-1]][0]] += 1
    random.Random(SEED).shuffle(chosen)  # or the longest would come together
    return chosen


def _read_clip(recording: Recording) -> Clip:
    return Clip(recording.text, recording.path.read_bytes(), recording.waveform())


@contextmanager
def started(system: str, arrangement: Arrangement | None, log: Path) -> Iterator[Server]:
    """A system that is ready, and is gone afterwards."""
    if arrangement is not None:
        process = ReferenceProcess(REFERENCE_SYSTEMS[system], arrangement, log)
        with status(f"starting {system}, {arrangement}") as shown, process as server:
            shown.stop()
            yield server
    else:
        with running(system, log) as cluster:
            yield cluster


def files_to(url: str, clips: Sequence[Clip]) -> Connect:
    """Clients of a reference system."""

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
    speech: str,
    system: str,
    clients: int,
    passes: Mapping[Arrangement | None, Sequence[Pass]],
    clips: Sequence[Clip],
    reference: Pass,
) -> Row:
    """The fastest arrangement; of its rounds the median of every figure, and the sum of what is missing.

    Args:
        speech: name of the clips.
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
    texts = [[done.replies[clip].text for clip in range(len(clips))] for done in passes[best]]
    counted = [word_errors(references, each) for each in texts]
    medians = {name: round(median(each[name] for each in rounds[best]), 3) for name in rounds[best][0]}
    return {
        "speech": speech,
        "mean_seconds": round(sum(seconds) / len(seconds), 1),
        "system": system,
        "clients": clients,
        "arrangement": _name(best),
        "requests_per_second_by_arrangement": {_name(each): speed for each, speed in speeds.items()},
        "rounds": len(rounds[best]),
        "requests_per_second_by_round": [round(each["requests_per_second"], 3) for each in rounds[best]],
        **medians,
        "price_of_a_speech_hour": round(CORES * Offer().price_core_hour / medians["seconds_of_speech_per_second"], 5),
        **{name: sum(int(each[name]) for each in rounds[best]) for name in ("failures", "degraded")},
        "emotion_agreement": None if isnan(agreed) else round(agreed, 3),
        **{name: np.sum(each, axis=0) for name, each in zip(BY_CLIP, zip(*counted, strict=True), strict=True)},
    }


def _name(arrangement: Arrangement | None) -> str:
    return f"{arrangement}{UNIT_OF_ARRANGEMENT}" if arrangement else BY_RAY


def comparisons(rows: Sequence[Row]) -> list[str]:
    """Throughput against throughput and WER against WER, for each speech and number of clients that both had.

    The ratio is the median of those of each round, with the least and the largest one.
    """
    by_key = {(each["speech"], each["clients"], each["system"]): each for each in rows}
    lines = []
    for speech, clients in _settings(rows):
        for ours, reference in [*(("fused", reference) for reference in REFERENCE_SYSTEMS), ("distributed", "fused")]:
            one, other = by_key.get((speech, clients, ours)), by_key.get((speech, clients, reference))
            if one and other:
                speeds = (each["requests_per_second_by_round"] for each in (one, other))
                ratios = [mine / theirs for mine, theirs in zip(*speeds, strict=True)]
                spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
                more, error = wer_above(one, other)
                line = f"{ours} / {reference} = {median(ratios):.2f}{spread} × throughput"
                degraded = one["degraded"] + other["degraded"]
                warning = f"; NOT THE SAME WORK: {_count(degraded, 'answer')} degraded" if degraded else ""
                words = f"WER {more:+.2f} ± {error:.2f} points"
                lines.append(f"{speech}, {_count(clients, 'client')}: {line}, {words}{warning}")
    return lines


def _settings(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Speech and number of clients of the rows, in their order."""
    return list(dict.fromkeys((each["speech"], each["clients"]) for each in rows))


def wer_above(one: Row, other: Row) -> tuple[float, float]:
    """By how many points the first has the higher WER on the same clips, and the standard error of that difference."""
    words: Integers = np.array(one["words_by_clip"])
    rates = [np.array(each["errors_by_clip"]) / np.sum(each["words_by_clip"]) for each in (one, other)]
    return per_cent((rates[0] - rates[1]) * words.sum(), words)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """The rows as they are printed: for each speech and number of clients the speed, and what it took and gave."""
    for speech, clients in _settings(rows):
        here = [each for each in rows if (each["speech"], each["clients"]) == (speech, clients)]
        of_clients = f"{speech} ({here[0]['mean_seconds']} s), {_count(clients, 'client')}"
        columns = ("system", "requests\na second", "p50 ms", "p99 ms", "cents an\nhour", "degraded")
        speed = table(f"Speed, {of_clients}", columns)
        of_work = ("system", "workers ×\nthreads", "CPU s", "MB", "WER, %", "same\nemotion", "failed")
        work = table(f"Work of a request, {of_clients}", of_work)
        for each in here:
            latencies = (f"{each[name]:,.0f}" for name in ("p50_ms", "p99_ms"))
            cents = f"{100 * each['price_of_a_speech_hour']:.2f}"
            speed.add_row(
                each["system"], f"{each['requests_per_second']:.2f}", *latencies, cents, str(each["degraded"])
            )
            agreed = "" if each["emotion_agreement"] is None else f"{each['emotion_agreement']:.0%}"
            work.add_row(
                each["system"],
                "by Ray" if each["arrangement"] == BY_RAY else each["arrangement"].removesuffix(UNIT_OF_ARRANGEMENT),
                f"{each['cpu_seconds_per_request']:.2f}",
                f"{each['rss_mb']:,.0f}",
                f"{each['wer']:.2f}",
                agreed,
                str(each["failures"]),
            )
        yield speed
        yield work


@command.benchmark("serving")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended then too

    console = output()
    listed = manifest.recordings_of(options)
    recordings = {options.manifest.stem: listed}
    recordings |= {each.stem: manifest.read_manifest(each, options.manifest_needs) for each in options.also}
    require_models()
    speech = {name: read_clips(each, options.limit) for name, each in recordings.items()}
    passes: _Passes = {}
    rows: list[Row] = []
    for number in range(options.rounds):
        first = number % len(options.systems)
        for system in (*options.systems[first:], *options.systems[:first]):
            _measure_system(system, speech, options, passes, f"round {number + 1}")
        references = {key[0]: done[0] for key in passes if key[1] == REFERENCE for done in passes[key].values()}
        rows = [
            row(*key, passes[key], speech[key[0]], references.get(key[0], NOTHING))
            for key in sorted(passes, key=lambda key: (list(speech).index(key[0]), key[2], SYSTEMS.index(key[1])))
        ]
        written = [{name: value for name, value in each.items() if name not in BY_CLIP} for each in rows]
        about = {
            "clips": options.limit,
            "memory": "PSS",
            "cores": CORES,
            "price_of_a_core_hour": Offer().price_core_hour,
        }
        write_rows(options.json, written, **about, compared=comparisons(rows))
    for each in (*tables(rows), *comparisons(rows)):
        console.print(each)
    plot(rows, options.json.with_suffix(".png"))


_Passes = dict[tuple[str, str, int], dict[Arrangement | None, list[Pass]]]  # by speech, system and clients


def _measure_system(
    system: str, speech: Mapping[str, Sequence[Clip]], options: argparse.Namespace, passes: _Passes, title: str
) -> None:
    """One pass over all speech with each number of clients."""
    for arrangement in [None] if system in CONFIGS else options.arrangement:
        with started(system, arrangement, options.log) as server:
            for name, clips in speech.items():
                connect = (envelopes_to if system in CONFIGS else files_to)(server.url, clips)
                for clients in options.clients:
                    what = f"{title}: {system}, {name}, {_count(clients, 'client')}"
                    with status(what):
                        measure(server, connect, range(min(WARM_UP * clients, len(clips))), clients)
                        done = measure(server, connect, range(len(clips)), clients)
                    passes.setdefault((name, system, clients), {}).setdefault(arrangement, []).append(done)
                    output().print(f"{what}: {len(clips) / done.elapsed_s:.3f} requests a second")


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("serving", __doc__, plot=True)
    manifest.add_options(parser, (manifest.PATH, manifest.TEXT), ("speaker", "seconds"))
    add = parser.add_argument
    add("--also", type=Path, nargs="+", default=[], metavar="TSV", help="other manifests, in the same rounds")
    add("--limit", type=count, default=40, metavar="N", help="clips, spread over lengths and speakers (%(default)s)")
    add("--clients", type=count, nargs="+", default=[1, 8], metavar="N", help="that send at once (default: 1 8)")
    add("--rounds", type=count, default=3, metavar="N", help="of all systems; a row is their median (%(default)s)")
    systems = ", ".join(SYSTEMS)
    add("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS, metavar="NAME", help=f"{systems}; default: all")
    add(
        "--arrangement",
        metavar="WORKERSxTHREADS",
        type=_arrangement,
        nargs="+",
        default=ARRANGEMENTS,
        help="of the reference systems; all are measured and a row shows the fastest (1x2 2x1)",
    )
    command.add_log(parser, "serving")
    return parser


def _arrangement(text: str) -> Arrangement:
    workers, _, threads = text.partition("x")
    if not (workers.isdecimal() and threads.isdecimal() and int(workers) and int(threads)):
        raise argparse.ArgumentTypeError(f"{text} is not like 2x1, workers and the threads of each")
    return Arrangement(int(workers), int(threads))


if __name__ == "__main__":
    main()
