"""What a recording is answered with, as objects and as JSON: its segments, and the whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.gateway.problems import Problem
from deployments.gateway.utterances.answers import UNDETERMINED, WordAnswer, word_answers
from deployments.pipeline import Recognition
from models.messages import Doubt, Speech

SEGMENTS_FAILED: Final = "segments_failed"  # a warning

Status = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: Final = frozenset({"done", "failed", "cancelled"})


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Segment(_Document):
    """A stretch of speech between two pauses; `start` and `end` are seconds from the begin of the recording.

    The fields are those of the answer to an utterance; the times of its words, where the request asks for them, count
    from the begin of the recording too. `problem` says why a segment could not be recognised: it has no text and no
    emotion then, and the others are as good as without it.
    """

    start: float
    end: float
    text: str
    language: str
    emotion: str | None
    confidence: float
    probabilities: dict[str, float]
    uncertain: bool
    doubts: list[Doubt]
    speech: Speech | None
    degraded: list[str]
    average_log_probability: float = 0.0
    speech_probability: float | None = None
    warnings: list[str] = Field(default_factory=list)
    words: list[WordAnswer] | None = Field(None, exclude_if=lambda words: words is None)
    problem: Problem | None = None

    @property
    def seconds(self) -> float:
        """Of it."""
        return self.end - self.start


class RecordingAnswer(_Document):
    """Words and emotion of a recording.

    `text` joins those of the segments, `language` is the one that most seconds are spoken in. `probabilities` are the
    means of the segments', each weighted with its seconds; `emotion` is the most probable, and `confidence` its
    probability. Where nobody speaks, `emotion` is null.

    `warnings` has what is wrong with the recording or its answer: `audio_damaged`, `audio_cut`, `segments_failed`, and
    those of its segments.
    """

    text: str
    language: str
    seconds: float
    emotion: str | None
    confidence: float
    probabilities: dict[str, float]
    segments: list[Segment]
    warnings: list[str]


class JobAnswer(_Document):
    """A recording that is answered later.

    `progress` is the share that is recognised, 0 to 1. `segments` are those that are ready, until `result` has them;
    `problem` says why a job has failed.
    """

    id: str
    status: Status
    progress: float
    created: str
    expires: str
    segments: list[Segment] = Field(default_factory=list)
    result: RecordingAnswer | None = None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """How far a recording is.

    Attributes:
        index: of the segment.
        segment: that is ready.
        progress: share of the recording that is recognised without a gap, 0 to 1.
    """

    index: int
    segment: Segment
    progress: float


def recognized(start: float, end: float, recognition: Recognition) -> Segment:
    """The segment that was recognised."""
    transcript, emotion = recognition.transcript, recognition.emotion
    doubts: Sequence[Doubt] = ("no_speech",) if emotion is None else emotion.doubts
    return Segment(
        start=round(start, 3),
        end=round(end, 3),
        text=transcript.text.strip() if transcript else "",
        language=transcript.language if transcript else UNDETERMINED,
        emotion=emotion.label if emotion else None,
        confidence=round(emotion.confidence, 4) if emotion else 0.0,
        probabilities={name: round(value, 4) for name, value in emotion.probabilities.items()} if emotion else {},
        uncertain=bool(doubts),
        doubts=list(doubts),
        speech=transcript.speech if transcript else None,
        degraded=list(recognition.left_out),
        average_log_probability=round(transcript.average_log_probability, 4) if transcript else 0.0,
        speech_probability=round(transcript.speech_probability, 4) if transcript else None,
        warnings=list(transcript.warnings) if transcript else [],
        words=word_answers(transcript.words if transcript else (), start) if recognition.mel.word_times else None,
    )


def failed(start: float, end: float, problem: Problem) -> Segment:
    """A segment that was not recognised."""
    return Segment(
        start=round(start, 3),
        end=round(end, 3),
        text="",
        language=UNDETERMINED,
        emotion=None,
        confidence=0.0,
        probabilities={},
        uncertain=True,
        doubts=[],
        speech=None,
        degraded=[],
        problem=problem,
    )


def whole(
    segments: Sequence[Segment], seconds: float, warnings: Sequence[str], language: str | None
) -> RecordingAnswer:
    """The answer that segments make up.

    Args:
        segments: in order.
        seconds: of the recording.
        warnings: of its decoding.
        language: that the client named.
    """
    mix, spoken = _mean(segments), defaultdict[str, float](float)
    for segment in segments:
        if segment.text:
            spoken[segment.language] += segment.seconds
    emotion = max(mix, key=lambda name: mix[name], default=None)
    lost = [SEGMENTS_FAILED] if any(segment.problem for segment in segments) else []
    return RecordingAnswer(
        text=" ".join(segment.text for segment in segments if segment.text),
        language=max(spoken, key=lambda name: spoken[name], default=language or UNDETERMINED),
        seconds=round(seconds, 3),
        emotion=emotion,
        confidence=mix[emotion] if emotion else 0.0,
        probabilities=mix,
        segments=list(segments),
        warnings=[*warnings, *lost, *dict.fromkeys(each for segment in segments for each in segment.warnings)],
    )


def _mean(segments: Sequence[Segment]) -> dict[str, float]:
    """Probabilities of the emotions, by the seconds that they are heard."""
    heard = [segment for segment in segments if segment.probabilities]
    seconds = sum(segment.seconds for segment in heard)
    mixed = defaultdict[str, float](float)
    for segment in heard:
        for name, probability in segment.probabilities.items():
            mixed[name] += probability * segment.seconds / seconds
    return {name: round(probability, 4) for name, probability in mixed.items()}
