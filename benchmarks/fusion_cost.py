"""CPU milliseconds an utterance of voice encoding and fusion, beside those of recognising the words; one thread.

python -m benchmarks.fusion_cost --corpus FILE --json FILE
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.table import Table

from amser.features import FRAMES_PER_SECOND, trim_pauses
from benchmarks.measuring import command
from benchmarks.measuring.console import output, progress, table
from benchmarks.measuring.report import write_rows
from load_tests.commands import count
from models.device import has_bfloat16
from models.emotion.checkpoint import DEFAULT_CHECKPOINT
from models.emotion.classifier import EmotionClassifier
from models.messages import TextFeatures
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder
from training.corpora.catalogue import open_corpus
from training.data.extraction import CodecSetting, compressed_mel, waveform_of
from training.data.screening import screen
from training.data.texts import TEXT_ENCODER, WORD_VECTORS
from training.data_folder import in_data_folder

Result = TypeVar("Result")
CORPUS = "emotion/ravdess.tsv"
STAGES = ("words", "voice", "fusion")


@command.benchmark("fusion_cost")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    records = screen(open_corpus(options.corpus)).records
    whisper = model_path("whisper-base")
    recognizer, voice = WhisperRecognizer(CTranslate2Engine(whisper)), VoiceEncoder(whisper, narrow=has_bfloat16())
    vectors = WordVectors(model_path(WORD_VECTORS))
    context = ContextEncoder(model_path(TEXT_ENCODER), narrow=has_bfloat16())
    classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None)
    chosen = records[:: max(1, len(records) // options.limit)][: options.limit]
    seconds: list[float] = []
    milliseconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for record in progress(chosen, "utterances"):
        mel = compressed_mel(waveform_of(record), CodecSetting.parse("svd-f16:0.125"), record.language)
        (transcript,) = _timed(milliseconds["words"], partial(recognizer.transcribe, [mel]))
        states = _timed(milliseconds["voice"], partial(voice.encode, mel))
        (tokens,) = context.encode([transcript.text])
        text_features = TextFeatures(transcript.language, vectors.embed(transcript.text), tokens)
        _timed(milliseconds["fusion"], partial(classifier.classify, mel, states, text_features))
        seconds.append(trim_pauses(mel.values).shape[1] / FRAMES_PER_SECOND)
    row: dict[str, Any] = {
        "corpus": Path(options.corpus).stem,
        "n": len(chosen),
        "median_seconds_of_speech": round(float(np.median(seconds)), 2),
    }
    row |= {f"{stage}_cpu_ms": round(float(np.median(values)), 1) for stage, values in milliseconds.items()}
    row |= {f"{stage}_cpu_ms_p95": round(float(np.percentile(values, 95)), 1) for stage, values in milliseconds.items()}
    write_rows(options.json, [row], bfloat16=has_bfloat16())
    output().print(stages_table(row))


def stages_table(row: dict[str, Any]) -> Table:
    """The row as it is printed, a line for each stage."""
    title = f"{row['corpus']}, {row['n']} utterances, {row['median_seconds_of_speech']:g} s of speech in the median"
    made = table(title, ("stage", "median CPU ms", "p95 CPU ms"))
    for stage in STAGES:
        made.add_row(stage, f"{row[f'{stage}_cpu_ms']:.1f}", f"{row[f'{stage}_cpu_ms_p95']:.1f}")
    return made


def _timed(into: list[float], call: Callable[[], Result]) -> Result:
    started = time.process_time()
    result = call()
    into.append(1000 * (time.process_time() - started))
    return result


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("fusion_cost", __doc__)
    parser.add_argument(
        "--corpus",
        default=str(in_data_folder(CORPUS)),
        help=f"a manifest, or NAME=FOLDER (default: {CORPUS} in the folder AMSER_DATA)",
    )
    parser.add_argument("--limit", type=count, default=100, help="utterances, spread over the corpus (default: 100)")
    return parser


if __name__ == "__main__":
    main()
