"""CPU milliseconds an utterance of the emotion, beside those of recognising the words; one thread.

The voice comes with the words. What it takes where it is encoded alone, as without a recogniser, is measured too, and
what difference that makes to the answers of the shipped network.

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
from deployments.settings import Settings
from load_tests.commands import count
from models.device import has_bfloat16
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.emotion.classifier import EmotionClassifier
from models.messages import TextFeatures, Transcript
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import adapted_from, model_path
from models.whisper.engines import load_engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder
from training.corpora.catalogue import open_corpus
from training.data.extraction import CodecSetting, compressed_mel, waveform_of
from training.data.screening import screen
from training.data.texts import TEXT_ENCODER, WORD_VECTORS
from training.data_folder import in_data_folder

Result = TypeVar("Result")
CORPUS = "emotion/ravdess.tsv"
STAGES = ("words", "text", "fusion", "voice_alone")


@command.benchmark("fusion_cost")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    records = screen(open_corpus(options.corpus)).records
    settings = Settings().recognizer
    recognizer = WhisperRecognizer(load_engine(settings.engine, model_path(settings.weights)))
    voice = VoiceEncoder(model_path(adapted_from(settings.weights)), narrow=has_bfloat16())
    vectors = WordVectors(model_path(WORD_VECTORS))
    context = ContextEncoder(model_path(TEXT_ENCODER))
    classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None)
    chosen = records[:: max(1, len(records) // options.limit)][: options.limit]
    seconds: list[float] = []
    milliseconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    same: list[bool] = []
    moved: list[float] = []
    for record in progress(chosen, "utterances"):
        mel = compressed_mel(waveform_of(record), CodecSetting.parse("svd-f16:0.125"), record.language)
        (transcript,) = _timed(milliseconds["words"], partial(recognizer.transcribe, [mel]))
        text_features = _timed(milliseconds["text"], partial(_text_features, transcript, vectors, context))
        alone = _timed(milliseconds["voice_alone"], partial(voice.encode, mel))
        shared = alone if transcript.voice is None else transcript.voice
        emotion = _timed(milliseconds["fusion"], partial(classifier.classify, mel, shared, text_features))
        other = classifier.classify(mel, alone, text_features)
        same.append(emotion.label == other.label)
        moved.append(max(abs(emotion.probabilities[name] - other.probabilities[name]) for name in other.probabilities))
        seconds.append(trim_pauses(mel.values).shape[1] / FRAMES_PER_SECOND)
    row: dict[str, Any] = {
        "corpus": Path(options.corpus).stem,
        "n": len(chosen),
        "median_seconds_of_speech": round(float(np.median(seconds)), 2),
    }
    row |= {f"{stage}_cpu_ms": round(float(np.median(values)), 1) for stage, values in milliseconds.items()}
    row |= {f"{stage}_cpu_ms_p95": round(float(np.percentile(values, 95)), 1) for stage, values in milliseconds.items()}
    row |= {"same_label": round(float(np.mean(same)), 3), "probability_moved": round(float(np.mean(moved)), 3)}
    write_rows(options.json, [row], bfloat16=has_bfloat16())
    output().print(stages_table(row))


def stages_table(row: dict[str, Any]) -> Table:
    """The row as it is printed, a line for each stage."""
    title = f"{row['corpus']}, {row['n']} utterances, {row['median_seconds_of_speech']:g} s of speech in the median"
    made = table(title, ("stage", "median CPU ms", "p95 CPU ms"))
    for stage in STAGES:
        made.add_row(stage.replace("_", " "), f"{row[f'{stage}_cpu_ms']:.1f}", f"{row[f'{stage}_cpu_ms_p95']:.1f}")
    made.caption = (
        f"voice with the words or alone: {row['same_label']:.0%} have the same label, "
        f"the probability that moves most moves by {row['probability_moved']:.3f} in the mean"
    )
    return made


def _text_features(transcript: Transcript, vectors: WordVectors, context: ContextEncoder) -> TextFeatures:
    (tokens,) = context.encode([transcript.text])
    return TextFeatures(transcript.language, vectors.embed(transcript.text), tokens)


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
