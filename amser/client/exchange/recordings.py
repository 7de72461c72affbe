"""The requests about recordings of any length, and what is read from their answers: the job, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from amser.client.exchange.answer import Word, check_storable, read_words
from amser.client.exchange.connection import Call, Spent
from amser.client.exchange.failures import Refused, SendFailed
from amser.client.exchange.utterances import LANGUAGE, PREFER, AnswerOptions

ROUTE: Final = "/v1/recordings"
JOBS_ROUTE: Final = "/v1/jobs/"
LATER: Final = "respond-async"  # RFC 7240: a job in place of the answer
ENDED: Final = frozenset({"done", "failed", "cancelled"})


class JobCancelled(SendFailed):  # noqa: N818 - an error by its base class
    """The job was cancelled before its recording was answered."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording between two pauses.

    Attributes:
        start_s, end_s: seconds from the begin of the recording.
        text: its words.
        language: ISO 639 code.
        emotion: None where nobody speaks.
        confidence: calibrated probability that `emotion` is right.
        probabilities: of all emotions; empty where nobody speaks.
        doubts: reasons not to act on `emotion`.
        problem: why it could not be recognised, a problem document; empty where it was.
        words: one by one, where `DeviceSettings.words` asks for them.
    """

    start_s: float
    end_s: float
    text: str
    language: str
    emotion: str | None
    confidence: float
    probabilities: Mapping[str, float]
    doubts: tuple[str, ...] = ()
    problem: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[Word, ...] = ()

    @property
    def uncertain(self) -> bool:
        """Whether `emotion` should not be acted upon."""
        return bool(self.doubts) or bool(self.problem)


@dataclass(frozen=True, slots=True)
class RecordingAnswer:
    """What the cluster made of a recording.

    Attributes:
        text: all words.
        language: ISO 639 code, given or most spoken.
        seconds: of the recording.
        segments: in the order of their times.
        emotion: of the whole, the most probable one; None where nobody speaks.
        confidence: its probability.
        probabilities: those of the segments, weighted with their seconds.
        warnings: such as `audio_damaged`, `audio_cut` and `segments_failed`.
        raw: the document as it came.
    """

    text: str
    language: str
    seconds: float
    segments: tuple[Segment, ...]
    emotion: str | None
    confidence: float
    probabilities: Mapping[str, float]
    warnings: tuple[str, ...]
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Job:
    """A recording that the cluster works on.

    Attributes:
        id: by which it is asked for.
        status: as the cluster says; `done`, `failed` and `cancelled` are final.
        progress: share that is recognised, 0 to 1.
        segments: that are ready while it is running.
        result: once it is done.
        problem: why it failed, a problem document; empty where it did not.
    """

    id: str
    status: str
    progress: float
    segments: tuple[Segment, ...] = ()
    result: RecordingAnswer | None = None
    problem: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in ENDED or self.result is not None or bool(self.problem)

    def answer(self) -> RecordingAnswer:
        """The result of a job that has ended.

        Raises:
            Refused: it failed.
            JobCancelled: it was cancelled, or has not ended.
        """
        if self.result is not None:
            return self.result
        if self.problem:
            status = self.problem.get("status")
            raise Refused(status if isinstance(status, int) else 500, self.problem)
        raise JobCancelled(f"the job {self.id} is {self.status}: there is no answer")


def submit_call(content: bytes | Path, options: AnswerOptions, language: str | None = None) -> Call[Job]:
    """The request that uploads a recording, and leaves it to the cluster."""
    params = options.params() | ({LANGUAGE: language} if language else {})
    asked = options.headers()
    preferences = ", ".join(filter(None, (LATER, asked.get(PREFER))))
    headers = asked | {"Content-Type": "application/octet-stream", PREFER: preferences}
    good = frozenset({200, 202})
    # Sent twice it would be computed twice: a recording has no id that tells
    return Call("POST", ROUTE, _read_submitted, params, headers, content, good, repeatable=False)


def job_call(job_id: str) -> Call[Job]:
    """The request that asks how far a job is."""
    return Call("GET", _path_of(job_id), _read_job)


def cancel_call(job_id: str) -> Call[Job]:
    """The request that ends a job, or forgets one that has ended."""
    return Call("DELETE", _path_of(job_id), partial(_read_cancelled, job_id), good=frozenset({200, 202, 204}))


def _path_of(job_id: str) -> str:
    if not job_id or not job_id.isascii() or not job_id.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{job_id!r} is no id of a job: letters, digits, - and _")
    return JOBS_ROUTE + job_id


def _read_submitted(response: httpx.Response, spent: Spent) -> Job:
    if response.status_code == httpx.codes.ACCEPTED:
        return _read_job(response, spent)
    return Job("", "done", 1.0, result=_recording(_document(response)))  # a short one may be answered at once


def _read_cancelled(job_id: str, response: httpx.Response, spent: Spent) -> Job:
    return _read_job(response, spent) if response.content else Job(job_id, "cancelled", 0.0)


def _read_job(response: httpx.Response, spent: Spent) -> Job:
    del spent
    document = _document(response)
    try:
        result = document.get("result")
        return Job(
            id=str(document["id"]),
            status=str(document["status"]),
            progress=float(document.get("progress") or 0.0),
            segments=tuple(_segment(each) for each in document.get("segments") or ()),
            result=None if result is None else _recording(result),
            problem=_problem(document),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _document(response: httpx.Response) -> Mapping[str, Any]:
    document = response.json()
    check_storable(document)
    if not isinstance(document, dict):
        raise ValueError("it is no object")
    return document


def _recording(document: Mapping[str, Any]) -> RecordingAnswer:
    try:
        return RecordingAnswer(
            text=str(document["text"]),
            language=str(document["language"]),
            seconds=float(document["seconds"]),
            segments=tuple(_segment(each) for each in document["segments"]),
            emotion=_emotion(document["emotion"]),
            confidence=float(document["confidence"]),
            probabilities=_probabilities(document["probabilities"]),
            warnings=tuple(map(str, document.get("warnings", ()))),
            raw=document,
        )
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _segment(document: Mapping[str, Any]) -> Segment:
    return Segment(
        start_s=float(document["start"]),
        end_s=float(document["end"]),
        text=str(document["text"]),
        language=str(document["language"]),
        emotion=_emotion(document["emotion"]),
        confidence=float(document["confidence"]),
        probabilities=_probabilities(document["probabilities"]),
        doubts=tuple(map(str, document.get("doubts", ()))),
        problem=_problem(document),
        words=read_words(document),
    )


def _emotion(value: Any) -> str | None:
    return None if value is None else str(value)


def _probabilities(value: Any) -> Mapping[str, float]:
    return {str(name): float(probability) for name, probability in value.items()}


def _problem(document: Mapping[str, Any]) -> Mapping[str, Any]:
    problem = document.get("problem")
    return problem if isinstance(problem, Mapping) else {}
