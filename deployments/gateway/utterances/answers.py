"""What goes over HTTP: the answer, and the problem document that each error becomes. Only here do dicts begin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final, Literal

from pydantic import BaseModel, Field
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from amser import wire
from amser.audio import (
    AudioTooCostly,
    AudioTooLong,
    AudioWarning,
    DamagedAudio,
    NoSound,
    UnknownCodec,
    UnknownFormat,
)
from amser.errors import SignalError
from deployments.access.denied import Denied
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.uploads.decoding import DecoderUnavailable
from deployments.gateway.utterances.admission import SHARE, Overloaded
from deployments.pipeline import Recognition, StageFailed
from deployments.replica.calls import OtherVersion
from models.messages import Doubt, Speech, Transcript, TranscriptWarning, Word

AnswerWarning = Literal[TranscriptWarning, AudioWarning]
UNDETERMINED: Final = "und"  # ISO 639


class WordAnswer(BaseModel):
    """A word, with its punctuation: seconds from the begin of the recording, and how sure the recogniser is, 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float


class TranscriptAnswer(BaseModel):
    """The words. Where `degraded` names `asr`, none were recognised: the text is empty and the language `und`.

    `words` has them one by one, with their times, where the request asks for them (`words=true`). Where `speech` is
    `doubtful`, the text may be wrong or invented.
    """

    text: str
    language: str
    average_log_probability: float
    words: list[WordAnswer] | None = Field(None, exclude_if=lambda words: words is None)


class InputAnswer(BaseModel):
    """What was received: the codec (or audio format), the bytes of the body, and the speech in it.

    `step` is the quantiser's index of a codec that has one; for the others it is left out.
    """

    codec: str
    bytes: int
    seconds: float
    rank: int | None
    step: int | None = Field(None, exclude_if=lambda step: step is None)


class Answer(BaseModel):
    """Words and emotion of one utterance.

    `confidence` is the calibrated probability that `emotion` is right. Where `uncertain` is true, do not act upon it:
    `doubts` has the reasons (`low_confidence`, `short`, `no_speech`, `doubtful_speech`, `no_words`, `language`).

    `speech` says whether somebody speaks, and `speech_probability` how probable that is; both are null where `degraded`
    names `asr`. Where nobody does, `emotion` is null, `probabilities` is empty and `confidence` 0.

    `warnings` names what was done otherwise than asked: `language_mismatch` where the speech is not in the language
    that the request names, and `transcript.language` is what was heard; `audio_damaged` where a part of the file could
    not be decoded and was left out, `audio_cut` where the file ends early.
    """

    request_id: str
    emotion: str | None
    probabilities: dict[str, float]
    confidence: float
    uncertain: bool
    doubts: list[Doubt]
    speech: Speech | None
    speech_probability: float | None
    transcript: TranscriptAnswer
    input: InputAnswer
    timings_ms: dict[str, float]
    models: dict[str, str]
    degraded: list[str]
    warnings: list[AnswerWarning]


_KIND_OF: Final[dict[type[SignalError], str]] = {  # the first that fits
    wire.Malformed: "malformed",
    DamagedAudio: "damaged-audio",
    wire.TooLarge: "too-long",
    AudioTooLong: "too-long",
    wire.Unsupported: "unsupported-envelope",
    AudioTooCostly: "too-costly",
    NoSound: "no-sound",
    UnknownCodec: "unsupported-codec",
    UnknownFormat: "unsupported-audio",
    SignalError: "unusable",
}


def denial(denied: Denied) -> Refusal:
    """What the gate says, as every other refusal."""
    return Refusal(denied.status, denied.cause, denied.limit, denied.retry_after_s, kind=denied.kind)


