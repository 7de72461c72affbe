"""Words and what they cost: weights, engines, padded and short context, before and after the codec.

    python -m benchmarks.asr --manifest SPEECH.tsv
    python -m benchmarks.asr --manifest SPEECH.tsv --weights whisper-base-short whisper-base --context short

WER is jiwer's on text that Whisper's English normaliser has levelled; seconds are CPU time of this process, log-Mel and
codec left out. `--batch-size` is how many texts are decoded together: a CPU replica takes as many by default.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, get_args

import jiwer
from rich.table import Table
from whisper.normalizers import EnglishTextNormalizer

from amser.client.commands.codec_options import spoken_language
from amser.features import SAMPLE_RATE
from benchmarks.measuring import command, manifest
from benchmarks.measuring.console import output, progress, table
from benchmarks.measuring.manifest import Recording
from benchmarks.measuring.report import write_rows
from load_tests.commands import count
from models.messages import Mel
from models.weights import model_path
from models.whisper.engine import BATCH_SIZE
from models.whisper.engines import load_engine
from models.whisper.recognizer import Context, WhisperRecognizer
from models.whisper.served import EngineName
from training.data.extraction import CodecSetting, compressed_mel

ENGINES: Final = get_args(EngineName)
CODECS = ("none", "svd-f16:0.125")
Row = dict[str, Any]
AT_ONCE = 16  # utterances handed to the recogniser together, as a replica under load would see them


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, its log-Mel by codec, and what is said in it."""

    reference: str
    seconds: float
    mels: dict[str, Mel]


def read_clip(recording: Recording, settings: Sequence[str], language: str | None) -> Clip:
    """Audio → log-Mel → codec → log-Mel, for each codec setting. Raises ManifestError where it cannot be read."""
    waveform = recording.waveform()
    mels = {setting: compressed_mel(waveform, CodecSetting.parse(setting), language) for setting in settings}
    return Clip(recording.text, len(waveform) / SAMPLE_RATE, mels)


def measure(recognizer: WhisperRecognizer, clips: Sequence[Clip], setting: str, label: str) -> tuple[float, float]:
    """WER in per cent and CPU seconds."""
    normalize = EnglishTextNormalizer()
    # By length first, as `transcribe` would do within one call
    ordered = sorted(clips, key=lambda clip: clip.seconds)
    texts: list[str] = []
    started = time.process_time()
    for start in progress(range(0, len(ordered), AT_ONCE), label):
        mels = [clip.mels[setting] for clip in ordered[start : start + AT_ONCE]]
        texts += [transcript.text for transcript in recognizer.transcribe(mels)]
    seconds = time.process_time() - started
    pairs = [
        (reference, normalize(text))
        for clip, text in zip(ordered, texts, strict=True)
        if (reference := normalize(clip.reference))
    ]
    return 100 * jiwer.wer([pair[0] for pair in pairs], [pair[1] for pair in pairs]), seconds


def rows_table(rows: Sequence[Row], title: str) -> Table:
    """The rows as they are printed."""
    made = table(title, ("weights", "engine", "context", "codec", "WER %", "CPU s", "speech s\nper CPU s"), words=4)
    for row in rows:
        speed = f"{row['audio_seconds'] / max(row['cpu_seconds'], 1e-9):.1f}"
        made.add_row(*(str(row[key]) for key in ("weights", "engine", "context", "codec", "wer", "cpu_seconds")), speed)
    return made


@command.benchmark("asr")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command.parser("asr", __doc__)
    manifest.add_options(parser, (manifest.PATH, manifest.TEXT))
    add = parser.add_argument
    add("--limit", type=count, metavar="N", help="first N clips only")
    add("--language", type=spoken_language, default="en", metavar="CODE", help="spoken, or auto (default: %(default)s)")
    add(
        "--weights",
        nargs="+",
        default=["whisper-base"],
        metavar="NAME",
        help="of the catalogue (default: whisper-base)",
    )
    add("--engine", choices=ENGINES, nargs="+", default=ENGINES, help="default: all")
    add("--context", choices=get_args(Context), nargs="+", default=["padded", "short"], help="default: padded short")
    add("--codec", nargs="+", default=CODECS, metavar="C", help="codec:rate, or none (default: %(default)s)")
    add("--batch-size", type=count, default=BATCH_SIZE, metavar="N", help="texts decoded together (%(default)s)")
    add("--threads", type=count, default=1, metavar="N", help="of the recogniser (default: %(default)s)")
    options = command.parse(parser, arguments)

    recordings = manifest.recordings_of(options)[: options.limit]
    command.require_weights(options.weights)
    clips = [read_clip(each, options.codec, options.language) for each in progress(recordings, "log-Mel and codec")]
    audio_seconds = sum(clip.seconds for clip in clips)
    rows: list[Row] = []
    for weights, name in product(options.weights, options.engine):
        engine = load_engine(name, model_path(weights), threads=options.threads)
        for context in options.context:
            recognizer = WhisperRecognizer(engine, context, options.batch_size)
            for setting in options.codec:
                label = f"{weights}, {name}, {context}, {setting}"
                wer, cpu = measure(recognizer, clips, setting, label)
                rows.append(
                    {
                        "weights": weights,
                        "engine": name,
                        "context": context,
                        "codec": setting,
                        "wer": round(wer, 3),
                        "cpu_seconds": round(cpu, 2),
                        "audio_seconds": round(audio_seconds, 2),
                        "utterances": len(clips),
                        "batch_size": options.batch_size,
                    }
                )
                write_rows(options.json, rows)
    output().print(rows_table(rows, f"Words, {options.manifest.name}, {len(clips)} utterances"))


if __name__ == "__main__":
    main()
