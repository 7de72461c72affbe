"""Files whose samples stand in one piece behind a header: WAV (RF64 and BW64 too), W64, AIFF, AU and CAF.

What writes them to a pipe cannot come back to say how long they are, and says 0, −1 or a number of its own. So the
length in a header counts where the file has as many bytes, and else the samples go on to the end. FFmpeg gets a header
that is written anew from what it needs, since it reserves memory for whatever other chunks claim.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO, Final, Literal

from amser.audio.containers import W64_MAGIC, DamagedAudio, check_setup

MOST_CHUNKS: Final = 1_000  # in front of the samples
LARGEST_CHUNK: Final = 4_096  # bytes of one that describes the codec
PLACEHOLDERS: Final = 0x7F00_0000 - 64  # bytes; SoX, eSpeak, FFmpeg and others say this or more, less a header
ENDLESS: Final = 0xFFFF_FFFF  # what FFmpeg takes for it
_AU_HEADER: Final = struct.Struct(">4s5I")  # magic, offset of the samples, their bytes, encoding, rate, channels
_CAF_DESCRIPTION: Final = struct.Struct(">d4s5I")  # rate, codec, flags, bytes and frames a packet, channels, bits


@dataclass(frozen=True, slots=True)
class Samples:
    """Where the samples of a file are.

    Attributes:
        head: what stands for everything in front of them.
        start, end: bytes of the file.
        is_cut: the header says, believably, that there were more.
    """

    head: bytes
    start: int
    end: int
    is_cut: bool


class Spliced:
    """The new header and the samples behind it, to be read once from begin to end: PyAV sees that it cannot seek."""

    def __init__(self, samples: Samples, file: BinaryIO) -> None:
        self._head, self._file = samples.head, file
        self._at, self._end = samples.start, samples.end

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        self._file.seek(self._at)
        content = self._file.read(min(size, self._end - self._at))
        self._at += len(content)
        return content


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    start: int
    claimed: int  # bytes


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a format writes its chunks.

    Attributes:
        first: where they begin.
        name, size: bytes that each has.
        order: of the bytes of its size.
        counted: bytes of its own head that a size includes.
        padded: to a multiple of so many bytes.
    """

    first: int
    name: int
    size: int
    order: Literal["big", "little"]
    counted: int = 0
    padded: int = 2

    def chunk(self, file: BinaryIO, at: int) -> _Chunk | None:
        file.seek(at)
        head = file.read(self.name + self.size)
        if len(head) < self.name + self.size:
            return None
        claimed = int.from_bytes(head[self.name :], self.order) - self.counted
        return _Chunk(head[: self.name][:4], at + len(head), claimed)

    def behind(self, start: int, claimed: int) -> int:
        """Where the next chunk begins."""
        return start + claimed + -claimed % self.padded


_RIFF: Final = _Layout(12, 4, 4, "little")
_RIFX: Final = _Layout(12, 4, 4, "big")
_W64: Final = _Layout(40, 16, 8, "little", counted=24, padded=8)
_CAF: Final = _Layout(8, 4, 8, "big", padded=1)


def samples_of(file: BinaryIO, name: str, begin: int) -> Samples:
    """Where the samples are.

    Args:
        file: seekable.
        name: of its format, a key of `READERS`.
        begin: where it begins behind ID3 tags, in bytes.

    Raises:
        DamagedAudio: a chunk in front of the samples claims more bytes than there are, or there are no samples.
        UnsupportedAudio: see `amser.audio.containers.check_setup`.
    """
    return READERS[name](file, begin)


