"""What the cluster answered to an utterance, read from its JSON (docs/api.md), with what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DEEPEST: Final = 32  # levels of a document; an answer has three


@dataclass(frozen=True, slots=True)
class Word:
    """A word of an answer.

    Attributes:
        text: with its punctuation.
        start, end: seconds from the begin of the utterance or the recording.
        confidence: how sure the recogniser is, 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the cluster made of an utterance, and what that cost.

    Attributes:
        emotion: the most probable one; None where nobody speaks.
        probabilities: of all emotions, or of those that the device restricted its answers to.
        confidence: calibrated probability that `emotion` is right.
        doubts: reasons not to act on `emotion`, such as `low_confidence`; empty where it may be acted upon.
        text: the words; empty where nothing was said.
        language: ISO 639 code, given or detected.
        bytes_sent: of the envelope.
        pcm_bytes: of the same speech as 16-bit PCM.
        device_ms: milliseconds from waveform to bytes.
        answer_ms: milliseconds from the first attempt to the answer, waits between attempts included.
        attempts: requests that it took.
        timings_ms: of the stages in the cluster.
        degraded: stages that the answer had to do without.
        raw: the answer as it came.
        speech: whether somebody speaks: `none`, `doubtful` (the words may be wrong or invented) or `yes`; None where
            that is not known: the recogniser was left out, or the cluster is older than 0.5.
        speech_probability: that somebody speaks; None where that is not known.
        warnings: what the cluster did otherwise than asked: `language_mismatch` where `language` is what it heard and
            not what the device named.
        words: one by one, where `DeviceSettings.words` asks for them.
        held_to_whole: whether the cluster says that it left nothing out for want of time, or of a stage that is down.
    """

    emotion: str | None
    probabilities: Mapping[str, float]
    confidence: float
    doubts: tuple[str, ...]
    text: str
    language: str
    bytes_sent: int
    pcm_bytes: int
    device_ms: float
    answer_ms: float
    attempts: int
    timings_ms: Mapping[str, float]
    degraded: tuple[str, ...]
    raw: Mapping[str, Any]
    speech: str | None = None
    speech_probability: float | None = None
    warnings: tuple[str, ...] = ()
    words: tuple[Word, ...] = ()
    held_to_whole: bool = False

    @property
    def uncertain(self) -> bool:
        """Whether `emotion` should not be acted upon."""
        return bool(self.doubts)

    @property
    def partial(self) -> bool:
        """Whether the cluster may do better another time: something is missing, for want of time or of a stage.

        What is missing for good is none of this: the emotion of words whose language the network has not learnt, or
        that were perhaps never said. Clusters older than 0.5 do not say that they were held to whole answers; of them
        the words of a doubtful speech alone are known to be left out for good.
        """
        for_good = self.speech == "doubtful" and set(self.degraded) == {"text"}
        return bool(self.degraded) and not self.held_to_whole and not for_good


def read_answer(
    raw: Any,
    *,
    bytes_sent: int,
    pcm_bytes: int,
    device_ms: float,
    answer_ms: float,
    attempts: int,
    held_to_whole: bool = False,
) -> Answer:
    """The answer in a JSON document, beside its costs; raises ValueError where it is another document."""
    try:
        check_storable(raw)
        emotion = raw["emotion"]
        return Answer(
            emotion=None if emotion is None else _text(emotion),
            probabilities={str(name): float(value) for name, value in raw["probabilities"].items()},
            confidence=float(raw["confidence"]),
            doubts=tuple(map(str, raw["doubts"])),
            text=_text(raw["transcript"]["text"]),
            language=_text(raw["transcript"]["language"]),
            bytes_sent=bytes_sent,
            pcm_bytes=pcm_bytes,
            device_ms=device_ms,
            answer_ms=answer_ms,
            attempts=attempts,
            timings_ms={str(name): float(value) for name, value in raw["timings_ms"].items()},
            degraded=tuple(map(str, raw["degraded"])),
            raw=raw,
            speech=raw.get("speech"),
            speech_probability=None if (probability := raw.get("speech_probability")) is None else float(probability),
            warnings=tuple(map(str, raw.get("warnings", ()))),
            words=read_words(raw["transcript"]),
            held_to_whole=held_to_whole,
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def read_words(document: Mapping[str, Any]) -> tuple[Word, ...]:
    """The words of a transcript or a segment; none where they were not asked for, or the cluster is older than 0.5."""
    return tuple(
        Word(_text(word["text"]), float(word["start"]), float(word["end"]), float(word["confidence"]))
        for word in document.get("words") or ()
    )


def check_storable(document: Any) -> None:
    """Refuses a JSON document that cannot be stored or printed, whoever sent it.

    Raises:
        ValueError: it is nested beyond `DEEPEST`, or has half of a surrogate pair in it.
    """
    level = [document]
    for _ in range(DEEPEST):
        level = [inner for each in level for inner in _inside(each)]
    if level:
        raise ValueError(f"the document has more than {DEEPEST} levels")
    json.dumps(document, ensure_ascii=False).encode()


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
