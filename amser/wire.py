# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""The envelope around a codec's bytes: what a device sends and what the cluster reads first.

`application/vnd.amser.v1`, little-endian; docs/wire.md has the table. `unpack` reads what strangers send: for any bytes
it returns an `Envelope` or raises a `WireError`, and it allocates nothing that the bytes merely claim.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import google_crc32c

from amser import codecs
from amser.errors import SignalError
from amser.features import (
    FRAMES_PER_SECOND,
    MINIMUM_FRAMES,
    MINIMUM_SECONDS,
    PROFILES,
    Float32,
    Profile,
    clamp_to_floor,
)

MEDIA_TYPE: Final = "application/vnd.amser.v1"
MAGIC: Final = b"AMSR"
VERSION: Final = 1

_HEADER = struct.Struct("<4sBBBBIf3sB16sqI")  # the fields of _Header, in their order
_CHECKSUM = struct.Struct("<I")
_UNCLAMPED = 0b0000_0001  # the one flag

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_LONGEST_DEVICE_ID = 64  # bytes of UTF-8
# A frame is a whole hop, so the audio is up to one hop longer than its frames; a little more for rounding to float32.
_FRAMES_APART = 1.01


class _Header(NamedTuple):
    magic: bytes
    version: int
    codec: int
    profile: int
    flags: int
    frames: int
    seconds: float
    language: bytes
    device_id_length: int
    utterance_id: bytes
    captured_at: int
    payload_length: int


class WireError(SignalError):
    """Bytes that are no acceptable envelope, or an envelope that cannot be sent."""


class Malformed(WireError):
    """Truncated, corrupt, or a field with an impossible value. HTTP 400."""


class Unsupported(WireError):
    """Another format, version, codec or profile. HTTP 415."""


class TooLarge(WireError):
    """More bytes or frames than the receiver accepts. HTTP 413."""


class Unusable(WireError):
    """Well-formed, but too short, of too high a rank, or not finite. HTTP 422."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver accepts.

    Attributes:
        max_bytes: of the whole envelope. 30 s of `mel-f16` with 128 bands need 768,000.
        max_frames: 10 ms each; 3000 is Whisper's context of 30 s.
        max_rank: components of a factorised log-Mel.
    """

    max_bytes: int = 1_048_576
    max_frames: int = 3000
    max_rank: int = codecs.MAXIMUM_RANK


@dataclass(frozen=True, slots=True)
class Envelope:
    """One utterance, encoded. Its fields are checked when it is made.

    Attributes:
        codec: who wrote the payload, a name in `codecs.CODECS` (`Encoded.codec`, not what was asked of `encode`).
        profile: which log-Mel it is, a name in `features.PROFILES`.
        frames: columns of the log-Mel, 10 ms each.
        seconds: duration of the audio, within one frame of `frames`; travels as float32.
        language: ISO 639 code that the speaker is known to speak; None leaves it to the recogniser.
        device_id: 1 to 64 bytes of UTF-8, printable.
        utterance_id: the same in every retry, so that it gets the first answer (docs/api.md).
        captured_at: when the audio began, with a time zone; travels as UTC in whole microseconds.
        payload: what the codec wrote.
        unclamped: the floor of the log-Mel is still to be applied (`features.clamp_to_floor`).

    Raises:
        Malformed, Unsupported, Unusable: a field is outside what is written here.
    """

    codec: str
    profile: str
    frames: int
    seconds: float
    language: str | None
    device_id: str
    utterance_id: UUID
    captured_at: datetime
    payload: bytes
    unclamped: bool = False

    def __post_init__(self) -> None:
        if self.codec not in codecs.CODECS:
            raise Unsupported(f"no codec {self.codec!r}", ", ".join(codecs.CODECS))
        if self.profile not in PROFILES:
            raise Unsupported(f"no profile {self.profile!r}", ", ".join(PROFILES))
        if self.frames < MINIMUM_FRAMES:
            raise Unusable(f"the utterance has {self.frames} frames", f"{MINIMUM_FRAMES} ({MINIMUM_SECONDS} s) or more")
        if not abs(self.seconds * FRAMES_PER_SECOND - self.frames) <= _FRAMES_APART:  # so that NaN is refused too
            raise Malformed(f"{self.seconds} s do not match {self.frames} frames", "10 ms a frame, to within a frame")
        if self.language is not None and not _LANGUAGE.fullmatch(self.language):
            raise Malformed(f"the language is {self.language!r}", "two or three letters a to z, or none")
        if not self.device_id.isprintable() or not 1 <= len(self.device_id.encode()) <= _LONGEST_DEVICE_ID:
            raise Malformed(f"the device id is {self.device_id!r:.80}", "1 to 64 bytes of printable UTF-8")
        if self.captured_at.utcoffset() is None:
            raise Malformed(f"the capture time {self.captured_at} has no time zone", "an aware datetime")

    @property
    def bands(self) -> int:
        """Rows of the log-Mel."""
        return PROFILES[self.profile].bands


