"""`Client`: words and emotion for an application, with typed results, retries and, where one is wanted, a spool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from amser.client.credentials import given_key
from amser.client.delivery import Delivery, DeliverySettings, is_final
from amser.client.device import DEFAULT_URL, Device, DeviceSettings
from amser.client.exchange.answer import Answer
from amser.client.exchange.connection import Call, Connection
from amser.client.exchange.failures import SendFailed
from amser.client.exchange.plans import Plan, answered_utterances, ended_job, one
from amser.client.exchange.recordings import Job, RecordingAnswer, cancel_call, job_call, submit_call
from amser.client.exchange.utterances import Answered, AnswerOptions, Utterance, upload_call, utterance_call
from amser.client.sources import Microphone, Source, first_turn, waveform_of
from amser.client.spool import Spool
from amser.client.spool_view import Result
from amser.errors import SignalError
from amser.features import SAMPLE_RATE
from amser.languages import language_code

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item of a batch.

    Attributes:
        answer: None where it failed.
        failure: why: the cluster's refusal or the link (`SendFailed`), or a source that cannot be used (`SignalError`,
            `OSError`); None where it was answered.
    """

    answer: Answer | None = None
    failure: SendFailed | SignalError | OSError | None = None


class Preparation:
    """What both clients do before and after a request: compress, keep in the spool, settle.

    Args:
        cluster: its URL, with the key of `$AMSER_KEY`; or all settings.
        spool: a file that keeps utterances until they are answered; this client owns it while it is open.
    """

    def __init__(self, cluster: str | DeviceSettings, spool: Path | None = None) -> None:
        self.settings = DeviceSettings(url=cluster, key=given_key(None)) if isinstance(cluster, str) else cluster
        self.device = Device(self.settings)
        self._path = spool
        self._spool: Spool | None = None

    def open(self) -> None:
        """Takes the spool. Raises `amser.client.spool_view.SpoolError`."""
        if self._path is not None:
            self._spool = Spool(self._path)

    def close(self) -> None:
        """Lets go of it."""
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def options(self) -> AnswerOptions:
        """What is asked for along with the speech."""
        return self.settings.answer_options

    def utterance(self, source: Source, rate: int, captured_at: datetime | None) -> tuple[Utterance, datetime]:
        """A source, compressed; and when it was said. See `Client.recognize`."""
        waveform = first_turn(source).waveform if isinstance(source, Microphone) else waveform_of(source, rate)
        began = captured_at or datetime.now(UTC) - timedelta(seconds=waveform.size / SAMPLE_RATE)
        return self.device.encode(waveform, began), began

    def utterances(self, sources: Sequence[Source], rate: int) -> list[Utterance | SignalError | OSError]:
        """Sources, compressed; in place of one that cannot be used, why."""
        made: list[Utterance | SignalError | OSError] = []
        for source in sources:
            try:
                made.append(self.utterance(source, rate, None)[0])
            except (SignalError, OSError) as error:
                made.append(error)
        return made

    def keep(self, utterance: Utterance, captured_at: datetime) -> None:
        """Stores an utterance, where there is a spool."""
        if self._spool is not None:
            self._spool.put(utterance, captured_at)

    def answered(self, utterance: Utterance, answered: Answered) -> Answer:
        """Notes an answer, in the spool too."""
        self.device.hint = answered.hint or self.device.hint
        if self._spool is not None:
            self._spool.settle(utterance.utterance_id, answered.answer)
        return answered.answer

    def failed(self, utterance: Utterance, error: SendFailed) -> None:
        """Notes a failure, in the spool too: what the cluster will never take does not wait."""
        if self._spool is None:
            return
        if is_final(error):
            self._spool.refuse(utterance.utterance_id, str(error))
        else:
            self._spool.postpone(utterance.utterance_id, 0.0)
            error.add_note(f"The utterance is kept in {self._path}; Client.deliver() sends it.")

    def deliver(self) -> list[Result]:
        """See `Client.deliver`."""
        if self._spool is None:
            raise RuntimeError("this client has no spool: name one, and use the client in a `with` statement")
        with Delivery(self.settings, DeliverySettings(whole=self.settings.whole)) as delivery:
            return list(delivery.until_empty(self._spool))


