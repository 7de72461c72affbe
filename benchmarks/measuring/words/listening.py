"""Who listens: the recogniser with some weights and context, or the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from benchmarks.measuring.console import progress
from benchmarks.measuring.words.padded import PaddedReference, folder_of
from benchmarks.measuring.words.utterance import Utterance
from models.messages import Mel, Transcript
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import Context, WhisperRecognizer
from training.data.extraction import CodecSetting, compressed_mel

REFERENCE: Final = "reference"
AT_ONCE: Final = 16  # utterances handed to the recogniser together, as a replica under load would see them
WRONG: Final = {"de": "en"}  # what is told in place of a language
WRONG_ELSE: Final = "de"
Hint = Literal["told", "detected", "wrong"]
HINTS: Final[tuple[Hint, ...]] = get_args(Hint)


@dataclass(frozen=True, slots=True)
class System:
    """A recogniser.

    Attributes:
        weights: in the catalogue, or a folder in CTranslate2's format.
        context: of the recogniser, or that of `PaddedReference`.
    """

    weights: str
    context: Context | Literal["reference"]

    def __str__(self) -> str:
        return f"{self.weights}, {self.context}"


@dataclass(frozen=True, slots=True)
class Heard:
    """What is written of an utterance.

    Attributes:
        transcript: of the recogniser.
        seconds: of the utterance.
    """

    transcript: Transcript
    seconds: float

    @property
    def text(self) -> str:
        return self.transcript.text.strip()


class Listener(Protocol):
    """As `WhisperRecognizer` and `PaddedReference`."""

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        """The words of each utterance, in order."""


class Listeners:
    """All systems of a run; each is loaded at its first use.

    Args:
        threads: of the networks.
        batch_size: texts decoded together.
    """

    def __init__(self, threads: int, batch_size: int) -> None:
        self._threads = threads
        self._batch_size = batch_size
        self._engines: dict[str, CTranslate2Engine] = {}
        self._listeners: dict[System, Listener] = {}

    def hear(self, system: System, mels: Sequence[Mel], label: str) -> list[Heard]:
        """What a system writes, in order; utterances of similar length are decoded together."""
        if system not in self._listeners:
            self._listeners[system] = self._listener(system)
        ordered = sorted(range(len(mels)), key=lambda position: mels[position].frames)
        groups = [ordered[start : start + AT_ONCE] for start in range(0, len(ordered), AT_ONCE)]
        written: dict[int, Transcript] = {}
        for group in progress(groups, f"{system}, {label}"):
            answers = self._listeners[system].transcribe([mels[position] for position in group])
            written |= zip(group, answers, strict=True)
        return [Heard(written[position], mel.seconds) for position, mel in enumerate(mels)]

    def _listener(self, system: System) -> Listener:
        if system.context == REFERENCE:
            return PaddedReference(system.weights, lambda: self._engine(system.weights))
        return WhisperRecognizer(self._engine(system.weights), system.context, self._batch_size)

    def _engine(self, weights: str) -> CTranslate2Engine:
        if weights not in self._engines:
            self._engines[weights] = CTranslate2Engine(folder_of(weights), threads=self._threads)
        return self._engines[weights]


def mels_of(utterances: Sequence[Utterance], codec: CodecSetting, hint: Hint, label: str) -> list[Mel]:
    """The log-Mels as the cluster rebuilds them. Raises ManifestError where one cannot be made."""
    listed = progress(utterances, f"log-Mel, {label}")
    return [compressed_mel(each.load(), codec, _named(each.language, hint)) for each in listed]


def _named(language: str, hint: Hint) -> str | None:
    if hint == "wrong":
        return WRONG.get(language, WRONG_ELSE)
    return language if hint == "told" else None
