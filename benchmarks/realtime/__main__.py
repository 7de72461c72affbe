"""`WS /v1/stream`: milliseconds to the final answer, seconds to the first words, bytes, cuts, many sockets at once.

    python -m benchmarks.realtime --manifest FILE --json FILE

Recordings of about `--seconds`, spoken in real time, as they end by themselves. Parts: `one` speaker at a time; the
same `again`, which shows how many words differ from one time to the other without a cut; `cut` once at a random
moment; `sockets` at once; and `routes`: whether the socket (16-bit PCM), the upload, the envelope (`mel-f16`) and
OpenAI's route say the same of each recording of the manifest.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import time
import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import numpy as np
from rich.table import Table

from amser.client import Client, DeviceSettings
from amser.client.stream import StreamClient, StreamSettings
from amser.features import SAMPLE_RATE, Float32
from benchmarks.measuring import command
from benchmarks.measuring.cluster import CONFIGS, require_models, running
from benchmarks.measuring.console import output, progress, table
from benchmarks.measuring.manifest import Recording, add_options, recordings_of
from benchmarks.measuring.report import write_rows
from load_tests.commands import count

PIECE: Final = SAMPLE_RATE // 50  # samples, 20 ms
TOLERANCE: Final = 0.1  # of the seconds that a recording should have
REAL_TIME_S: Final = 1.0  # within which a final answer is in time
PATIENCE_S: Final = 120.0
EQUAL: Final = ("emotion", "probabilities", "confidence", "transcript", "speech", "degraded")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance over a socket.

    Attributes:
        final_ms: from its last frame.
        first_s: seconds from its begin to the first words; None where none came before the final answer.
        bytes_sent: on the socket.
        stays: whether every prefix that was said to be final stayed.
        answer: the document, or the refusal.
    """

    final_ms: float
    first_s: float | None
    bytes_sent: int
    stays: bool
    answer: dict[str, Any]


@command.benchmark("realtime")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    require_models()
    recordings = recordings_of(options)
    near = [each for each in recordings if abs((each.seconds or 0) / options.seconds - 1) <= TOLERANCE]
    if not near:
        raise command.CannotBegin(f"no recording of {options.manifest} has about {options.seconds:g} s")
    with running(options.profile, options.log) as cluster:
        rows = asyncio.run(_measured(cluster.url, near, options))
        rows.append(of_routes(cluster.url, recordings[: options.equal]))
    write_rows(options.json, rows, profile=options.profile, seconds=options.seconds)
    output().print(realtime_table(rows))
    last = rows[-1]
    output().print(f"{last['same']} of {last['recordings']} recordings get the same answer by {last['ways']} ways")


async def _measured(url: str, recordings: Sequence[Recording], options: argparse.Namespace) -> list[dict[str, Any]]:
    settings = StreamSettings(url)
    clips = [_rounded(each.waveform()) for each in recordings[: options.clips]]
    await spoken(settings, clips[0])  # what is loaded with the first
    first = [await spoken(settings, clip) for clip in progress(clips, "one")]
    rows = [{"part": "one", "sockets": 1, **summary(first)}]
    again = [await spoken(settings, clip) for clip in progress(clips, "again")]
    rows.append({"part": "again", "sockets": 1, **summary(again), "same_words": _same_words(first, again)})
    chance = random.Random(0)
    turns = [number % len(clips) for number in range(options.cuts)]
    cut = [await spoken(settings, clips[turn], chance.random()) for turn in progress(turns, "cut")]
    if cut:
        same = _same_words([first[turn] for turn in turns], cut)
        rows.append({"part": "cut", "sockets": 1, **summary(cut), "same_words": same})
    for sockets in options.sockets:
        jobs = [spoken(settings, clips[number % len(clips)]) for number in range(sockets)]
        results = [each for each in await asyncio.gather(*jobs, return_exceptions=True) if isinstance(each, Spoken)]
        answered = [each for each in results if "transcript" in each.answer]
        in_time = sum(each.final_ms <= 1000 * REAL_TIME_S for each in answered)
        row = {"part": "sockets", "sockets": sockets, "answered": len(answered), "within_1_s": in_time}
        rows.append({**row, **(summary(answered) if answered else {})})
    return rows


async def spoken(settings: StreamSettings, waveform: Float32, cut_at: float | None = None) -> Spoken:
    """Speaks in real time; cuts the link once, at a share of the utterance."""
    first_s, stable, stays = None, "", True
    async with StreamClient(settings) as client:
        started = time.perf_counter()
        done = asyncio.Event()
        ended = 0.0

        async def speak() -> None:
            nonlocal ended
            was_cut = cut_at is None
            for start in range(0, waveform.size, PIECE):
                await asyncio.sleep(max(0.0, started + (start + PIECE) / SAMPLE_RATE - time.perf_counter()))
                client.send(waveform[start : start + PIECE])
                if not was_cut and cut_at is not None and start >= cut_at * waveform.size:
                    was_cut = True
                    client.cut()
            ended = time.perf_counter()
            client.end()
            done.set()

        speaking = asyncio.create_task(speak())
        async for event in client.events():
            if event.type == "partial":
                first_s = first_s or (time.perf_counter() - started if event.text else None)
                stays = stays and event.stable.startswith(stable)
                stable = event.stable
            else:
                final_ms = 1000 * (time.perf_counter() - ended)
                await speaking
                answer = event.document.get("answer", event.document)
                return Spoken(final_ms, first_s, client.bytes_sent, stays, answer)
    raise RuntimeError("the stream ended without an answer")