def pack(envelope: Envelope) -> bytes:
    """The bytes of an envelope.

    Raises:
        Malformed, Unusable: the payload is not one of this codec, profile and number of frames.
    """
    _check_payload(envelope, envelope.bands)
    device_id = envelope.device_id.encode()
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        codecs.by_name(envelope.codec).number,
        PROFILES[envelope.profile].number,
        _UNCLAMPED if envelope.unclamped else 0,
        envelope.frames,
        envelope.seconds,
        (envelope.language or "").encode(),  # struct pads it with NUL
        len(device_id),
        envelope.utterance_id.bytes,
        (envelope.captured_at - _EPOCH) // _MICROSECOND,
        len(envelope.payload),
    )
    body = header + device_id + envelope.payload
    return body + _CHECKSUM.pack(google_crc32c.value(body))


def unpack(data: bytes | bytearray | memoryview, limits: Limits = Limits()) -> Envelope:  # noqa: B008 - frozen
    """The envelope in these bytes, with a payload whose rank and length are right. The values in it are not yet read.

    Raises:
        TooLarge, Unsupported, Malformed, Unusable: as named; nothing else, for any bytes.
    """
    size = memoryview(data).nbytes
    if size > limits.max_bytes:
        raise TooLarge(f"the envelope has {size} bytes", f"up to {limits.max_bytes} bytes")
    data = bytes(data)
    header = _read_header(data)
    if header.flags & ~_UNCLAMPED:
        raise Malformed(f"the flags are {header.flags:#010b}", "0 or 1: the other bits are reserved")
    _check_frames(header.frames, limits)
    with _as_wire_errors():
        codec = codecs.by_number(header.codec)
    payload_start = _HEADER.size + header.device_id_length
    envelope = Envelope(
        codec=codec.name,
        profile=_profile(header.profile).name,
        frames=header.frames,
        seconds=header.seconds,
        language=_text(header.language.rstrip(b"\0"), "language") or None,
        device_id=_text(data[_HEADER.size : payload_start], "device id"),
        utterance_id=UUID(bytes=header.utterance_id),
        captured_at=_datetime(header.captured_at),
        payload=data[payload_start : payload_start + header.payload_length],
        unclamped=bool(header.flags & _UNCLAMPED),
    )
    _check_payload(envelope, limits.max_rank)
    return envelope


def decode_mel(envelope: Envelope, limits: Limits = Limits()) -> Float32:  # noqa: B008 - frozen
    """The log-Mel of an envelope, with the floor applied where the device could not.

    Returns:
        float32, shape (bands, frames).

    Raises:
        TooLarge, Malformed, Unusable: the payload passes a limit, has the wrong length, or holds impossible values.
    """
    _check_frames(envelope.frames, limits)
    with _as_wire_errors():
        log_mel = codecs.decode(
            envelope.codec, envelope.payload, bands=envelope.bands, frames=envelope.frames, max_rank=limits.max_rank
        )
    return clamp_to_floor(log_mel) if envelope.unclamped else log_mel


def _read_header(data: bytes) -> _Header:
    """The header, once magic, version, lengths and checksum hold: before that no field means anything."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise Unsupported(f"the body begins with {data[: len(MAGIC)]!r}", f"{MAGIC!r}: {MEDIA_TYPE}")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise Unsupported(f"the envelope has version {data[len(MAGIC)]}", str(VERSION))
    smallest = _HEADER.size + _CHECKSUM.size
    if len(data) < smallest:
        raise Malformed(f"the envelope is cut off after {len(data)} bytes", f"{smallest} or more")
    header = _Header._make(_HEADER.unpack_from(data))
    claimed = smallest + header.device_id_length + header.payload_length
    if len(data) != claimed:
        raise Malformed(f"the envelope has {len(data)} bytes", f"the {claimed} that its header announces")
    checksum = _CHECKSUM.unpack_from(data, len(data) - _CHECKSUM.size)[0]
    actual = google_crc32c.value(data[: -_CHECKSUM.size])
    if checksum != actual:
        raise Malformed(f"the bytes are corrupt: their CRC-32C is {actual:08x}", f"{checksum:08x}, as sent")
    return header


def _check_frames(frames: int, limits: Limits) -> None:
    if frames > limits.max_frames:
        raise TooLarge(f"the utterance has {frames} frames", f"up to {limits.max_frames}")


def _check_payload(envelope: Envelope, max_rank: int) -> None:
    with _as_wire_errors():
        codecs.check_payload(
            envelope.codec, envelope.payload, bands=envelope.bands, frames=envelope.frames, max_rank=max_rank
        )


@contextmanager
def _as_wire_errors() -> Iterator[None]:
    """Names what a codec refuses as the border does."""
    try:
        yield
    except codecs.UnknownCodec as error:
        raise Unsupported(error.cause, error.limit) from error
    except (codecs.RankTooHigh, codecs.NotFinite) as error:
        raise Unusable(error.cause, error.limit) from error
    except codecs.CodecError as error:
        raise Malformed(error.cause, error.limit) from error


def _profile(number: int) -> Profile:
    for profile in PROFILES.values():
        if profile.number == number:
            return profile
    raise Unsupported(f"no profile number {number}", ", ".join(f"{p.number} ({p.name})" for p in PROFILES.values()))


def _text(raw: bytes, field: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed(f"the {field} is {raw!r}", "UTF-8") from None


def _datetime(microseconds: int) -> datetime:
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise Malformed(f"the capture time is {microseconds} µs after 1970", "years 1 to 9999") from None
