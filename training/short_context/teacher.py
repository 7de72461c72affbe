"""The teacher: Whisper itself, on the padded 30 s. What it writes, and how sure it is of each token.

Answers are kept on disk, one file a clip, under a key of the weights: a run that was interrupted goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from rich.progress import track
from whisper.tokenizer import Tokenizer, get_tokenizer

from amser.features import log_mel
from models.weights import cache_folder, fingerprint, model_path
from models.whisper.conversion import load_openai_whisper
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.engine import CONTEXT_FRAMES, MAXIMUM_TOKENS, Decoded, States
from models.whisper.fill import DIGITAL_SILENCE
from models.whisper.judge import loops
from training.short_context.clips import Clip, waveform_of

LIKELIEST: Final = 32  # tokens of which the probability is kept, at each place
LEAST_LOG_PROBABILITY: Final = -0.8  # of a text that teaches
MOST_NO_SPEECH: Final = 0.6


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher writes of a clip.

    Attributes:
        tokens: (n,) int32, of the text, without the start and the end.
        likeliest: (n + 2, 32) int32: the likeliest tokens at the start (languages, no speech), at each token, and at
            the end.
        probabilities: (n + 2, 32) float16, of those.
        average_log_probability: of the text.
        no_speech_probability: 0 to 1.
    """

    tokens: NDArray[np.int32]
    likeliest: NDArray[np.int32]
    probabilities: NDArray[np.float16]
    average_log_probability: float
    no_speech_probability: float


def believed(lesson: Lesson) -> bool:
    """Whether a text is good enough to teach: likely, of speech, and without a loop."""
    return (
        len(lesson.tokens) > 0
        and lesson.average_log_probability >= LEAST_LOG_PROBABILITY
        and lesson.no_speech_probability <= MOST_NO_SPEECH
        and not loops([int(token) for token in lesson.tokens])
    )


def lessons_of(clips: Sequence[Clip], weights: str, workers: int, cache: Path | None = None) -> list[Lesson | None]:
    """The lesson of each clip, from disk where it is there; None where the recording cannot be used."""
    folder = (cache or cache_folder() / "short-context") / fingerprint(weights)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    missing = [clip for clip in clips if not _file(folder, clip).is_file()]
    if missing:
        groups = [missing[start : start + 4] for start in range(0, len(missing), 4)]
        with ProcessPoolExecutor(workers, get_context("spawn"), _start, (weights, folder)) as pool:
            for _ in track(pool.map(_teach, groups), "the teacher's texts", total=len(groups)):
                pass
    return [_load(_file(folder, clip)) for clip in clips]


def _file(folder: Path, clip: Clip) -> Path:
    return folder / f"{clip.corpus}-{hashlib.sha256(clip.name.encode()).hexdigest()[:20]}.npz"


def _load(file: Path) -> Lesson | None:
    with np.load(file) as content:
        if "tokens" not in content:
            return None
        return Lesson(
            content["tokens"],
            content["likeliest"],
            content["probabilities"],
            float(content["average_log_probability"]),
            float(content["no_speech_probability"]),
        )


_TEACHER: list[_Teacher] = []  # one in each process


def _start(weights: str, folder: Path) -> None:
    torch.set_num_threads(1)
    _TEACHER.append(_Teacher(weights, folder))


def _teach(clips: Sequence[Clip]) -> None:
    _TEACHER[0].teach(clips)


class _Teacher:
    def __init__(self, weights: str, folder: Path) -> None:
        model = model_path(weights)
        self._engine = CTranslate2Engine(model)
        self._whisper = load_openai_whisper(model)
        self._tokenizer = get_tokenizer(True, num_languages=self._whisper.num_languages)
        self._folder = folder

    def teach(self, clips: Sequence[Clip]) -> None:
        for clip in clips:
            try:
                mel = log_mel(waveform_of(clip))
            except (ValueError, soundfile.LibsndfileError):
                np.savez(_file(self._folder, clip), unusable=np.array(True))
                continue
            padded = np.full((len(mel), CONTEXT_FRAMES), mel.max() - 2.0, np.float32)
            padded[:, : mel.shape[1]] = mel[:, :CONTEXT_FRAMES]
            states = self._engine.encode(np.maximum(padded, DIGITAL_SILENCE)).states[None]
            limit = min(MAXIMUM_TOKENS, 20 + 12 * mel.shape[1] // 100)
            decoded = self._engine.decode(states, [clip.language], limit)[0]
            self._keep(clip, states, decoded)

    @torch.inference_mode()
    def _keep(self, clip: Clip, states: States, decoded: Decoded) -> None:
        tokenizer = self._tokenizer
        prompt = prompt_of(tokenizer, clip.language)
        row = torch.tensor([[*prompt, *decoded.tokens]])
        logits = self._whisper.logits(row, torch.from_numpy(states))[0].softmax(-1)
        places = torch.cat([logits[:1], logits[len(prompt) - 1 :]])
        best = places.topk(LIKELIEST)
        np.savez(
            _file(self._folder, clip),
            tokens=np.array(decoded.tokens, np.int32),
            likeliest=best.indices.numpy().astype(np.int32),
            probabilities=best.values.numpy().astype(np.float16),
            average_log_probability=np.array(decoded.average_log_probability),
            no_speech_probability=np.array(decoded.no_speech_probability),
        )


def prompt_of(tokenizer: Tokenizer, language: str) -> list[int]:
    """The start of a text: start, language, transcribe, no timestamps."""
    return [
        tokenizer.sot,
        tokenizer.to_language_token(language),
        tokenizer.transcribe,
        tokenizer.no_timestamps,
    ]
