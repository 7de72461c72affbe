"""What of a stream outlives its socket: the speech of the utterance under way, and answers that may be lost."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from deployments.gateway.streams.messages import Sent, Start
from deployments.gateway.streams.pauses import Pauses
from deployments.gateway.streams.speech import Speech
from deployments.gateway.streams.stability import StablePrefix
from deployments.settings import StreamSettings

ANSWERS_KEPT: Final = 8
FRAMES_PER_SECOND: Final = 100


@dataclass(slots=True)
class Session:
    """One speaker.

    Attributes:
        id: that a client shows after a cut.
        caller: whose it is; nobody else can go on with it.
        start: what the client asked for.
        new_speech: makes that of another utterance.
        first: number of the message with which the utterance under way begins.
        utterance: its number.
        speech: of it.
        pauses, stable: of it.
        draft: tokens of what the last look at it heard.
        paused_at: messages of it before a pause that still lasts; None while somebody speaks.
        answers: of the last utterances, by number.
        task: that serves it; None after a cut.
        left_at: when the socket was cut.
    """

    id: str
    caller: str
    start: Start
    new_speech: Callable[[], Speech]
    first: int
    utterance: int
    speech: Speech
    pauses: Pauses = field(default_factory=Pauses)
    stable: StablePrefix = field(default_factory=StablePrefix)
    draft: tuple[int, ...] = ()
    paused_at: int | None = None
    answers: OrderedDict[int, Sent] = field(default_factory=OrderedDict)
    task: asyncio.Task[None] | None = None
    left_at: float = 0.0

    @property
    def next(self) -> int:
        """Number of the message that is expected."""
        return self.first + len(self.speech.messages)

    @property
    def seconds(self) -> float:
        """Of the utterance under way."""
        return self.speech.frames[-1] / FRAMES_PER_SECOND if self.speech.frames else 0.0

    def take(self, message: bytes) -> float:
        """Takes the next message; returns its seconds.

        Raises:
            amser.errors.SignalError: it cannot be read. Nothing is taken.
        """
        before = self.seconds
        self.pauses.push(self.speech.append(message))
        return self.seconds - before

    def begin_after(self, count: int) -> None:
        """What comes after the first messages is another utterance, or, where nothing was said, the same one."""
        rest = self.speech.messages[count:]
        self.first += count
        self.speech, self.pauses, self.stable, self.paused_at = self.new_speech(), Pauses(), StablePrefix(), None
        self.draft = ()
        for message in rest:
            self.take(message)

    def answered(self, count: int, answer: Sent) -> None:
        """The first messages have their answer."""
        self.answers[self.utterance] = answer
        while len(self.answers) > ANSWERS_KEPT:
            self.answers.popitem(last=False)
        self.utterance += 1
        self.begin_after(count)

    def can_resume(self, start: Start) -> bool:
        """Whether a client with these messages and answers can go on: it has all that is missing here."""
        same = start.format == self.start.format and start.header == self.start.header
        behind = range(start.utterance, self.utterance)
        return same and start.first <= self.next and all(number in self.answers for number in behind)


class Sessions:
    """Those of a replica.

    Args:
        settings: how long they are kept.
        clock: seconds, never going back.
    """

    def __init__(self, settings: StreamSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._open: dict[str, Session] = {}
        self._left: OrderedDict[str, Session] = OrderedDict()

    def add(self, caller: str, start: Start, new_speech: Callable[[], Speech]) -> Session:
        """A new one."""
        session = Session(
            secrets.token_urlsafe(16), caller, start, new_speech, start.first, start.utterance, new_speech()
        )
        self._open[session.id] = session
        return session

    async def resume(self, caller: str, start: Start) -> Session | None:
        """The session that a client names, taken from the socket that has it; None where it is not here."""
        self._expire()
        found = self._open.get(start.session or "") or self._left.get(start.session or "")
        if found is None or found.caller != caller or not found.can_resume(start):
            return None
        if found.task is not None:  # that socket is cut, and nobody has noticed yet
            found.task.cancel()
            await asyncio.wait([found.task])
        self._left.pop(found.id, None)
        self._open[found.id] = found
        return found

    def leave(self, session: Session) -> None:
        """Its socket is cut."""
        session.task, session.left_at = None, self._clock()
        self._open.pop(session.id, None)
        self._left[session.id] = session
        self._expire()

    def forget(self, session: Session) -> None:
        """It has ended."""
        self._open.pop(session.id, None)
        self._left.pop(session.id, None)

    def _expire(self) -> None:
        oldest = self._clock() - self._settings.kept_s
        while self._left and (
            len(self._left) > self._settings.kept or next(iter(self._left.values())).left_at < oldest
        ):
            self._left.popitem(last=False)
