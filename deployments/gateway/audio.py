"""Audio files of clients without the codec → log-Mel, with a bound on what a file may claim to hold."""

from __future__ import annotations

import io
from typing import Final

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from numpy.typing import NDArray

from amser.errors import SignalError
from amser.features import HOP_LENGTH, SAMPLE_RATE, to_mono

# FFmpeg's demuxer for each format. It never guesses: from a playlist it would open files and addresses of ours.
DEMUXERS: Final = {"wav": "wav", "flac": "flac", "mp3": "mp3", "ogg": "ogg", "m4a": "mov"}
ACCEPTED: Final = ", ".join(name.upper() for name in DEMUXERS)
# An M4A's last frame is filled up with zeros, which FFmpeg leaves in place: samples at 16 kHz, 2048 at 8 kHz at most
LARGEST_FILL: Final = 4096
LENGTH_UNKNOWN_FROM: Final = 0x7FFF_FFFF  # bytes that a WAV claims to have where it was written as a stream


class UndecodableAudio(SignalError):  # noqa: N818 - an error by its base class
    """Not one of the formats. HTTP 415."""


class BrokenAudio(SignalError):  # noqa: N818 - an error by its base class
    """One of the formats, but cut off or corrupt. HTTP 400."""


class AudioTooLong(SignalError):  # noqa: N818 - an error by its base class
    """More than the recogniser hears at once. HTTP 413."""


def decode(content: bytes, max_frames: int) -> tuple[NDArray[np.float32], str]:
    """The waveform in an audio file, mono at 16 kHz, and the name of the format.

    Decoding stops soon after the first sample too many, whatever the file's header says of its length. An M4A's header
    says where in its last frame it ends.

    Args:
        content: a whole WAV, FLAC, MP3, OGG or M4A file.
        max_frames: of log-Mel, 10 ms each.

    Raises:
        UndecodableAudio, BrokenAudio, AudioTooLong: as they say.
    """
    limit = (max_frames + 1) * HOP_LENGTH
    stated = 0
    name = _format_of(content)
    if name is None:
        raise UndecodableAudio("the file is no audio that is read here", ACCEPTED)
    if name == "wav":
        _check_riff_length(content)
    try:
        with av.open(io.BytesIO(content), mode="r", format=DEMUXERS[name], metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise UndecodableAudio(f"there is no audio in the {name.upper()} file", ACCEPTED)
            pieces, count = [], 0
            resampler = AudioResampler(format="fltp", rate=SAMPLE_RATE)  # FFmpeg's own mix to mono adds 3 dB
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    pieces.append(to_mono(piece.to_ndarray().T))
                    count += pieces[-1].size
                if count >= limit + LARGEST_FILL:
                    raise _too_long(max_frames)
            pieces += [to_mono(piece.to_ndarray().T) for piece in resampler.resample(None)]
            if name == "m4a":
                stated = _samples(container.streams.audio[0])  # asked last: of a fragmented file it grows meanwhile
    except SignalError:
        raise  # a ValueError too, and says already what is wrong
    except (av.FFmpegError, ValueError) as error:
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise BrokenAudio(f"the audio cannot be decoded: {reason}", "an intact file") from None
    waveform = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if 0 < waveform.size - stated <= LARGEST_FILL:
        waveform = waveform[: stated or None]
    if waveform.size >= limit:
        raise _too_long(max_frames)
    return waveform, name


def _too_long(max_frames: int) -> AudioTooLong:
    seconds = max_frames * HOP_LENGTH / SAMPLE_RATE
    return AudioTooLong(f"the recording is longer than {seconds:g} s", f"up to {seconds:g} s")


def _samples(stream: AudioStream) -> int:
    """Samples at 16 kHz that the container states; 0 where it says nothing."""
    if stream.duration is None or stream.time_base is None:
        return 0
    return round(stream.duration * stream.time_base * SAMPLE_RATE)


def _format_of(content: bytes) -> str | None:
    """The format that the first bytes announce."""
    if content[:4] == b"RIFF" and content[8:12] in (b"WAVE", b""):
        return "wav"
    if content[4:8] == b"ftyp":
        return "m4a"
    if content[:3] == b"ID3" or (content[:1] == b"\xff" and content[1:2] and content[1] & 0xE6 == 0xE2):  # layer III
        return "mp3"
    return {b"fLaC": "flac", b"OggS": "ogg"}.get(content[:4])


def _check_riff_length(content: bytes) -> None:
    """FFmpeg decodes what there is of a WAV that is cut off, and says nothing."""
    claimed = int.from_bytes(content[4:8], "little")
    if len(content) < claimed + 8 and claimed < LENGTH_UNKNOWN_FROM:
        raise BrokenAudio(f"the file has {len(content)} bytes", f"the {claimed + 8} that its header announces")
