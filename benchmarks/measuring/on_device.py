"""The stages as a replica runs them, on a device and on the CPU: what to load, what to ask, and whether both agree.

Imports stand in the functions: a machine with a GPU may have PyTorch and little more. A stage that needs what is not
there is skipped, and the others run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Final

import numpy as np

Run = Callable[[Sequence[Any]], Sequence[Any]]

MOST_OFF: Final = 0.02  # of a probability, against the CPU in float32
LEAST_COSINE: Final = 0.999  # of the states of a token
MOST_OTHER_WORDS: Final = 0.03  # of all: a word between two spellings may fall to either side
LARGEST_BATCH: Final = 64  # utterances that the recogniser takes in one call
MOST_RECORDINGS: Final = 16
SPEECH: Final = Path(__file__).resolve().parents[2] / "tests" / "data" / "speech"
SECONDS: Final = (2.0, 3.0, 4.5, 7.0)  # of the utterances where no recordings can be read
TEXTS: Final = (
    "I am glad that you came.",
    "It is over.",
    "Leave me alone, all of you!",
    "",
    "The train leaves at ten.",
)
WHISPER, HEARS_SHORT, CONTEXT, FUSION_STATES = "whisper-base", "whisper-base-short", "all-minilm-l6-v2", 1536


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far answers of the device are from those of the CPU.

    Attributes:
        agrees: whether that is close enough.
        said: in words.
    """

    agrees: bool
    said: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage.

    Attributes:
        load: for a device; `reference` loads what its answers are compared with, which is float32 on the CPU.
        items: requests.
        compare: answers of the device, and of the CPU.
        batched: False where a replica computes one request at a time.
    """

    load: Callable[[str, bool], Run]
    items: Callable[[], Sequence[Any]]
    compare: Callable[[Sequence[Any], Sequence[Any]], Agreement]
    batched: bool = True


# --- What is asked ----------------------------------------------------------------------------------------------------


def mels() -> list[Any]:
    """Read speech of tests/data where PyAV is there to read it, and sound that is made where not."""
    from amser.features import SAMPLE_RATE, log_mel, silence_value
    from models.messages import Mel
    from models.sample import sample_mel

    made = []
    with suppress(ImportError):
        from amser.audio import read

        for file in sorted(SPEECH.rglob("*.flac"))[:MOST_RECORDINGS]:
            waveform = read(file)
            values = log_mel(waveform)
            seconds = len(waveform) / SAMPLE_RATE
            made.append(Mel(values.astype(np.float16), silence_value(values), seconds, "en", "none", None))
    return made or [sample_mel(frames=round(100 * seconds), seed=seed) for seed, seconds in enumerate(3 * SECONDS)]


def questions() -> list[Any]:
    """Mels, with and without made-up words, for the emotion network."""
    from models.emotion.checkpoint_info import describe
    from models.sample import sample_text_features

    sizes = describe().config
    words = sample_text_features(sizes.word_width, sizes.context_width)
    return [(mel, words if position % 2 else None) for position, mel in enumerate(mels())]


def questions_with_states() -> list[Any]:
    """The same with made-up states in place of those of the voice, for machines without Whisper."""
    random = np.random.default_rng(0)
    return [
        (mel, words, random.normal(0, 1, (-(-mel.frames // 8), FUSION_STATES)).astype(np.float16))
        for mel, words in questions()
    ]


# --- The stages -------------------------------------------------------------------------------------------------------


def load_network(device: str, _: bool) -> Run:
    """The emotion network alone, which ships with the code: PyTorch, SciPy and safetensors are enough."""
    from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
    from models.emotion.classifier import EmotionClassifier

    classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None, device)
    return lambda asked: [classifier.classify(mel, states, words) for mel, words, states in asked]


def load_emotion(device: str, reference: bool) -> Run:
    """The voice encoder and the emotion network: what FusionClassifier runs."""
    from models.device import has_bfloat16
    from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
    from models.emotion.classifier import EmotionClassifier
    from models.weights import model_path
    from models.whisper.voice import VoiceEncoder

    voice = VoiceEncoder(model_path(WHISPER), device, narrow=has_bfloat16() and not reference)
    classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None, device)
    return lambda asked: [classifier.classify(mel, voice.encode(mel), words) for mel, words in asked]


def load_text_encoder(device: str, _reference: bool) -> Run:
    """What Roberta runs."""
    from models.text.context_encoder import ContextEncoder
    from models.weights import model_path

    return ContextEncoder(model_path(CONTEXT), device).encode


def load_recogniser(device: str, reference: bool) -> Run:
    """What WhisperASR runs: CTranslate2, which has CUDA kernels of its own."""
    from models.weights import model_path
    from models.whisper.ctranslate2_engine import CTranslate2Engine
    from models.whisper.recognizer import WhisperRecognizer

    compute_type = "float32" if reference else None
    engine = CTranslate2Engine(model_path(HEARS_SHORT), device, compute_type)
    return WhisperRecognizer(engine, batch_size=LARGEST_BATCH).transcribe


def load_reference_recogniser(device: str, _: bool) -> Run:
    """The same weights on openai-whisper, in torch."""
    from models.weights import model_path
    from models.whisper.openai_engine import OpenAIEngine
    from models.whisper.recognizer import WhisperRecognizer

    return WhisperRecognizer(OpenAIEngine(model_path(HEARS_SHORT), device), batch_size=LARGEST_BATCH).transcribe


# --- Whether both agree -----------------------------------------------------------------------------------------------


def compare_emotions(answers: Sequence[Any], expected: Sequence[Any]) -> Agreement:
    """Labels equal, and no probability further off than `MOST_OFF`."""
    pairs = list(zip(answers, expected, strict=True))
    same = sum(one.label == other.label for one, other in pairs)
    off = max(
        abs(one.probabilities[name] - probability)
        for one, other in pairs
        for name, probability in other.probabilities.items()
    )
    return Agreement(same == len(pairs) and off <= MOST_OFF, f"labels {same}/{len(pairs)}, off by {off:.4f} at most")


def compare_texts(answers: Sequence[Any], expected: Sequence[Any]) -> Agreement:
    """The share of the words that are others, and how many texts are the same, word for word."""
    pairs = [(one.text.split(), other.text.split()) for one, other in zip(answers, expected, strict=True)]
    words = sum(max(len(one), len(other)) for one, other in pairs)
    same = sum(
        block.size
        for one, other in pairs
        for block in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    )
    others = words - same
    texts = sum(one == other for one, other in pairs)
    said = f"texts {texts}/{len(pairs)}, {others / max(1, words):.1%} other words"
    return Agreement(others <= MOST_OTHER_WORDS * words, said)


def compare_states(answers: Sequence[Any], expected: Sequence[Any]) -> Agreement:
    """The cosine of each token's states."""
    least = 1.0
    for one, other in zip(answers, expected, strict=True):
        products = (one.values * other.values).sum(1)
        lengths = np.linalg.norm(one.values, axis=1) * np.linalg.norm(other.values, axis=1)
        least = min(least, float((products / lengths).min()))
    return Agreement(least >= LEAST_COSINE, f"cosine {least:.5f} at least")


STAGES: Final = {
    "network": Stage(load_network, questions_with_states, compare_emotions, batched=False),
    "emotion": Stage(load_emotion, questions, compare_emotions, batched=False),
    "text-encoder": Stage(load_text_encoder, lambda: TEXTS, compare_states),
    "recogniser": Stage(load_recogniser, mels, compare_texts),
    "recogniser-torch": Stage(load_reference_recogniser, mels, compare_texts),
}
