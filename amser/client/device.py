"""A device: log-Mel, codec, envelope, and one HTTP exchange for each utterance, with retries (Amser+, Fig. 2, left)."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final
from uuid import uuid4

import httpx

from amser import codecs
from amser.client.credentials import checked_key, trust
from amser.client.exchange.answer import Answer
from amser.client.exchange.connection import Connection, Target
from amser.client.exchange.retries import Patience
from amser.client.exchange.utterances import AnswerOptions, Utterance, utterance_call
from amser.client.frontend import DEFAULT_FRONTEND, log_mel
from amser.client.rate_control import Bounds, Choice, Conditions, choose, estimate_snr_db
from amser.codecs.klt import step_index
from amser.features import SAMPLE_RATE, Float32
from amser.languages import language_code
from amser.rate_hint import RateHint
from amser.wire import Envelope, pack

DEFAULT_URL: Final = "http://127.0.0.1:8000"
AUTO: Final = "auto"  # of a step: `amser.client.rate_control` chooses it anew for each utterance


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
        traced: send the application's trace context (`amser.client.exchange.trace_context`), where it has one.
        words: ask for the words one by one, with their times and how sure the recogniser is of each.
        connect_timeout_s: for one connection.
        answer_timeout_s: for one answer; longer than the cluster's own deadline, so that its reason arrives.
        attempts: at most, where the cluster cannot be reached or asks to come back (`exchange.retries.WORTH_A_RETRY`).
        give_up_s: no further attempt begins after this, nor one that would end after it as the last one did: with 504.

    Raises:
        ValueError: the URL is none of a cluster, the key is none, `ca` has no certificates, the codec is not known or
            does not have this setting, the language is none, or the emotions leave no choice.
    """

    device_id: str = "device-1"
    url: str = DEFAULT_URL
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
    words: bool = False
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

    @property
    def target(self) -> Target:
        """The cluster."""
        return Target(self.url, self.key, self.ca)

    @property
    def patience(self) -> Patience:
        """How long an answer is waited for."""
        return Patience(self.connect_timeout_s, self.answer_timeout_s, self.attempts, self.give_up_s)

    @property
    def answer_options(self) -> AnswerOptions:
        """What is asked for along with the speech."""
        return AnswerOptions(self.emotions, self.whole, self.traced, self.words)


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
        self._connection = Connection(settings.target, settings.patience, stop)

    def __enter__(self) -> Device:
        self._connection.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)

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
        answered = self._connection.exchange(utterance_call(utterance, self.settings.answer_options))
        self.hint = answered.hint or self.hint
        return answered.answer
