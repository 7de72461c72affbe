"""Files that a command reads; the name `-` is standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from amser.audio import AudioWarning, decode
from amser.errors import SignalError
from amser.features import Float32, validate

STANDARD_INPUT: Final = Path("-")
WARNINGS: Final[dict[AudioWarning, str]] = {
    "audio_damaged": "damaged; what could be read of it is used",
    "audio_cut": "cut off; what there is of it is used",
}
LARGEST_AUDIO: Final = 256 * 1024**2  # bytes; more than two hours of 16-bit PCM at 16 kHz


class TooManyBytes(SignalError):  # noqa: N818 - an error by its base class
    """More than is read."""


def check_inputs(files: Sequence[Path]) -> None:
    """Refuses to read standard input twice: ValueError."""
    if files.count(STANDARD_INPUT) > 1:
        raise ValueError("standard input, -, can be read once only")


def read_bytes(file: Path, limit: int) -> bytes:
    """All of a file.

    Raises:
        OSError: it cannot be read.
        TooManyBytes: more than `limit`.
    """
    if file == STANDARD_INPUT:
        if sys.stdin is None:
            raise OSError("standard input is closed")
        content = sys.stdin.buffer.read(limit + 1)
    else:
        with file.open("rb") as opened:
            content = opened.read(limit + 1)
    if len(content) > limit:
        raise TooManyBytes(f"there are more than {limit:,} bytes", f"up to {limit:,} bytes")
    return content


def read_audio(file: Path, max_frames: int | None = None) -> Float32:
    """The waveform of an audio file: float32, shape (samples,), mono, 16 kHz. Says where it is damaged or cut.

    Args:
        file: in one of `amser.audio.FORMATS`.
        max_frames: of log-Mel, 10 ms each; None for all there are.

    Raises:
        OSError: it cannot be read.
        amser.errors.SignalError: it is no audio, damaged, empty, too short or too long.
    """
    if file == STANDARD_INPUT:
        heard = decode(io.BytesIO(read_bytes(file, LARGEST_AUDIO)), max_frames)
    else:
        with file.open("rb") as opened:  # not the path itself: FFmpeg would take `a:b.wav` for an address
            heard = decode(opened, max_frames)
    waveform = validate(heard.waveform)
    for warning in heard.warnings:
        print(f"amser: {file}: {WARNINGS[warning]}", file=sys.stderr)
    return waveform


def reason(error: OSError | SignalError) -> str:
    """Why a file cannot be used, without its name."""
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
