"""The answers of OpenAI's API as documents, with what we have beyond them.

Names and meanings are those of OpenAI's reference; `emotion`, `speech`, `degraded`, `warnings`, `confidence` and
`stages` are ours. Clients of OpenAI keep fields that they do not know.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, Field

from models.messages import Doubt, Speech

WHISPER_PUBLISHED: Final = 1_663_718_400  # seconds since 1970: 21 September 2022
FRAMES_PER_SECOND: Final = 100  # of `seek`


class EmotionField(BaseModel):
    """How it sounds. Do not act upon `label` where `uncertain` is true; it is null where nobody speaks."""

    label: str | None
    confidence: float
    uncertain: bool
    doubts: list[Doubt]
    probabilities: dict[str, float]


NOBODY: Final = EmotionField(label=None, confidence=0.0, uncertain=True, doubts=["no_speech"], probabilities={})


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word, with the blank before it: seconds from the begin of the recording, and how sure the recogniser is."""

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a recording in which somebody speaks.

    Attributes:
        start, end: seconds from the beginning of the recording.
        text: its words.
        average_log_probability: of their tokens, at most 0.
        no_speech_probability: that nobody speaks, 0 to 1.
        emotion: of the piece.
        words: with their times; empty where they are not known.
    """

    start: float
    end: float
    text: str
    average_log_probability: float
    no_speech_probability: float
    emotion: EmotionField
    words: tuple[SpokenWord, ...] = ()


@dataclass(frozen=True, slots=True)
class Transcribed:
    """What the cluster made of a recording.

    Attributes:
        text: all words.
        seconds: of the recording.
        language: as Whisper's code.
        pieces: in which somebody speaks.
        emotion: of the whole.
        speech: whether somebody speaks.
        degraded: what was left out.
        warnings: what was done otherwise than asked.
    """

    text: str
    seconds: float
    language: str
    pieces: tuple[Piece, ...]
    emotion: EmotionField
    speech: Speech | None
    degraded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Usage(BaseModel):
    """What was transcribed, in seconds of the recording."""

    type: Literal["duration"] = "duration"
    seconds: float


class Transcription(BaseModel):
    """The answer in `json`."""

    text: str
    usage: Usage
    emotion: EmotionField
    speech: Speech | None
    degraded: list[str]
    warnings: list[str]


class Word(BaseModel):
    """A word with its times in seconds and the recogniser's confidence."""

    word: str
    start: float
    end: float
    confidence: float


class Segment(BaseModel):
    """A piece of speech. `tokens` is empty: those of the recogniser are no use to others."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    emotion: EmotionField


class VerboseTranscription(Transcription):
    """The answer in `verbose_json`; `language` is a code, such as `en`."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    segments: list[Segment] | None = Field(None, exclude_if=lambda value: value is None)
    words: list[Word] | None = Field(None, exclude_if=lambda value: value is None)


class Delta(BaseModel):
    """An event: more text."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class Done(Transcription):
    """The last event: all of it."""

    type: Literal["transcript.text.done"] = "transcript.text.done"


class ModelCard(BaseModel):
    """A name that requests may give for the recogniser."""

    id: str
    object: Literal["model"] = "model"
    created: int = WHISPER_PUBLISHED
    owned_by: Literal["amser"] = "amser"


class ModelList(BaseModel):
    """The names of the recogniser; under `stages` what each stage runs, by role, and on which device."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    stages: dict[str, dict[str, str]]


def transcription(answer: Transcribed) -> Transcription:
    """The answer in `json`."""
    return Transcription(
        text=answer.text,
        usage=Usage(seconds=_seconds(answer.seconds)),
        emotion=answer.emotion,
        speech=answer.speech,
        degraded=list(answer.degraded),
        warnings=list(answer.warnings),
    )


def verbose(answer: Transcribed, *, words: bool, segments: bool) -> VerboseTranscription:
    """The answer in `verbose_json`, with what of both is asked for."""
    spoken = [word for piece in answer.pieces for word in piece.words]
    return VerboseTranscription(
        **dict(transcription(answer)),
        language=answer.language,
        duration=_seconds(answer.seconds),
        segments=[_segment(number, piece) for number, piece in enumerate(answer.pieces)] if segments else None,
        words=[_word(word) for word in spoken] if words else None,
    )


def done(answer: Transcribed) -> Done:
    """The last event."""
    return Done(**dict(transcription(answer)))


def model_cards(ids: Sequence[str]) -> list[ModelCard]:
    """The names, as OpenAI lists models."""
    return [ModelCard(id=each) for each in ids]


def _segment(number: int, piece: Piece) -> Segment:
    return Segment(
        id=number,
        seek=round(piece.start * FRAMES_PER_SECOND),
        start=_seconds(piece.start),
        end=_seconds(piece.end),
        text=piece.text,
        tokens=[],
        temperature=0.0,
        avg_logprob=round(piece.average_log_probability, 4),
        compression_ratio=round(_compression_ratio(piece.text), 4),
        no_speech_prob=round(piece.no_speech_probability, 4),
        emotion=piece.emotion,
    )


def _word(word: SpokenWord) -> Word:
    return Word(
        word=word.text.strip(), start=_seconds(word.start), end=_seconds(word.end), confidence=round(word.confidence, 4)
    )


def _compression_ratio(text: str) -> float:
    """Of Whisper's authors: bytes of a text by those that zlib makes of it; a loop of the recogniser is over 2.4."""
    content = text.encode()
    return len(content) / len(zlib.compress(content)) if content else 0.0


def _seconds(value: float) -> float:
    return round(value, 3)
