"""How fast long recordings are answered, and what memory that takes the gateway.

python -m benchmarks.recordings --manifest $AMSER_DATA/speech/librispeech.tsv --minutes 6 60

A recording is made of the manifest's sentences with pauses of 0.8 to 2.5 s between them, sent as a job to a cluster of
this machine, and asked for until it is done. The memory is that of the gateway's processes: the replica with its models
(fused profile), Ray's proxy, and the process that decodes and cuts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import httpx
import jiwer
import numpy as np
import psutil
import soundfile
from rich.table import Table

from amser.features import SAMPLE_RATE
from benchmarks.measuring import command, manifest
from benchmarks.measuring.cluster import CONFIGS, require_models, running
from benchmarks.measuring.console import output, status, table
from benchmarks.measuring.report import write_rows
from deployments.local_cluster import LocalCluster
from load_tests.commands import count

LONGEST_PAUSE_S, SHORTEST_PAUSE_S = 2.5, 0.8
NOISE: Final = 1e-4  # of full scale, in the pauses
ASKED_EVERY_S: Final = 2.0
PROCESSES: Final = {"gateway": "ServeReplica:amser:Ingress", "proxy": "ProxyActor", "cutting": "cutting_worker"}


@command.benchmark("recordings")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    spoken = manifest.recordings_of(options)
    require_models("silero-vad")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        overrides: dict[str, Any] = {
            "idempotency": {"store": "embedded", "folder": f"{folder}/store"},
            "recordings": {"segments_at_once": options.at_once},
        }
        with running(options.profile, options.log, overrides=overrides) as cluster:
            for minutes in options.minutes:
                path = Path(folder) / f"{minutes}.flac"
                text = _make(path, spoken, minutes)
                rows.append(_row(cluster, path, text, options.at_once))
    write_rows(options.json, rows)
    output().print(recordings_table(rows))


def _make(path: Path, spoken: Sequence[manifest.Recording], minutes: int) -> str:
    """Writes a recording; returns what is said in it."""
    noise = np.random.default_rng(minutes)
    said, written = [], 0
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        for sentence in cycle(spoken):
            pause_s = noise.uniform(SHORTEST_PAUSE_S, LONGEST_PAUSE_S)
            pause = noise.normal(0, NOISE, round(pause_s * SAMPLE_RATE)).astype(np.float32)
            for part in (sentence.waveform(), pause):
                file.write(part)
                written += part.size
            said.append(sentence.text)
            if written >= minutes * 60 * SAMPLE_RATE:
                return " ".join(said)
    raise AssertionError("there are no sentences")


def _row(cluster: LocalCluster, path: Path, text: str, at_once: int) -> dict[str, Any]:
    peaks = _memory(cluster)
    before = dict(peaks)
    with httpx.Client(base_url=cluster.url, timeout=120) as client, path.open("rb") as body:
        started = time.monotonic()
        sent = client.post("/v1/recordings?language=en", content=body, headers={"Prefer": "respond-async"})
        sent.raise_for_status()
        job: Mapping[str, Any] = {"status": "queued"}
        with status(f"recognising {path.stem} minutes"):
            while job["status"] in ("queued", "running"):
                time.sleep(ASKED_EVERY_S)
                job = client.get(sent.headers["location"]).raise_for_status().json()
                peaks = {name: max(size, peaks[name]) for name, size in _memory(cluster).items()}
        took_s = time.monotonic() - started
    if job["status"] != "done":
        raise command.NothingMeasured(f"the job is {job['status']}: {job.get('problem')}")
    result = job["result"]
    return {
        "minutes": round(result["seconds"] / 60, 1),
        "segments": len(result["segments"]),
        "failed": sum(segment["problem"] is not None for segment in result["segments"]),
        "at_once": at_once,
        "took_s": round(took_s, 1),
        "times_real_time": round(result["seconds"] / took_s, 2),
        "wer": round(float(jiwer.wer(_plain(text), _plain(result["text"]))), 4),
        **{f"{name}_mb": round(size / 1e6) for name, size in peaks.items()},
        **{f"{name}_mb_before": round(size / 1e6) for name, size in before.items()},
    }


def _memory(cluster: LocalCluster) -> dict[str, float]:
    """Resident bytes of the gateway's processes, by their role."""
    sizes = dict.fromkeys(PROCESSES, 0.0)
    for role, process in _processes(cluster):
        try:
            sizes[role] += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return sizes


def _processes(cluster: LocalCluster) -> Iterator[tuple[str, psutil.Process]]:
    for process in cluster.processes():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        yield from ((role, process) for role, part in PROCESSES.items() if part in line)


def _plain(text: str) -> str:
    return " ".join("".join(letter if letter.isalnum() or letter == "'" else " " for letter in text.lower()).split())


def recordings_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows as they are printed."""
    columns = ("minutes", "segments", "failed", "x real time", "WER", "gateway MB", "proxy MB", "cutting")
    made = table("Recordings as jobs", columns, words=0)
    for row in rows:
        made.add_row(
            f"{row['minutes']:g}",
            str(row["segments"]),
            str(row["failed"]),
            f"{row['times_real_time']:.1f}",
            f"{100 * row['wer']:.1f} %",
            *(f"{row[f'{role}_mb_before']} → {row[f'{role}_mb']}" for role in PROCESSES),
        )
    return made


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("recordings", __doc__)
    manifest.add_options(parser)
    command.add_log(parser, "recordings")
    parser.add_argument("--minutes", type=count, nargs="+", default=[6, 60], help="lengths (default: 6 60)")
    parser.add_argument("--at-once", type=count, default=4, help="segments (default: 4)")
    parser.add_argument("--profile", choices=list(CONFIGS), default="fused", help="(default: fused)")
    return parser


if __name__ == "__main__":
    main()