def _wave(file: BinaryIO, begin: int) -> Samples:
    file.seek(begin)
    magic = file.read(16)
    is_w64, is_big = magic == W64_MAGIC, magic[:4] == b"RIFX"
    layout = _W64 if is_w64 else _RIFX if is_big else _RIFF
    found: dict[bytes, _Chunk] = {}
    for chunk in _chunks(file, layout, begin, b"data", "W64" if is_w64 else "WAV"):
        found.setdefault(chunk.name, chunk)
        if chunk.name == b"fmt ":
            fields = _content(file, chunk)
            if len(fields) >= 8:
                channels, rate = struct.unpack_from(">2xHI" if is_big else "<2xHI", fields)
                check_setup(rate, channels)
        if {b"fmt ", b"data"} <= found.keys():
            break
    described, data = _both(found, b"fmt ", b"data", "WAV")
    claimed = data.claimed
    if magic[:4] in (b"RF64", b"BW64") and b"ds64" in found:
        claimed = int.from_bytes(_content(file, found[b"ds64"])[8:16], "little")
    order: Literal["big", "little"] = "big" if is_big else "little"
    fmt = _content(file, described)
    head = b"RIFX" if is_big else b"RIFF"
    head += ENDLESS.to_bytes(4, order) + b"WAVEfmt " + len(fmt).to_bytes(4, order) + fmt + bytes(len(fmt) % 2)
    return _to_the_end(file, layout, head + b"data" + ENDLESS.to_bytes(4, order), data.start, claimed)


def _aiff(file: BinaryIO, begin: int) -> Samples:
    file.seek(begin)
    magic = file.read(12)
    found: dict[bytes, _Chunk] = {}
    for chunk in _chunks(file, _RIFX, begin, b"SSND", "AIFF"):
        found.setdefault(chunk.name, chunk)
        if {b"COMM", b"SSND"} <= found.keys():
            break
    described, sound = _both(found, b"COMM", b"SSND", "AIFF")
    common = _content(file, described)
    if len(common) < 18:
        raise DamagedAudio(f"the AIFF's chunk b'COMM' has {len(common)} bytes", "18 or more")
    check_setup(_extended(common[8:18]), int.from_bytes(common[:2]))
    file.seek(sound.start)
    offset = int.from_bytes(file.read(4))  # unused bytes in front of the samples
    head = magic[:4] + ENDLESS.to_bytes(4) + magic[8:] + b"COMM" + len(common).to_bytes(4) + common
    head += bytes(len(common) % 2) + b"SSND"
    at = sound.start + 8 + min(offset, max(0, sound.claimed - 8))
    sounding = _to_the_end(file, _RIFX, head, at, max(0, sound.claimed - (at - sound.start)))
    size = min(8 + sounding.end - sounding.start, ENDLESS)
    return Samples(head + size.to_bytes(4) + bytes(8), at, sounding.end, sounding.is_cut)


def _au(file: BinaryIO, begin: int) -> Samples:
    size = file.seek(0, os.SEEK_END)
    file.seek(begin)
    head = file.read(_AU_HEADER.size)
    if len(head) < _AU_HEADER.size:
        raise DamagedAudio(f"the AU's header has {len(head)} bytes", str(_AU_HEADER.size))
    magic, offset, claimed, encoding, rate, channels = _AU_HEADER.unpack(head)
    if not _AU_HEADER.size <= offset <= size - begin:
        raise DamagedAudio(f"the AU's samples begin at byte {offset}", f"within the {size - begin} of the file")
    check_setup(rate, channels)
    written = _AU_HEADER.pack(magic, _AU_HEADER.size, ENDLESS, encoding, rate, channels)
    return _to_the_end(file, None, written, begin + offset, claimed)


def _caf(file: BinaryIO, begin: int) -> Samples:
    kept: dict[bytes, bytes] = {}
    data: _Chunk | None = None
    for chunk in _chunks(file, _CAF, begin, b"data", "CAF"):
        if chunk.name == b"data":
            data = data or chunk
        elif chunk.name in (b"desc", b"kuki", b"pakt") and chunk.name not in kept:
            kept[chunk.name] = _content(file, chunk, None if chunk.name == b"pakt" else LARGEST_CHUNK)
        if data is not None and b"desc" in kept and (b"pakt" in kept or _packet_bytes(kept[b"desc"])):
            break
    if data is None or len(kept.get(b"desc", b"")) < _CAF_DESCRIPTION.size:
        raise DamagedAudio("the CAF has no samples, or nothing that describes them", "chunks `desc` and `data`")
    rate, _, _, _, _, channels, _ = _CAF_DESCRIPTION.unpack_from(kept[b"desc"])
    check_setup(int(rate) if math.isfinite(rate) and 0 <= rate < 1e9 else 0, channels)
    packets = int.from_bytes(kept.get(b"pakt", b"")[:8])
    if packets > len(kept.get(b"pakt", b"")):  # each takes a byte or more; FFmpeg would reserve for as many
        raise DamagedAudio(f"the CAF claims {packets} packets", f"no more than the {len(kept[b'pakt'])} bytes of them")
    head = b"caff\0\1\0\0"
    for name in (b"desc", b"kuki", b"pakt"):
        if name in kept:
            head += name + len(kept[name]).to_bytes(8) + kept[name]
    found = _to_the_end(file, _CAF, head, data.start + 4, data.claimed - 4)
    head += b"data" + (4 + found.end - found.start).to_bytes(8) + bytes(4)  # the last four count edits
    return Samples(head, found.start, found.end, found.is_cut)


