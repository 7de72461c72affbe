"""What the two ends of a stream say to each other, as JSON; speech is in binary messages, numbered by their order."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

PROTOCOL: Final = "amser.v1"  # Sec-WebSocket-Protocol
# Codes with which a socket is closed
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
MALFORMED: Final = 1007
REFUSED: Final = 1008
TRY_AGAIN: Final = 1013
IDLE: Final = 4000
REPLACED: Final = 4001  # the session goes on in another socket

Count = Annotated[int, Field(ge=0, le=2**31)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(_Message):
    """The first message of a socket.

    Attributes:
        format: of the speech: blocks of `klt` in stream form, or 16-bit PCM, little-endian, mono, 16 kHz.
        header: of the `klt` stream: its three bytes in hexadecimal digits.
        ends: who says that an utterance has ended: the client alone, or the cluster too.
        language: that is spoken; None has it detected.
        emotions: classes that answers are restricted to, with commas between them.
        words: whether answers have the words one by one, with their times.
        session: that goes on after a cut.
        first: number of the first message that the client still has.
        utterance: number of the utterance that begins with it, whose answer the client waits for.
    """

    type: Literal["start"]
    format: Literal["klt", "pcm16"]
    header: str | None = Field(None, pattern=r"^[0-9a-f]{6}$")
    ends: Literal["client", "cluster"] = "client"
    language: str | None = Field(None, max_length=40)
    emotions: str | None = Field(None, max_length=200)
    words: bool = False
    session: str | None = Field(None, max_length=64)
    first: Count = 0
    utterance: Count = 0


class End(_Message):
    """The utterance ends before the message of this number.

    Attributes:
        at: number of messages up to here.
        frames: of log-Mel in the utterance, where the last `klt` block has fewer than eight.
    """

    type: Literal["end"]
    at: Count
    frames: Annotated[int, Field(ge=1, le=3000)] | None = None


class Ping(_Message):
    """The client is there; `pong` answers."""

    type: Literal["ping"]


FromClient = Annotated[Start | End | Ping, Field(discriminator="type")]
FROM_CLIENT: Final[TypeAdapter[Start | End | Ping]] = TypeAdapter(FromClient)

Sent = dict[str, Any]  # to the client: docs/stream.md has the fields