class Client:
    """The cluster, for an application. A context manager; used by one thread at a time.

    Args:
        cluster: its URL, with the key of `$AMSER_KEY`; or all settings.
        spool: a file that keeps utterances until they are answered (`deliver`); this client owns it while it is open.

    Raises:
        ValueError: as `DeviceSettings` has it.
        amser.client.spool_view.SpoolError: on entering, where the spool cannot be used.
    """

    def __init__(self, cluster: str | DeviceSettings = DEFAULT_URL, *, spool: Path | None = None) -> None:
        self._own = Preparation(cluster, spool)
        self._connection = Connection(self._own.settings.target, self._own.settings.patience)

    def __enter__(self) -> Self:
        self._own.open()
        self._connection.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.__exit__(kind, error, trace)
        self._own.close()

    def recognize(
        self,
        source: Source,
        *,
        rate: int = SAMPLE_RATE,
        captured_at: datetime | None = None,
        within_s: float | None = None,
    ) -> Answer:
        """Words and emotion of one utterance, compressed here: a hundredth of the bytes of its audio.

        Args:
            source: an audio file (its path, or its content), samples, or a `Microphone`, of which the next turn is
                taken. 30 s at most.
            rate: Hz, of samples.
            captured_at: when it began, with a time zone; None: it has just ended.
            within_s: seconds that all attempts together may take; the cluster is told what is left of them. None for
                what the settings say.

        Raises:
            amser.errors.SignalError, OSError: a source that cannot be used.
            amser.client.exchange.failures.SendFailed: no answer; `Refused` has the problem's `type`. With a spool the
                utterance is kept there, unless the cluster will never take it.
        """
        utterance, began = self._own.utterance(source, rate, captured_at)
        self._own.keep(utterance, began)
        try:
            answered = self._run(one(utterance_call(utterance, self._own.options())), within_s)
        except SendFailed as error:
            self._own.failed(utterance, error)
            raise
        return self._own.answered(utterance, answered)

    def transcribe(
        self,
        file: Path | str | bytes,
        *,
        language: str | None = None,
        within_s: float | None = None,
    ) -> Answer:
        """The same of an audio file of up to 30 s, which is uploaded as it is.

        Args:
            file: its path, or its content.
            language: that is spoken; None for that of the settings.
            within_s: see `recognize`.

        Raises:
            OSError: the file cannot be read.
            amser.client.exchange.failures.SendFailed: no answer.
        """
        call = upload_call(content_of(file), self._own.options(), language_of(language, self._own.settings))
        return self._run(one(call), within_s)

    def batch(
        self,
        sources: Sequence[Source],
        *,
        rate: int = SAMPLE_RATE,
        within_s: float | None = None,
    ) -> list[Outcome]:
        """Many utterances, compressed here, in as few requests as they fit into: one radio wake-up in place of many.

        One that fails spoils no other; what the cluster has no time for is sent again in another batch.

        Args:
            sources: see `recognize`.
            rate, within_s: see `recognize`; the time is for all of them.

        Returns:
            What became of each, in their order.
        """
        made = self._own.utterances(sources, rate)
        sent = [each for each in made if isinstance(each, Utterance)]
        patience = self._own.settings.patience
        plan = answered_utterances(sent, self._own.options(), patience.within(within_s))
        found, hint = self._run(plan, within_s)
        self._own.device.hint = hint or self._own.device.hint
        return outcomes(made, found)

    def recording(
        self,
        file: Path | str | bytes,
        *,
        language: str | None = None,
        poll_s: float = 1.0,
        show: Callable[[Job], None] = lambda _: None,
    ) -> RecordingAnswer:
        """Words and emotion over time of a recording of any length: uploads it and waits for the job that it becomes.

        Args:
            file: its path, or its content; a file is read piece by piece.
            language: that is spoken; None for that of the settings.
            poll_s: seconds between two questions for the job.
            show: is called with each state of the job.

        Raises:
            OSError: the file cannot be read.
            amser.client.exchange.recordings.JobCancelled: somebody cancelled it.
            amser.client.exchange.failures.SendFailed: no answer. A job that was begun goes on.
        """
        return self.ended(self.submit(file, language=language), poll_s=poll_s, show=show).answer()

    def submit(self, file: Path | str | bytes, *, language: str | None = None) -> Job:
        """Uploads a recording and does not wait for its answer; `job` asks for it. See `recording`."""
        return self._run(
            one(submit_call(content_of(file), self._own.options(), language_of(language, self._own.settings)))
        )

    def job(self, job_id: str) -> Job:
        """How far a job is. Raises `SendFailed`, and ValueError where the id is none."""
        return self._run(one(job_call(job_id)))

    def ended(self, job: Job, *, poll_s: float = 1.0, show: Callable[[Job], None] = lambda _: None) -> Job:
        """Waits until a job has ended. See `recording`."""
        return self._run(ended_job(job, poll_s, show))

    def cancel(self, job_id: str) -> Job:
        """Ends a job. Raises as `job`."""
        return self._run(one(cancel_call(job_id)))

    def deliver(self) -> list[Result]:
        """Sends what waits in the spool, until nothing does or the link does not come back soon.

        Returns:
            What was settled.

        Raises:
            RuntimeError: there is no spool.
            amser.client.spool_view.SpoolError: it cannot be used.
        """
        return self._own.deliver()

    def _run(self, plan: Plan[T], within_s: float | None = None) -> T:
        began = time.perf_counter()
        try:
            step = next(plan)
            while True:
                if isinstance(step, Call):
                    left_s = None if within_s is None else within_s - (time.perf_counter() - began)
                    try:
                        result = self._connection.exchange(step, left_s)
                    except SendFailed as error:
                        step = plan.throw(error)
                    else:
                        step = plan.send(result)
                else:
                    self._connection.pause(step)
                    step = next(plan)
        except StopIteration as done:
            result = done.value
        return result  # type: ignore[no-any-return]


def outcomes(made: Sequence[Utterance | SignalError | OSError], found: Sequence[Answer | SendFailed]) -> list[Outcome]:
    """What became of each source: of those that were sent, what was found, in their order."""
    answers = iter(found)
    all_of_them: list[Outcome] = []
    for each in made:
        outcome = next(answers) if isinstance(each, Utterance) else each
        all_of_them.append(Outcome(answer=outcome) if isinstance(outcome, Answer) else Outcome(failure=outcome))
    return all_of_them


def content_of(file: Path | str | bytes) -> Path | bytes:
    """What is uploaded."""
    return Path(file) if isinstance(file, str) else file


def language_of(named: str | None, settings: DeviceSettings) -> str | None:
    """Whisper's code of a language; that of the settings where none is named. Raises `UnknownLanguage`."""
    return settings.language if named is None else language_code(named)
