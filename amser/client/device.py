"""A device: log-Mel, codec, envelope, and one HTTP exchange for each utterance, with retries (Amser+, Fig. 2, left)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_when_event_set,
    wait_random_exponential,
)
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_base

from amser import codecs, rate_hint
from amser.client.answer import Answer, check_storable, read_answer
from amser.client.credentials import bearer, checked_key, trust
from amser.client.frontend import DEFAULT_FRONTEND, log_mel
from amser.client.rate_control import Bounds, Choice, Conditions, choose, estimate_snr_db
from amser.client.trace_context import trace_headers
from amser.codecs.klt import step_index
from amser.features import SAMPLE_RATE, Float32
from amser.languages import language_code
from amser.rate_hint import RateHint
from amser.wire import MEDIA_TYPE, Envelope, pack

ROUTE: Final = "/v1/emotion"
EMOTIONS: Final = "emotions"  # query parameter
LANGUAGE: Final = "language"  # what a problem document calls the language of an envelope, in `parameter`
UTTERANCE_HEADER: Final = "Amser-Utterance-Id"
PREFER, APPLIED, WHOLE = "Prefer", "Preference-Applied", "handling=strict"  # RFC 7240: a whole answer or none
PCM_BYTES_PER_SECOND: Final = 2 * SAMPLE_RATE  # 16-bit mono: what the device would send uncompressed
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
# The body came too late, the cluster is full, a stage is down, or there was no answer by the deadline (docs/api.md)
WORTH_A_RETRY: Final = frozenset({408, 429, 503, 504})
TOO_SLOW: Final = "body-too-slow"  # the kind of a 408 that the same body gets again over the same link
BACKOFF_S: Final = 0.5  # the first wait is random below this, and the bound doubles with each attempt
LONGEST_BACKOFF_S: Final = 8.0
SHORTEST_TIMEOUT_S: Final = 0.05  # 0 would mean: do not wait at all
# How long an idle connection is kept: utterances further apart pay a new handshake, with TLS 3 kB and on LTE
# 0.27 J. httpx's own 5 s are shorter than most pauses. The cluster keeps it for 60 s (serve_config.yaml): the device
# closes first, since a request that crosses the cluster's closing is lost and has to be sent again.
KEPT_ALIVE_S: Final = 55.0
AUTO: Final = "auto"  # of a step: `amser.client.rate_control` chooses it anew for each utterance
_BACKOFF = wait_random_exponential(multiplier=BACKOFF_S, max=LONGEST_BACKOFF_S)


class SendFailed(Exception):  # noqa: N818 - an error by its base class
    """An utterance that got no answer."""


class Unreachable(SendFailed):
    """No connection, or it broke, at every attempt."""


class AnswerTimedOut(SendFailed):
    """The cluster took the utterance and gave no answer in time. Not retried: it may still be working on it."""


class UnexpectedAnswer(SendFailed):
    """Status 200 with something else than an answer: most likely another server."""


class Refused(SendFailed):
    """The cluster answered with a problem (RFC 9457).

    Attributes:
        status: HTTP status.
        title: what kind of problem, or the status's own phrase.
        detail: what is wrong with this request; empty where the server does not say.
        problem: the whole document; empty where the server sent none.
        kind: of the problem, the end of its `type` (docs/problems.md); empty where the server does not say.
        retry_after_s: how long the server asked to wait; None where it did not.
        took_s: from the request to this answer.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.problem = _problem(response)
        self.kind = str(self.problem.get("type") or "").partition("/problems/")[2]
        self.title = str(self.problem.get("title") or response.reason_phrase or "refused")
        self.detail = str(self.problem.get("detail") or "")
        self.retry_after_s = _retry_after(response.headers.get("Retry-After"), response.headers.get("Date"))
        self.took_s = response.elapsed.total_seconds()
        limit = self.problem.get("limit")
        parts = [self.detail, f"accepted: {limit}" if limit else ""]
        super().__init__(f"{self.status} {self.title}" + "".join(f"; {part}" for part in parts if part))


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """One device.

    Attributes:
        device_id: 1 to 64 bytes of printable UTF-8.
        url: of the cluster, http or https.
        key: that the cluster's operator gave out; not shown where these settings are printed.
        ca: file of certificates that a https cluster's has to be signed by; None for those that the world trusts.
        codec: a name in `amser.codecs.CODECS`.
        rate: r / k in (0, 1] for codecs with factors; None is the codec's default.
        step: of the codec `klt`: a profile's name, an index, or `AUTO`; None is the codec's default.
        factors: frames and bands a cell, of the codec `interpolation`; None is the codec's default.
        bounds: within which `AUTO` chooses.
        frontend: who computes the log-Mel, one of `amser.client.frontend.FRONTENDS`.
        profile: a name in `amser.features.PROFILES`.
        language: that the speaker is known to speak, as `amser.languages` reads it; becomes Whisper's code. None has it
            detected.
        emotions: classes that answers are restricted to, two or more; empty for all that the cluster knows.
        whole: ask for whole answers: a cluster that has no time for one, or lacks a stage, refuses (429, 503, 504).
        traced: send the application's trace context (`amser.client.trace_context`), where it has one.
        connect_timeout_s: for one connection.
        answer_timeout_s: for one answer; longer than the cluster's own deadline, so that its reason arrives.
        attempts: at most, where the cluster cannot be reached or answers one of `WORTH_A_RETRY`.
        give_up_s: no further attempt begins after this, nor one that would end after it as the last one did: with 504.

    Raises:
        ValueError: the URL is none of a cluster, the key is none, `ca` has no certificates, the codec is not known or
            does not have this setting, the language is none, or the emotions leave no choice.
    """

    device_id: str = "device-1"
    url: str = "http://127.0.0.1:8000"
    key: str | None = field(default=None, repr=False)
    ca: Path | None = None
    codec: str = "klt"
    rate: float | None = None
    step: int | str | None = None
    factors: tuple[int, int] | None = None
    bounds: Bounds = Bounds()
    frontend: str = DEFAULT_FRONTEND
    profile: str = "whisper80"
    language: str | None = None
    emotions: tuple[str, ...] = ()
    whole: bool = False
    traced: bool = False
    connect_timeout_s: float = 2.0
    answer_timeout_s: float = 30.0
    attempts: int = 5
    give_up_s: float = 60.0

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{self.url!r} is no URL: {error}") from None
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError(f"{self.url!r} is no URL of a cluster, such as http://127.0.0.1:8000")
        if self.key is not None:
            object.__setattr__(self, "key", checked_key(self.key))
        trust(self.ca)  # raises where there is nothing in it
        if self.emotions and (len(set(self.emotions)) < max(2, len(self.emotions)) or not all(self.emotions)):
            raise ValueError(f"emotions are {','.join(self.emotions)!r}: name two or more, each once")
        takes = codecs.by_name(self.codec).takes
        if unknown := codecs.Setting(self.rate, None, self.step, self.factors).given() - takes:
            raise ValueError(f"{self.codec} has no {', '.join(sorted(unknown))}, but {', '.join(sorted(takes))}")
        if self.step is not None and self.step != AUTO:
            step_index(self.step)  # raises where there is none
        object.__setattr__(self, "language", language_code(self.language))


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


