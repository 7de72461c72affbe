"""What crosses when one process calls a stage in another: plain values under names, a version, and the time left.

Two versions of the code call each other for as long as a new one is rolled out, and processes on different machines
share no clock. So no message is pickled as it is: a field that the reader does not know is ignored, one that the writer
does not know has its default. What a reader of the version before cannot do without raises `VERSION`, and a call of
another version is refused before anything is computed; the caller asks again (`deployments.pipeline`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Final

from amser.errors import SignalError
from amser.wire import Envelope
from deployments.replica.deadline import NEVER, after, remaining
from deployments.replica.execution import Timed
from deployments.telemetry.requests import received
from models.messages import Emotion, Mel, TextFeatures, TokenFeatures, Transcript, Word

# Raise it where what was agreed changes: a field that goes or means something else, one without a default, a new value
# of a field that has a list of values, an argument more or less. A new field with a default does not.
VERSION: Final = 1

KIND: Final = "@"  # the key under which a message says which one it is: no name of a field
_MESSAGES: Final = {
    kind.__name__: kind for kind in (Envelope, Mel, Word, Transcript, TokenFeatures, TextFeatures, Emotion, Timed)
}


class OtherVersion(RuntimeError):  # noqa: N818 - an error by its base class
    """Caller and stage are of two versions that do not understand each other: one of them is about to be replaced."""


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of a stage's method, for another process.

    Attributes:
        arguments: as `to_plain` writes them.
        deadline: of the answer (`deployments.replica.deadline`). It crosses as the seconds that are left when the call
            is sent, after any wait for a replica that has room; the journey itself, milliseconds, is not counted.
        context: of the request, beside what the stage computes from: names and values.
        version: of what was agreed.
    """

    arguments: list[Any]
    deadline: float = NEVER
    context: Mapping[str, str] = field(default_factory=dict)
    version: int = field(default_factory=lambda: VERSION)

    def __reduce__(self) -> tuple[Any, tuple[dict[str, Any]]]:
        crossing = {
            "arguments": self.arguments,
            "within_s": remaining(self.deadline),
            "context": dict(self.context),
            "version": self.version,
        }
        return _arrived, (crossing,)


def _arrived(crossing: Mapping[str, Any]) -> Call:
    """The call at its receiver. Pickles name this function: it stays where it is."""
    return Call(crossing["arguments"], after(crossing["within_s"]), crossing["context"], crossing["version"])


class RemoteStage:
    """A stage that other processes call."""

    async def call(self, method: str, call: Call) -> Any:
        """What a method answers, as `to_plain` writes it.

        Raises:
            OtherVersion: the caller speaks another version; nothing was computed.
            Exception: whatever the method raises.
        """
        if call.version != VERSION:
            raise OtherVersion(f"a call of version {call.version} to a stage of version {VERSION}")
        arguments = [from_plain(argument) for argument in call.arguments]
        until = {} if call.deadline == NEVER else {"deadline": call.deadline}
        with received(call.context, f"{type(self).__name__}.{method}"):
            return to_plain(await getattr(self, method)(*arguments, **until))


def to_plain(value: Any) -> Any:
    """A message as a dict of its fields, in depth, in tuples too; whatever else is left as it is."""
    if is_dataclass(value) and not isinstance(value, type):
        return {KIND: type(value).__name__} | {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple):
        return tuple(to_plain(each) for each in value)
    return value


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`, of what any version wrote.

    Raises:
        OtherVersion: a message, a field or the value of one that this version cannot do without, or does not know.
    """
    if isinstance(value, tuple):
        return tuple(from_plain(each) for each in value)
    if not isinstance(value, dict) or KIND not in value:
        return value
    kind: Any = _MESSAGES.get(value[KIND])
    if kind is None:
        raise OtherVersion(f"no message is called {value[KIND]!r:.40} in version {VERSION}")
    known = {each.name: from_plain(value[each.name]) for each in fields(kind) if each.name in value}
    if lacking := [each.name for each in fields(kind) if each.name not in known and _is_required(each)]:
        raise OtherVersion(f"{value[KIND]} came without {', '.join(lacking)}")
    try:
        return kind(**known)
    except SignalError as error:  # the gateway accepted it: a codec or a profile of its version, say
        raise OtherVersion(f"{value[KIND]} is none in version {VERSION}: {error}") from error


def _is_required(each: Any) -> bool:
    return each.default is MISSING and each.default_factory is MISSING