READERS: Final[MappingProxyType[str, Callable[[BinaryIO, int], Samples]]] = MappingProxyType(
    {"wav": _wave, "w64": _wave, "aiff": _aiff, "au": _au, "caf": _caf}
)


def _chunks(file: BinaryIO, layout: _Layout, begin: int, samples: bytes, format_name: str) -> Iterator[_Chunk]:
    """The chunks; behind the samples only where they are as long as they claim."""
    size = file.seek(0, os.SEEK_END)
    at = begin + layout.first
    for _ in range(MOST_CHUNKS):
        chunk = layout.chunk(file, at)
        if chunk is None:
            return
        left = size - chunk.start
        if not 0 <= chunk.claimed <= left and chunk.name != samples:
            cause = f"the {format_name}'s chunk {chunk.name!r} claims {chunk.claimed} bytes"
            raise DamagedAudio(cause, f"the {left} that the file has left")
        yield chunk
        if chunk.name == samples and not 0 < chunk.claimed <= left:
            return
        at = layout.behind(chunk.start, chunk.claimed)
    raise DamagedAudio(f"the {format_name} has more than {MOST_CHUNKS} chunks", f"up to {MOST_CHUNKS}")


def _to_the_end(file: BinaryIO, layout: _Layout | None, head: bytes, start: int, claimed: int) -> Samples:
    """Where samples end that begin at `start` and of which a header claims so many bytes."""
    size = file.seek(0, os.SEEK_END)
    left = max(0, size - start)
    is_placeholder = claimed < 0 or PLACEHOLDERS <= claimed <= ENDLESS or claimed >= 1 << 60
    if is_placeholder or claimed > left:
        return Samples(head, start, start + left, not is_placeholder)
    # A number that somebody made up leaves most of the file to what nobody has named
    is_made_up = left - claimed > claimed and not (layout and _is_chunk(file, layout, layout.behind(start, claimed)))
    return Samples(head, start, start + (left if is_made_up else claimed), False)


def _is_chunk(file: BinaryIO, layout: _Layout, at: int) -> bool:
    chunk = layout.chunk(file, at)
    if chunk is None or not all(0x20 <= byte < 0x7F for byte in chunk.name):
        return False
    return 0 <= chunk.claimed <= file.seek(0, os.SEEK_END) - chunk.start


def _content(file: BinaryIO, chunk: _Chunk, largest: int | None = LARGEST_CHUNK) -> bytes:
    file.seek(chunk.start)
    return file.read(chunk.claimed if largest is None else min(chunk.claimed, largest))


def _both(found: dict[bytes, _Chunk], one: bytes, other: bytes, format_name: str) -> tuple[_Chunk, _Chunk]:
    for name in (one, other):
        if name not in found:
            raise DamagedAudio(f"the {format_name} has no chunk {name!r}", f"chunks {one!r} and {other!r}")
    return found[one], found[other]


def _packet_bytes(description: bytes) -> int:
    """Bytes that every packet of a CAF has; 0 where they vary and `pakt` has them."""
    return int(_CAF_DESCRIPTION.unpack_from(description)[3]) if len(description) >= _CAF_DESCRIPTION.size else 0


def _extended(number: bytes) -> int:
    """The whole part of an 80-bit float, as AIFF writes its rate; 0 where it is none that a rate can be."""
    exponent, mantissa = int.from_bytes(number[:2]) - 16383, int.from_bytes(number[2:])
    return mantissa >> (63 - exponent) if 0 <= exponent < 32 else 0
