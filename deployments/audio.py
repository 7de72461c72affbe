"""Audio files of clients without the codec → log-Mel, with a bound on what a file may claim to hold."""

from __future__ import annotations

import io
from typing import Final

import av
import numpy as np
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from amser.errors import SignalError
from amser.features import HOP_LENGTH, SAMPLE_RATE

# PyAV's names of the containers; everything else that FFmpeg could open stays closed
FORMATS: Final = {"wav": "wav", "flac": "flac", "mp3": "mp3", "ogg": "ogg", "mov,mp4,m4a,3gp,3g2,mj2": "m4a"}


class UndecodableAudio(SignalError):  # noqa: N818 - an error by its base class
    """Not one of the formats. HTTP 415."""


class BrokenAudio(SignalError):  # noqa: N818 - an error by its base class
    """One of the formats, but cut off or corrupt. HTTP 400."""


class AudioTooLong(SignalError):  # noqa: N818 - an error by its base class
    """More than the recogniser hears at once. HTTP 413."""


def decode(content: bytes, max_frames: int) -> tuple[NDArray[np.float32], str]:
    """The waveform in an audio file, mono at 16 kHz, and the name of the format.

    Decoding stops at the first sample too many, whatever the file's header says of its length.

    Args:
        content: a whole WAV, FLAC, MP3, OGG or M4A file.
        max_frames: of log-Mel, 10 ms each.

    Raises:
        UndecodableAudio, BrokenAudio, AudioTooLong: as they say.
    """
    limit = (max_frames + 1) * HOP_LENGTH
    accepted = "WAV, FLAC, MP3, OGG, M4A"
    try:
        with av.open(io.BytesIO(content), mode="r", metadata_errors="ignore") as container:
            name = FORMATS.get(container.format.name)
            if name is None or not container.streams.audio:
                raise UndecodableAudio(f"the file is {container.format.name} and no audio that is read here", accepted)
            pieces, count = [], 0
            resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    pieces.append(piece.to_ndarray()[0])
                    count += pieces[-1].size
                if count >= limit:
                    seconds = max_frames * HOP_LENGTH / SAMPLE_RATE
                    raise AudioTooLong(f"the recording is longer than {seconds:g} s", f"up to {seconds:g} s")
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except SignalError:
        raise  # it is a ValueError, and says already what is wrong
    except av.error.InvalidDataError as error:
        if _begins_like_audio(content):
            raise BrokenAudio(f"the audio cannot be decoded: {error.strerror}", "an intact file") from None
        raise UndecodableAudio("the file is no audio that is read here", accepted) from None
    except (av.FFmpegError, ValueError) as error:
        raise BrokenAudio(f"the audio cannot be decoded: {error}", "an intact file") from None
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.float32)), name


def _begins_like_audio(content: bytes) -> bool:
    return content[:4] in (b"RIFF", b"fLaC", b"OggS") or content[:3] == b"ID3" or content[4:8] == b"ftyp"