def refusal(error: BaseException, within_s: float, retry_after_s: int) -> Refusal | None:
    """What an error of the pipeline means for the client; None where it is our own fault.

    Args:
        error: that a stage or the gateway raised.
        within_s: seconds that this answer could take.
        retry_after_s: what the client is told to wait where the error does not say.
    """
    if isinstance(error, RayTaskError):  # a stage raised: what it raised is inside
        error = error.cause
    if isinstance(error, SignalError):
        kind = next(kind for error_type, kind in _KIND_OF.items() if isinstance(error, error_type))
        return refusal_of(kind, error.cause, error.limit)
    if isinstance(error, Denied):
        return denial(error)
    if isinstance(error, BackPressureError):
        cause = "the cluster has as many requests as it can queue"
        return refusal_of("queue-full", cause, retry_after_s=retry_after_s)
    if isinstance(error, Overloaded):
        kind = "share-used" if error.reason == SHARE else "overloaded"
        return refusal_of(kind, str(error), retry_after_s=error.retry_after_s)
    if isinstance(error, TimeoutError):
        return refusal_of("deadline", "the answer was not ready in time", f"{within_s:g} s")
    if isinstance(error, RayActorError | DeploymentUnavailableError | DecoderUnavailable | OtherVersion):
        cause = "a stage of the pipeline is not available at the moment"
        return refusal_of("stage-unavailable", cause, retry_after_s=retry_after_s)
    if isinstance(error, StageFailed):
        cause = f"a stage of the pipeline failed: {error}"
        return refusal_of("stage-failed", cause, retry_after_s=retry_after_s)
    return None


def answer(
    recognition: Recognition,
    request_id: str,
    *,
    codec: str,
    received: int,
    step: int | None,
    models: dict[str, str],
    warnings: Sequence[AudioWarning] = (),
) -> Answer:
    """The document of a request that succeeded; `warnings` are those of decoding."""
    transcript, emotion = recognition.transcript, recognition.emotion
    doubts: tuple[Doubt, ...] = ("no_speech",) if emotion is None else emotion.doubts
    return Answer(
        request_id=request_id,
        emotion=emotion.label if emotion else None,
        probabilities={name: round(value, 4) for name, value in emotion.probabilities.items()} if emotion else {},
        confidence=round(emotion.confidence, 4) if emotion else 0.0,
        uncertain=bool(doubts),
        doubts=list(doubts),
        speech=transcript.speech if transcript else None,
        speech_probability=round(transcript.speech_probability, 4) if transcript else None,
        transcript=_transcript_answer(transcript, recognition.mel.word_times),
        input=InputAnswer(
            codec=codec,
            bytes=received,
            seconds=round(recognition.mel.seconds, 3),
            rank=recognition.mel.rank,
            step=step,
        ),
        timings_ms={name: round(value, 2) for name, value in asdict(recognition.timings).items()},
        models=models,
        degraded=list(recognition.left_out),
        warnings=[*(transcript.warnings if transcript else ()), *warnings],
    )


def word_answers(words: Sequence[Word], begin: float = 0.0) -> list[WordAnswer]:
    """The words, `begin` seconds later."""
    return [
        WordAnswer(
            text=word.text.strip(),
            start=round(begin + word.start, 2),
            end=round(begin + word.end, 2),
            confidence=round(word.confidence, 4),
        )
        for word in words
    ]


def _transcript_answer(transcript: Transcript | None, word_times: bool) -> TranscriptAnswer:
    if transcript is None:
        return TranscriptAnswer(text="", language=UNDETERMINED, average_log_probability=0.0)
    return TranscriptAnswer(
        text=transcript.text,
        language=transcript.language,
        average_log_probability=round(transcript.average_log_probability, 4),
        words=word_answers(transcript.words) if word_times else None,
    )


def server_timing(timings_ms: Mapping[str, float], queues_ms: Mapping[str, float]) -> str:
    """The same timings as a Server-Timing header (W3C Server Timing), with the wait before each stage as `…-queue`."""
    entries = {**timings_ms, **{f"{stage}-queue": round(value, 2) for stage, value in queues_ms.items()}}
    return ", ".join(f"{name};dur={value:g}" for name, value in entries.items())
