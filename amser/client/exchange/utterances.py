"""The requests about utterances: an envelope, many of them, an upload; and what is read from their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx

from amser import batch, rate_hint, wire
from amser.client.exchange.answer import Answer, check_storable, read_answer
from amser.client.exchange.connection import Call, Spent
from amser.client.exchange.failures import Refused
from amser.client.exchange.trace_context import trace_headers
from amser.features import SAMPLE_RATE
from amser.rate_hint import RateHint

ROUTE: Final = "/v1/emotion"
BATCH_ROUTE: Final = "/v1/emotion:batch"
UPLOAD_ROUTE: Final = "/v1/emotion/audio"
EMOTIONS: Final = "emotions"  # query parameter
WORDS: Final = "words"  # the same
LANGUAGE: Final = "language"  # the same; and what a problem document calls the language of an envelope, in `parameter`
UTTERANCE_HEADER: Final = "Amser-Utterance-Id"
PREFER, APPLIED, WHOLE = "Prefer", "Preference-Applied", "handling=strict"  # RFC 7240: a whole answer or none
PCM_BYTES_PER_SECOND: Final = 2 * SAMPLE_RATE  # 16-bit mono: what the device would send uncompressed


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What is asked for along with the speech.

    Attributes:
        emotions: classes that answers are restricted to; empty for all that the cluster knows.
        whole: a whole answer or none.
        traced: send the application's trace context, where it has one.
        words: the words one by one, with their times.
    """

    emotions: tuple[str, ...] = ()
    whole: bool = False
    traced: bool = False
    words: bool = False

    def params(self) -> dict[str, str]:
        """Of the query."""
        emotions = {EMOTIONS: ",".join(self.emotions)} if self.emotions else {}
        return emotions | ({WORDS: "true"} if self.words else {})

    def headers(self) -> dict[str, str]:
        """Of the request."""
        return ({PREFER: WHOLE} if self.whole else {}) | (trace_headers() if self.traced else {})


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a device has ready to send.

    Attributes:
        envelope: the bytes (`amser.wire`).
        utterance_id: the same in every attempt.
        seconds: duration of the speech.
        device_ms: wall-clock milliseconds from waveform to bytes.
    """

    envelope: bytes
    utterance_id: UUID
    seconds: float
    device_ms: float

    @property
    def pcm_bytes(self) -> int:
        """What the same speech takes as 16-bit PCM."""
        return round(self.seconds * PCM_BYTES_PER_SECOND)


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and which step the cluster asks for in the next utterances; None where it does not say."""

    answer: Answer
    hint: RateHint | None


@dataclass(frozen=True, slots=True)
class AnsweredBatch:
    """An answer or a refusal for each envelope of a batch, in their order; and the hint of the last that has one."""

    items: tuple[Answer | Refused, ...]
    hint: RateHint | None


def utterance_call(utterance: Utterance, options: AnswerOptions) -> Call[Answered]:
    """The request that sends one utterance."""
    return Call(
        "POST",
        ROUTE,
        partial(_read_answered, utterance),
        params=options.params(),
        headers={
            "Content-Type": wire.MEDIA_TYPE,
            UTTERANCE_HEADER: str(utterance.utterance_id),
            **options.headers(),
        },
        content=utterance.envelope,
    )


def batch_call(utterances: Sequence[Utterance], options: AnswerOptions) -> Call[AnsweredBatch]:
    """The request that sends several at once: no more than `amser.batch.Limits` says."""
    return Call(
        "POST",
        BATCH_ROUTE,
        partial(_read_batch, utterances),
        params=options.params(),
        headers={"Content-Type": batch.MEDIA_TYPE, **options.headers()},
        content=batch.pack(each.envelope for each in utterances),
    )


def upload_call(content: bytes | Path, options: AnswerOptions, language: str | None = None) -> Call[Answer]:
    """The request that uploads an audio file of up to 30 s."""
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    return Call(
        "POST",
        UPLOAD_ROUTE,
        partial(_read_upload, size),
        params=options.params() | ({LANGUAGE: language} if language else {}),
        headers={"Content-Type": "application/octet-stream", **options.headers()},
        content=content,
    )


def _read_answered(utterance: Utterance, response: httpx.Response, spent: Spent) -> Answered:
    answer = _answer_to(utterance, response.json(), response, spent)
    return Answered(answer, _hint(response))


def _read_batch(utterances: Sequence[Utterance], response: httpx.Response, spent: Spent) -> AnsweredBatch:
    document = response.json()
    check_storable(document)
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list) or len(items) != len(utterances):
        raise ValueError(f"there are not {len(utterances)} items in it")
    read = tuple(
        _read_item(utterance, item, response, spent) for utterance, item in zip(utterances, items, strict=True)
    )
    return AnsweredBatch(read, _hint(response))


def _read_item(utterance: Utterance, item: Any, response: httpx.Response, spent: Spent) -> Answer | Refused:
    if not isinstance(item, dict) or not isinstance(item.get("status"), int):
        raise ValueError("an item has no status")
    if item["status"] == httpx.codes.OK:
        return _answer_to(utterance, item.get("answer"), response, spent)
    problem, retry_after_s = item.get("problem"), item.get("retry_after_s")
    return Refused(
        item["status"],
        problem if isinstance(problem, Mapping) else {},
        retry_after_s=float(retry_after_s) if isinstance(retry_after_s, int | float) else None,
        took_s=response.elapsed.total_seconds(),
        is_of_an_item=True,
    )


def _answer_to(utterance: Utterance, document: Any, response: httpx.Response, spent: Spent) -> Answer:
    return read_answer(
        document,
        bytes_sent=len(utterance.envelope),
        pcm_bytes=utterance.pcm_bytes,
        device_ms=utterance.device_ms,
        answer_ms=spent.answer_ms,
        attempts=spent.attempts,
        held_to_whole=_is_whole(response),
    )


def _read_upload(size: int, response: httpx.Response, spent: Spent) -> Answer:
    document = response.json()
    try:
        seconds = float(document["input"]["seconds"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return read_answer(
        document,
        bytes_sent=size,
        pcm_bytes=round(seconds * PCM_BYTES_PER_SECOND),
        device_ms=0.0,
        answer_ms=spent.answer_ms,
        attempts=spent.attempts,
        held_to_whole=_is_whole(response),
    )


def _is_whole(response: httpx.Response) -> bool:
    return WHOLE in response.headers.get(APPLIED, "").lower()


def _hint(response: httpx.Response) -> RateHint | None:
    return rate_hint.parse(response.headers.get(rate_hint.HEADER, ""))
