"""Many envelopes in one body: `application/vnd.amser.batch.v1`, each behind its length (docs/wire.md).

`unpack` takes a body apart without reading its envelopes: one that is damaged spoils no other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from amser.wire import Malformed, TooLarge

MEDIA_TYPE: Final = "application/vnd.amser.batch.v1"

_LENGTH = struct.Struct("<I")
LENGTH_BYTES: Final = _LENGTH.size  # in front of each envelope


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver accepts.

    Attributes:
        max_bytes: of the whole body; 64 utterances of 10 s take 250 kB with the default codec.
        max_items: envelopes.
    """

    max_bytes: int = 4_194_304
    max_items: int = 64


def pack(envelopes: Iterable[bytes]) -> bytes:
    """The body that holds these envelopes (`amser.wire.pack`), in their order.

    Raises:
        Malformed: there is none.
    """
    packed = b"".join(_LENGTH.pack(len(envelope)) + envelope for envelope in envelopes)
    if not packed:
        raise Malformed("the batch has no envelopes", "1 or more")
    return packed


def unpack(data: bytes | bytearray | memoryview, limits: Limits = Limits()) -> list[bytes]:  # noqa: B008 - frozen
    """The envelopes in a body, as they came: what is in them is for `amser.wire.unpack` to say.

    Raises:
        TooLarge: more bytes or envelopes than `limits`.
        Malformed: there is no envelope, or the last is cut off; nothing else, for any bytes.
    """
    view = memoryview(data).cast("B")
    if view.nbytes > limits.max_bytes:
        raise TooLarge(f"the batch has {view.nbytes} bytes", f"up to {limits.max_bytes} bytes")
    envelopes: list[bytes] = []
    at = 0
    while at < view.nbytes:
        if len(envelopes) == limits.max_items:
            raise TooLarge(f"the batch has more than {limits.max_items} envelopes", f"up to {limits.max_items}")
        left = view.nbytes - at - LENGTH_BYTES
        if left < 0:
            cause = f"the batch is cut off in the length of envelope {len(envelopes)}"
            raise Malformed(cause, f"{LENGTH_BYTES} bytes in front of each envelope")
        (length,) = _LENGTH.unpack_from(view, at)
        if length > left:
            cause = f"envelope {len(envelopes)} of the batch claims {length} bytes"
            raise Malformed(cause, f"the {left} that are left")
        at += LENGTH_BYTES + length
        envelopes.append(bytes(view[at - length : at]))
    if not envelopes:
        raise Malformed("the batch has no envelopes", "1 or more")
    return envelopes


def split(envelopes: Sequence[bytes], limits: Limits = Limits()) -> list[range]:  # noqa: B008 - frozen
    """Which envelopes go into which body, in their order, so that each body is within the limits.

    Returns:
        Ranges of positions. An envelope that is too large by itself has a body of its own.
    """
    bodies: list[range] = []
    begin = size = 0
    for position, envelope in enumerate(envelopes):
        more = LENGTH_BYTES + len(envelope)
        if position > begin and (size + more > limits.max_bytes or position - begin == limits.max_items):
            bodies.append(range(begin, position))
            begin, size = position, 0
        size += more
    return [*bodies, range(begin, len(envelopes))] if envelopes else []