class Device:
    """A device with one keep-alive connection. A context manager; used by one thread at a time.

    Args:
        settings: its id, its cluster, its codec.
        stop: once set, a wait ends at once and one last attempt is made.

    Attributes:
        conditions: what the application knows of link and battery; noise and hint are filled in here.
        hint: the last that the cluster gave with an answer; an answer without one leaves it as it is.
        choice: what rate control chose for the last utterance; None where the step is not `AUTO`.
    """

    def __init__(self, settings: DeviceSettings, stop: threading.Event | None = None) -> None:
        self.settings = settings
        self.conditions = Conditions()
        self.hint: RateHint | None = None
        self.choice: Choice | None = None
        self._stop = stop or threading.Event()
        self._client: httpx.Client | None = None

    def __enter__(self) -> Device:
        url = httpx.URL(self.settings.url)
        self._client = httpx.Client(
            trust_env=url.host not in LOOPBACK,  # a proxy from the environment could not reach this machine's loopback
            # Reading the certificates takes 100 ms; without TLS there are none to check
            verify=url.scheme == "https" and trust(self.settings.ca),
            headers=bearer(self.settings.key),
            limits=httpx.Limits(keepalive_expiry=KEPT_ALIVE_S),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def encode(self, waveform: Float32, captured_at: datetime) -> Utterance:
        """Compresses one utterance. Needs no connection.

        Args:
            waveform: float32, shape (samples,), 16 kHz.
            captured_at: when it began, with a time zone.

        Raises:
            amser.errors.SignalError: audio, codec, front end, language or device id that cannot be used.
            amser.client.frontend.FrontendMissing: the front end is not installed.
        """
        started = time.perf_counter()
        settings = self.settings
        mel = log_mel(waveform, settings.profile, frontend=settings.frontend)
        encoded = codecs.encode(mel, settings.codec, rate=settings.rate, step=self._step(mel), factors=settings.factors)
        envelope = Envelope(
            codec=encoded.codec,
            profile=settings.profile,
            frames=mel.shape[1],
            seconds=waveform.size / SAMPLE_RATE,
            language=settings.language,
            device_id=settings.device_id,
            utterance_id=uuid4(),
            captured_at=captured_at,
            payload=encoded.payload,
        )
        packed = pack(envelope)
        return Utterance(packed, envelope.utterance_id, envelope.seconds, 1000 * (time.perf_counter() - started))

    def _step(self, mel: Float32) -> int | str | None:
        if self.settings.step != AUTO:
            return self.settings.step
        conditions = replace(self.conditions, snr_db=estimate_snr_db(mel), hint=self.hint)
        self.choice = choose(conditions, self.settings.bounds)
        return self.choice.step

    def send(self, utterance: Utterance) -> Answer:
        """Sends an utterance and waits for its answer; tries again where the cluster cannot be reached or has no time.

        A kept connection that turns out to be broken is no other case: the utterance keeps its id in every attempt.

        Raises:
            Refused: the cluster will not take this utterance, or had no time at any attempt.
            Unreachable, AnswerTimedOut, UnexpectedAnswer: as named.
            RuntimeError: the device was not entered.
        """
        started = time.perf_counter()
        retrying = Retrying(
            retry=retry_if_exception(_worth_a_retry),
            wait=_wait,
            stop=stop_after_attempt(self.settings.attempts)
            | _OutOfTime(self.settings.give_up_s)
            | stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            reraise=True,
        )
        response = retrying(self._post, utterance, lambda: self.settings.give_up_s - (time.perf_counter() - started))
        answer_ms = 1000 * (time.perf_counter() - started)
        answer = self._read(utterance, response, answer_ms, int(retrying.statistics["attempt_number"]))
        self.hint = rate_hint.parse(response.headers.get(rate_hint.HEADER, "")) or self.hint
        return answer

    def _post(self, utterance: Utterance, remaining_s: Callable[[], float]) -> httpx.Response:
        if self._client is None:
            raise RuntimeError("the device is not connected: use it in a `with` statement")
        answer_within = max(SHORTEST_TIMEOUT_S, min(self.settings.answer_timeout_s, remaining_s()))
        try:
            response = self._client.post(
                self.settings.url.rstrip("/") + ROUTE,
                params={EMOTIONS: ",".join(self.settings.emotions)} if self.settings.emotions else None,
                content=utterance.envelope,
                headers={
                    "Content-Type": MEDIA_TYPE,
                    UTTERANCE_HEADER: str(utterance.utterance_id),
                    **({PREFER: WHOLE} if self.settings.whole else {}),
                    **(trace_headers() if self.settings.traced else {}),
                },
                timeout=httpx.Timeout(answer_within, connect=min(self.settings.connect_timeout_s, answer_within)),
            )
        except httpx.ReadTimeout:
            raise AnswerTimedOut(f"no answer within {answer_within:.3g} s") from None
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{self.settings.url} cannot be reached: {reason}") from error
        except httpx.RequestError as error:  # a body that its Content-Encoding does not describe
            raise UnexpectedAnswer(f"{self.settings.url} answered with something unreadable: {error}") from error
        if response.status_code != httpx.codes.OK:
            raise Refused(response)
        return response

    def _read(self, utterance: Utterance, response: httpx.Response, answer_ms: float, attempts: int) -> Answer:
        try:
            return read_answer(
                response.json(),
                bytes_sent=len(utterance.envelope),
                pcm_bytes=utterance.pcm_bytes,
                device_ms=utterance.device_ms,
                answer_ms=answer_ms,
                attempts=attempts,
                held_to_whole=WHOLE in response.headers.get(APPLIED, "").lower(),
            )
        except (ValueError, RecursionError) as error:
            what = f"{response.url} answered with something else than an emotion ({error})"
            raise UnexpectedAnswer(what) from error


def _worth_a_retry(error: BaseException) -> bool:
    if isinstance(error, Refused):
        return error.status in WORTH_A_RETRY and error.kind != TOO_SLOW
    return isinstance(error, Unreachable)


class _OutOfTime(stop_base):
    """Whether the next attempt would begin too late; or end too late, where the last ran into the cluster's deadline.

    Such an attempt would be cut off by the device itself, and its reason lost.
    """

    def __init__(self, give_up_s: float) -> None:
        self._give_up_s = give_up_s

    def __call__(self, state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        needed_s = error.took_s if isinstance(error, Refused) and error.status == httpx.codes.GATEWAY_TIMEOUT else 0.0
        return (state.seconds_since_start or 0.0) + state.upcoming_sleep + needed_s >= self._give_up_s


def _wait(state: RetryCallState) -> float:
    """Seconds until the next attempt: what the server asked for, and some more that differs between devices."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, Refused) else None
    return (asked or 0.0) + _BACKOFF(state)


def _retry_after(value: str | None, date: str | None) -> float | None:
    """Seconds, from either form that RFC 9110 (10.2.3) allows: a number of them, or a date.

    A date counts from the server's own (`Date`), where it says it: this device's may be wrong.
    """
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    until = _date(value)
    if until is None:
        return None
    return max(0.0, (until - (_date(date or "") or datetime.now(UTC))).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)


def _problem(response: httpx.Response) -> Mapping[str, Any]:
    try:
        document = response.json()
        check_storable(document)
    except (ValueError, RecursionError):  # a proxy in between has pages of its own
        return {}
    return document if isinstance(document, dict) else {}
