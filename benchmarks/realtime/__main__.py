"""Latency, bytes, first words, cuts and equality of `WS /v1/stream` against a cluster that runs.

python -m benchmarks.realtime --url http://localhost:8000 --clips 20 --cuts 100 --sockets 1 5 10 20
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from amser.audio import decode
from amser.client.stream import StreamClient, StreamSettings
from amser.features import SAMPLE_RATE, Float32

PIECE: Final = SAMPLE_RATE // 50  # samples, 20 ms
LENGTH_S: Final = 5.0
REAL_TIME_S: Final = 1.0  # within which a final answer is in time
OUTPUT: Final = Path(__file__).parents[1] / "results" / "realtime.json"
SUFFIXES: Final = (".flac", ".wav", ".opus", ".ogg")
EQUAL: Final = ("emotion", "probabilities", "confidence", "transcript", "speech", "degraded")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One utterance over a socket: milliseconds from its last frame, seconds to the first words, bytes that were sent.

    `first_s` is None where no words came before the final answer.
    """

    final_ms: float
    first_s: float | None
    bytes_sent: int
    connections: int
    stays: bool
    answer: dict[str, Any]


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
                return Spoken(final_ms, first_s, client.bytes_sent, client.connections, stays, answer)
    raise RuntimeError("the stream ended without an answer")


def uploaded(url: str, waveform: Float32) -> dict[str, Any]:
    """The answer of the upload route."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes((waveform * 32768).astype("<i2").tobytes())
    document: dict[str, Any] = httpx.post(f"{url}/v1/emotion/audio", content=content.getvalue(), timeout=120).json()
    return document


def summary(results: list[Spoken]) -> dict[str, Any]:
    """Of utterances that were answered."""
    finals, firsts = [r.final_ms for r in results], [r.first_s for r in results if r.first_s is not None]
    return {
        "utterances": len(results),
        "final_ms_p50": round(float(np.percentile(finals, 50)), 1),
        "final_ms_p95": round(float(np.percentile(finals, 95)), 1),
        "first_words_s_p50": round(float(np.percentile(firsts, 50)), 2) if firsts else None,
        "bytes_p50": int(np.percentile([r.bytes_sent for r in results], 50)),
        "stable_stays": all(r.stays for r in results),
    }


async def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    files = [path for path in sorted(options.folder.rglob("*")) if path.suffix in SUFFIXES]
    clips = [_clip(path) for path in files[: 4 * options.clips]]
    clips = [clip for clip in clips if clip.size >= LENGTH_S * SAMPLE_RATE][: options.clips]
    cut = [clip[: int(LENGTH_S * SAMPLE_RATE)] for clip in clips]
    klt, pcm = StreamSettings(options.url), StreamSettings(options.url, format="pcm16")
    rows: dict[str, Any] = {"seconds": LENGTH_S}
    alone = [await spoken(klt, clip) for clip in cut]
    rows["one_socket"] = summary(alone)
    equal = 0
    for clip in cut[: options.equal]:
        one, other = (await spoken(pcm, clip)).answer, await asyncio.to_thread(uploaded, options.url, clip)
        equal += all(one[name] == other[name] for name in EQUAL)
    rows["equal_to_upload"] = {"clips": min(options.equal, len(cut)), "equal": equal}
    chance, same = random.Random(0), 0
    for number in range(options.cuts):
        at = number % len(cut)
        again = await spoken(klt, cut[at], chance.random())
        same += again.answer.get("transcript") == alone[at].answer.get("transcript")
    rows["cuts"] = {"cuts": options.cuts, "same_words": same}
    for sockets in options.sockets:
        jobs = [spoken(klt, cut[number % len(cut)]) for number in range(sockets)]
        results = [each for each in await asyncio.gather(*jobs, return_exceptions=True) if isinstance(each, Spoken)]
        in_time = sum(each.final_ms <= 1000 * REAL_TIME_S for each in results)
        rows[f"sockets_{sockets}"] = {**(summary(results) if results else {}), "asked": sockets, "within_1_s": in_time}
    return rows


def _clip(path: Path) -> Float32:
    with path.open("rb") as content:
        waveform = decode(content).waveform
    rounded: Float32 = np.rint(waveform * 32768).clip(-32768, 32767).astype(np.float32) / np.float32(32768)
    return rounded


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--folder", type=Path, default=Path("tests/data/speech"), help="of recordings (%(default)s)")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--equal", type=int, default=20, help="clips that are uploaded too")
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--sockets", type=int, nargs="*", default=[5, 10, 20])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    rows = asyncio.run(measured(options))
    options.output.write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
