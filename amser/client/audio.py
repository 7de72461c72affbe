"""Audio files → waveform: what a microphone would have given the device. PyAV reads, mixes and resamples."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

import av
import numpy as np
from av.audio.resampler import AudioResampler

from amser.features import SAMPLE_RATE, AudioError, Float32, to_mono, validate

FORMATS: Final = "WAV, FLAC, MP3, OGG, M4A"
# FFmpeg knows hundreds of formats, and playlists among them open other files and addresses.
_DEMUXERS: Final = "wav,flac,mp3,ogg,mov,mp4,m4a,3gp,3g2,mj2"


class UnreadableAudio(AudioError):  # noqa: N818 - an error by its base class
    """A file that is no audio of a known format, or is damaged."""


def read(path: Path) -> Float32:
    """The first audio stream of a file.

    Returns:
        float32, shape (samples,), mono, 16 kHz, full scale ±1.

    Raises:
        OSError: the file cannot be opened.
        UnreadableAudio: it holds no audio in one of `FORMATS`, or is damaged.
        amser.features.AudioError: empty, too short or not finite.
    """
    blocks: list[Float32] = []
    with path.open("rb") as file:  # not the path itself: FFmpeg would take `a:b.wav` for an address
        try:
            _decode(file, blocks)
        except (av.FFmpegError, ValueError) as error:
            if not blocks:
                raise UnreadableAudio("the file is no audio that can be read", FORMATS) from error
            seconds = sum(block.size for block in blocks) / SAMPLE_RATE
            raise UnreadableAudio(f"the audio is damaged after {seconds:.1f} s", "an intact file") from error
    return validate(np.concatenate(blocks) if blocks else np.zeros(0, np.float32))


def _decode(file: BinaryIO, blocks: list[Float32]) -> None:
    """Appends what is decoded, so that the caller knows how far it went where a file is damaged."""
    with av.open(file, mode="r", metadata_errors="ignore", options={"format_whitelist": _DEMUXERS}) as container:
        if not container.streams.audio:
            raise ValueError("no audio stream")
        # The channels stay: FFmpeg's own mix to mono adds them up to 1.4 times full scale.
        resampler = AudioResampler(format="fltp", rate=SAMPLE_RATE)
        for frame in container.decode(audio=0):
            blocks.extend(to_mono(part.to_ndarray().T) for part in resampler.resample(frame))
        if blocks:  # a resampler that saw no frame has nothing to flush
            blocks.extend(to_mono(part.to_ndarray().T) for part in resampler.resample(None))
