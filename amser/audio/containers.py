# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""Which audio format a file is, and whether its header can be true.

FFmpeg knows hundreds of formats and codecs, and playlists among them open other files and addresses: it is told the
format and the codecs, and never guesses. It also believes headers: it reserves what a WAV chunk or the tables of an M4A
claim, and builds filters for any sampling rate.
"""

from __future__ import annotations

import os
import re
from types import MappingProxyType
from typing import BinaryIO, Final

from amser.audio.frame_heads import frame_bytes
from amser.features import RESAMPLED_FROM, AudioError, UnsupportedAudio

DEMUXERS: Final = MappingProxyType(  # FFmpeg's demuxer for each format
    {
        "wav": "wav",
        "flac": "flac",
        "mp3": "mp3",
        "ogg": "ogg",
        "m4a": "mov",
        "aac": "aac",
        "webm": "webm",
        "amr": "amr",
        "aiff": "aiff",
        "caf": "caf",
        "w64": "wav",  # its header is written anew, see `headers`
        "au": "au",
    }
)
FORMATS: Final = ", ".join(name.upper() for name in DEMUXERS)
DECODERS: Final = frozenset(  # FFmpeg's, and no others are opened
    {"aac", "alac", "amrnb", "amrwb", "flac", "mp3", "mp3float", "opus", "speex", "vorbis"}
    | {f"pcm_{kind}" for kind in ("alaw", "mulaw", "s8", "u8")}
    | {f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")}
)
CODECS: Final = "PCM, FLAC, ALAC, MP3, Vorbis, Opus, AAC, Speex, AMR-NB, AMR-WB"
MOST_CHANNELS: Final = 32
MOST_STREAMS: Final = 16  # a film with its languages and subtitles; one is decoded

SEARCHED: Final = 16_384  # bytes in which frames of MP3 or AAC may begin, and follow each other
FRAMES_IN_A_ROW: Final = 4

_ID3_HEADER: Final = 10  # bytes
_COUNTS: Final = re.compile(rb"(?=(.{4})(stsz|stz2|trun)(.{12}))", re.DOTALL)  # boxes of an M4A that count its samples
_WAVE: Final = (b"RIFF", b"RIFX", b"RF64", b"BW64")  # RIFX is big-endian; the last two are for files over 4 GB
W64_MAGIC: Final = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_MAGIC: Final = MappingProxyType(
    {
        b"fLaC": "flac",
        b"OggS": "ogg",
        b"\x1a\x45\xdf\xa3": "webm",  # Matroska too
        b"#!AM": "amr",
        b"caff": "caf",
        b".snd": "au",
    }
)


class UnreadableAudio(AudioError):
    """A file that is no audio of a known format, or is damaged."""


class UnknownFormat(UnreadableAudio):
    """None of the formats of `DEMUXERS`."""


class UnknownCodec(UnknownFormat):
    """One of the formats, with a codec other than `CODECS` in it."""


class NoSound(UnknownFormat):
    """One of the formats, with pictures or text alone in it."""


class DamagedAudio(UnreadableAudio):
    """One of the formats, of which nothing can be heard: its head is cut off or corrupt."""


def format_of(file: BinaryIO) -> str | None:
    """The format that the first bytes announce, a key of `DEMUXERS`; None for any other.

    Raises:
        DamagedAudio: an ID3 tag is longer than the file.
    """
    begin = behind_id3(file)
    file.seek(begin)
    head = file.read(16)
    if head[:4] in _WAVE and head[8:12] in (b"WAVE", b""):
        return "wav"
    if head == W64_MAGIC:
        return "w64"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] in (b"ftyp", b"moov", b"wide"):  # QuickTime's own files may lack the first
        return "m4a"
    if (known := _MAGIC.get(head[:4])) is not None:
        return known
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF6 == 0xF0:  # 12 bits of sync, layer 0
        return "aac"
    if begin or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 == 0xE2):  # 11 bits of sync, layer III
        return "mp3"
    return _format_of_frames(file, begin)


def _format_of_frames(file: BinaryIO, begin: int) -> str | None:
    """MP3 or AAC where frames follow each other a little later: a stream that was recorded from its middle."""
    file.seek(begin)
    head = file.read(SEARCHED)
    for found in re.finditer(rb"\xff[\xe0-\xff]", head[: SEARCHED // 2]):
        at = found.start()
        same = {head[at + 1] & 0xFE}
        for _ in range(FRAMES_IN_A_ROW):
            length = frame_bytes(head[at : at + 7])
            at += length
            if not length or at + 1 >= len(head):
                break
            same.add(head[at + 1] & 0xFE)
        else:
            if len(same) == 1:
                return "aac" if same.pop() & 0xF6 == 0xF0 else "mp3"
    return None


def check_m4a(file: BinaryIO) -> None:
    """Adds up the samples that the tables of an M4A claim, over all its tracks and fragments.

    Raises:
        DamagedAudio: there are more than the file has bytes. FFmpeg would reserve 35 bytes for each.
    """
    size = file.seek(0, os.SEEK_END)
    at = claimed = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or at + length > size:
            length = size - at
        if head[4:8] != b"mdat":  # the samples themselves
            file.seek(at)
            # They count wherever they stand: FFmpeg reads tables in boxes that have no business to hold them
            for box, name, fields in _COUNTS.findall(file.read(length)):
                first = 4 if name == b"trun" else 8  # behind version and flags, and the size of all samples
                if int.from_bytes(box, "big") <= length:  # else it is the name by chance, in a picture
                    claimed += int.from_bytes(fields[first : first + 4], "big")
        at += length
    if claimed > size:
        raise DamagedAudio(f"the M4A claims {claimed} samples", f"no more than its {size} bytes")


def check_setup(rate: int, channels: int) -> None:
    """Refuses what no recording of speech has, before a filter or a plane is made for it.

    Args:
        rate: samples per second.
        channels: their number.

    Raises:
        UnsupportedAudio: as named.
    """
    lowest, highest = RESAMPLED_FROM
    if not lowest <= rate <= highest:
        raise UnsupportedAudio(f"the sample rate is {rate} Hz", f"{lowest} to {highest} Hz")
    if not 1 <= channels <= MOST_CHANNELS:
        raise UnsupportedAudio(f"the audio has {channels} channels", f"1 to {MOST_CHANNELS}")


def behind_id3(file: BinaryIO) -> int:
    """Where the file goes on behind its ID3 tags, in bytes: 0 where it has none.

    Raises:
        DamagedAudio: a tag is longer than the file.
    """
    size = file.seek(0, os.SEEK_END)
    at = 0
    while True:
        file.seek(at)
        head = file.read(_ID3_HEADER)
        if head[:3] != b"ID3" or len(head) < _ID3_HEADER:
            return at
        length = 0
        for byte in head[6:]:  # four times seven bits
            length = length << 7 | byte & 0x7F
        at += _ID3_HEADER + length
        if at > size:
            raise DamagedAudio(f"the ID3 tag ends at byte {at}", f"within the {size} bytes of the file")