def of_routes(url: str, recordings: Sequence[Recording]) -> dict[str, Any]:
    """Whether every way to the cluster gets the same answer."""
    same, different = 0, []
    settings = DeviceSettings(url=url, codec="mel-f16", frontend="numpy", answer_timeout_s=PATIENCE_S)
    with Client(settings) as client, httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
        for recording in progress(recordings, "routes"):
            waveform = _rounded(recording.waveform())
            content = _wav(waveform)
            upload = http.post("/v1/emotion/audio", content=content).json()
            stream = asyncio.run(_at_once(StreamSettings(url, format="pcm16"), waveform))
            envelope = client.recognize(waveform).raw
            form = {"model": "whisper-1", "response_format": "verbose_json"}
            openai = http.post("/v1/audio/transcriptions", files={"file": content}, data=form).json()
            documents = [{name: each.get(name) for name in EQUAL} for each in (upload, stream, envelope)]
            said = (openai["text"], openai["emotion"]["label"], openai["emotion"]["confidence"])
            is_same = documents[0] == documents[1] == documents[2]
            if is_same and said == (upload["transcript"]["text"], upload["emotion"], upload["confidence"]):
                same += 1
            else:
                different.append(recording.name)
    return {"part": "routes", "recordings": len(recordings), "ways": 4, "same": same, "different": different}


async def _at_once(settings: StreamSettings, waveform: Float32) -> dict[str, Any]:
    """The answer to an utterance that is sent as fast as it is taken."""
    async with StreamClient(settings) as client:
        for start in range(0, waveform.size, PIECE):
            client.send(waveform[start : start + PIECE])
        client.end()
        async for event in client.events():
            if event.type != "partial":
                answer: dict[str, Any] = event.document.get("answer", event.document)
                return answer
    raise command.NothingMeasured("a stream ended without an answer")


def summary(results: Sequence[Spoken]) -> dict[str, Any]:
    """Of utterances that were answered."""
    finals, firsts = [each.final_ms for each in results], [each.first_s for each in results if each.first_s is not None]
    return {
        "utterances": len(results),
        "final_ms_p50": round(float(np.percentile(finals, 50)), 1),
        "final_ms_p95": round(float(np.percentile(finals, 95)), 1),
        "first_words_s_p50": round(float(np.percentile(firsts, 50)), 2) if firsts else None,
        "bytes_p50": int(np.percentile([each.bytes_sent for each in results], 50)),
        "stable_stays": all(each.stays for each in results),
    }


def realtime_table(rows: Iterable[dict[str, Any]]) -> Table:
    """A line for each part over the socket."""
    columns = ("part", "sockets", "said", "final ms\np50", "final ms\np95", "first\nwords s", "bytes", "same\nwords")
    made = table("WS /v1/stream", columns)
    for row in rows:
        if row.get("utterances"):
            names = ("sockets", "utterances", "final_ms_p50", "final_ms_p95", "first_words_s_p50", "bytes_p50")
            made.add_row(row["part"], *(f"{row[name]}" for name in names), f"{row.get('same_words', '')}")
    return made


def _same_words(one: Sequence[Spoken], other: Sequence[Spoken]) -> int:
    texts = [[each.answer.get("transcript", {}).get("text") for each in spoken] for spoken in (one, other)]
    return sum(a == b for a, b in zip(*texts, strict=True))


def _rounded(waveform: Float32) -> Float32:
    """As 16 bits hold it, so that all ways bring the same samples."""
    rounded: Float32 = np.rint(waveform * 32768).clip(-32768, 32767).astype(np.float32) / np.float32(32768)
    return rounded


def _wav(waveform: Float32) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((waveform * 32768).astype("<i2").tobytes())
    return content.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("realtime", __doc__)
    command.add_log(parser, "realtime")
    add_options(parser)
    parser.add_argument("--profile", choices=tuple(CONFIGS), default="fused", help="of the cluster (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a recording, within a tenth (%(default)s)")
    parser.add_argument("--clips", type=count, default=20, help="recordings that are spoken (%(default)s)")
    parser.add_argument("--cuts", type=int, default=100, help="of the link (%(default)s)")
    parser.add_argument("--equal", type=int, default=60, help="recordings that go all ways (%(default)s)")
    parser.add_argument("--sockets", type=count, nargs="*", default=[5, 10, 20, 50], help="at once (5 10 20 50)")
    return parser


if __name__ == "__main__":
    main()
