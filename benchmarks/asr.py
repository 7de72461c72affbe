"""Words and what they cost: both engines, padded and short context, before and after the codec.

    python -m benchmarks.asr --manifest MANIFEST.tsv --json FILE

WER is jiwer's on text that Whisper's English normaliser has levelled; seconds are CPU time of this process, log-Mel and
codec left out. `--batch-size` is how many texts are decoded together: a CPU replica takes as many by default.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import jiwer
import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track
from rich.table import Table
from whisper.normalizers import EnglishTextNormalizer

from amser import codecs
from amser.features import SAMPLE_RATE, Float32, log_mel, resample, silence_value, to_mono
from benchmarks.measuring.report import write_rows
from models.messages import Mel
from models.weights import model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.engine import Engine
from models.whisper.openai_engine import OpenAIEngine
from models.whisper.recognizer import BATCH_SIZE, Context, WhisperRecognizer

ENGINES = ("ctranslate2", "openai-whisper")
CODECS = ("none", "svd-f16:0.125")
AT_ONCE = 16  # utterances handed to the recogniser together, as a replica under load would see them


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, its log-Mel by codec, and what is said in it."""

    reference: str
    seconds: float
    mels: dict[str, Mel]


def read_manifest(manifest: Path, root: Path | None, limit: int | None) -> list[tuple[Path, str]]:
    """(audio file, reference) of each row; relative paths are looked for in `root`, or in the manifest's ancestors."""
    with manifest.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t"))[:limit]
    if not rows or not {"path", "text"} <= rows[0].keys():
        raise SystemExit(f"{manifest}: needs tab-separated columns path and text, and at least one row")
    folders = [root] if root else list(manifest.resolve().parents)
    folder = next((folder for folder in folders if (folder / rows[0]["path"]).is_file()), None)
    if folder is None:
        raise SystemExit(f"{manifest}: {rows[0]['path']} is not below {folders[0]} or above it; give --root")
    return [(folder / row["path"], row["text"]) for row in rows]


def read_clip(path: Path, reference: str, settings: Sequence[str], language: str | None) -> Clip:
    """Audio → log-Mel → codec → log-Mel, for each codec setting."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = resample(to_mono(samples), rate)
    mel = log_mel(waveform)
    seconds = len(waveform) / SAMPLE_RATE
    return Clip(reference, seconds, {setting: _through(mel, setting, seconds, language) for setting in settings})


def _through(mel: Float32, setting: str, seconds: float, language: str | None) -> Mel:
    name, _, rate = setting.partition(":")
    rank = None
    if name != "none":
        encoded = codecs.encode(mel, name, rate=float(rate) if rate else None)
        rank = encoded.rank
        mel = codecs.decode(encoded.codec, encoded.payload, bands=mel.shape[0], frames=mel.shape[1])
    return Mel(mel.astype(np.float16), silence_value(mel), seconds, language, name, rank)


def measure(recognizer: WhisperRecognizer, clips: Sequence[Clip], setting: str, label: str) -> tuple[float, float]:
    """WER in per cent and CPU seconds."""
    normalize = EnglishTextNormalizer()
    # By length first, as `transcribe` would do within one call
    ordered = sorted(clips, key=lambda clip: clip.seconds)
    texts: list[str] = []
    started = time.process_time()
    for start in track(range(0, len(ordered), AT_ONCE), label, console=Console(stderr=True)):
        mels = [clip.mels[setting] for clip in ordered[start : start + AT_ONCE]]
        texts += [transcript.text for transcript in recognizer.transcribe(mels)]
    seconds = time.process_time() - started
    pairs = [
        (reference, normalize(text))
        for clip, text in zip(ordered, texts, strict=True)
        if (reference := normalize(clip.reference))
    ]
    return 100 * jiwer.wer([pair[0] for pair in pairs], [pair[1] for pair in pairs]), seconds


def load_engine(name: str, weights: str, threads: int) -> Engine:
    if name == "ctranslate2":
        return CTranslate2Engine(model_path(weights), threads=threads)
    return OpenAIEngine(model_path(weights), threads=threads)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asr", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--manifest", type=Path, required=True, help="tab-separated, with columns path and text")
    parser.add_argument("--root", type=Path, help="folder that the paths are relative to (default: found from them)")
    parser.add_argument("--json", type=Path, required=True, help="where the rows go")
    parser.add_argument("--limit", type=int, help="first N clips only")
    parser.add_argument("--language", default="en", help="ISO 639-1 code, or auto to detect it (default: en)")
    parser.add_argument("--weights", default="whisper-base", help="name in the weight catalogue")
    parser.add_argument("--engine", choices=ENGINES, nargs="+", default=ENGINES)
    parser.add_argument("--context", choices=get_args(Context), nargs="+", default=["padded", "short"])
    parser.add_argument("--codec", nargs="+", default=CODECS, help="codec:rate, or none")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, help="texts decoded together (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    language = None if arguments.language == "auto" else arguments.language
    clips = [
        read_clip(path, text, arguments.codec, language)
        for path, text in read_manifest(arguments.manifest, arguments.root, arguments.limit)
    ]
    audio_seconds = sum(clip.seconds for clip in clips)
    rows: list[dict[str, object]] = []
    for name in arguments.engine:
        engine = load_engine(name, arguments.weights, arguments.threads)
        for context in arguments.context:
            recognizer = WhisperRecognizer(engine, context, arguments.batch_size)
            for setting in arguments.codec:
                wer, cpu = measure(recognizer, clips, setting, f"{name}, {context}, {setting}")
                rows.append(
                    {
                        "engine": name,
                        "context": context,
                        "codec": setting,
                        "wer": round(wer, 3),
                        "cpu_seconds": round(cpu, 2),
                        "audio_seconds": round(audio_seconds, 2),
                        "utterances": len(clips),
                        "batch_size": arguments.batch_size,
                    }
                )
                write_rows(arguments.json, rows, command="benchmarks.asr", weights=arguments.weights)
    table = Table("engine", "context", "codec", "WER %", "CPU s", "speech s per CPU s", title=arguments.manifest.name)
    for row in rows:
        speed = audio_seconds / max(float(str(row["cpu_seconds"])), 1e-9)
        table.add_row(*(str(row[key]) for key in ("engine", "context", "codec", "wer", "cpu_seconds")), f"{speed:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
