# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""Audio file → waveform at 16 kHz, mono: PyAV (FFmpeg) decodes and resamples, within bounds on what a file claims."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from amser.audio.containers import (
    CODECS,
    DECODERS,
    DEMUXERS,
    FORMATS,
    MOST_STREAMS,
    DamagedAudio,
    UnknownFormat,
    check_m4a,
    check_setup,
    check_wav,
    format_of,
)
from amser.features import HOP_LENGTH, SAMPLE_RATE, AudioError, Float32, to_mono, validate

# An M4A's last frame is filled up with zeros, which FFmpeg leaves in place: samples at 16 kHz, 2048 at 8 kHz at most
LARGEST_FILL: Final = 4096
MIXED_AT_ONCE: Final = 30 * SAMPLE_RATE  # samples whose channels are in memory together
PACKETS_PER_SECOND: Final = 2000  # of audio; Opus has 400 at most, Vorbis and FLAC with the shortest blocks no more
SPARE_PACKETS: Final = 5000  # tags and padding between frames, some of which look like frames
OPTIONS: Final = {"codec_whitelist": ",".join(sorted(DECODERS)), "max_streams": str(MOST_STREAMS)}
RESYNCHRONISING: Final = frozenset({"mp3", "aac"})  # frames that are found again behind tags and padding

logger = logging.getLogger("amser")


class AudioTooLong(AudioError):
    """Longer than the caller accepts."""


class AudioTooCostly(AudioError):
    """Decoding it takes more memory or time than its speech is worth."""


def read(path: Path) -> Float32:
    """The first audio stream of a file, as a microphone would have given it.

    Returns:
        float32, shape (samples,), mono, 16 kHz, full scale ±1.

    Raises:
        OSError: the file cannot be opened.
        amser.features.AudioError: see `decode`; or empty, too short or not finite.
    """
    with path.open("rb") as file:  # not the path itself: FFmpeg would take `a:b.wav` for an address
        waveform, _ = decode(file)
    return validate(waveform)


def decode(file: BinaryIO, max_frames: int | None = None) -> tuple[Float32, str]:
    """The first audio stream of a file, and the name of its format, a key of `DEMUXERS`.

    Decoding stops soon after the first sample too many, whatever the file's header says of its length. An M4A's header
    says where in its last frame it ends.

    Args:
        file: seekable; it is read from its beginning.
        max_frames: of log-Mel, 10 ms each; None reads on to the end.

    Returns:
        float32, shape (samples,), mono, 16 kHz, full scale ±1; it may be empty or hold values that are not finite.

    Raises:
        UnknownFormat: no audio in one of `DEMUXERS`, or of a codec other than `CODECS`.
        DamagedAudio: cut off or corrupt.
        UnsupportedAudio: a sample rate or a number of channels that no recording of speech has.
        AudioTooLong: more than `max_frames`.
        AudioTooCostly: more than `PACKETS_PER_SECOND`, or more memory than this process may have.
    """
    blocks: list[Float32] = []
    name, samples = decode_to(file, blocks.append, max_frames)
    return (np.concatenate(blocks) if blocks else np.zeros(0, np.float32))[:samples], name


def decode_to(file: BinaryIO, write: Callable[[Float32], object], max_frames: int | None = None) -> tuple[str, int]:
    """The same in blocks, so that a long recording is never in memory whole.

    Args:
        file: see `decode`.
        write: takes each block, shape (samples,), about `MIXED_AT_ONCE` samples.
        max_frames: see `decode`.

    Returns:
        The name of the format, and how many of the samples that were written count: an M4A may end with a few more.

    Raises:
        amser.features.AudioError: see `decode`; blocks may have been written by then.
    """
    name = format_of(file)
    if name is None:
        raise UnknownFormat("the file is no audio that can be read", FORMATS)
    if name == "wav":
        check_wav(file)
    elif name == "m4a":
        check_m4a(file)
    file.seek(0)
    # FFmpeg reads metadata behind the samples of a WAV where it can seek, and reserves whatever their chunks claim
    source = _Forwards(file) if name == "wav" else file
    mixer = _Mixer(write)
    try:
        with av.open(source, "r", DEMUXERS[name], OPTIONS, metadata_errors="ignore") as container:
            stated = _decode(container, name, mixer, max_frames)
    except AudioError:
        raise  # a ValueError too, and says already what is wrong
    except MemoryError as error:  # FFmpeg says the same of too many streams
        cause = f"the {name.upper()} takes too much memory, or has too many streams"
        raise AudioTooCostly(cause, f"{MOST_STREAMS} streams, within the memory of this process") from error
    except (av.FFmpegError, ValueError) as error:
        raise _damaged(error, mixer.samples) from error
    samples = stated if stated and 0 < mixer.samples - stated <= LARGEST_FILL else mixer.samples
    if max_frames is not None and samples >= (max_frames + 1) * HOP_LENGTH:
        raise _too_long(max_frames)
    return name, samples


def _decode(container: InputContainer, name: str, mixer: _Mixer, max_frames: int | None) -> int:
    """Fills the mixer. Returns the samples at 16 kHz that the container states; 0 where it states none."""
    if not container.streams.audio:
        raise UnknownFormat(f"there is no audio in the {name.upper()} file", FORMATS)
    stream = container.streams.audio[0]
    context = stream.codec_context
    if context is None or context.name not in DECODERS:
        codec = "one that FFmpeg does not know" if context is None else context.name
        raise UnknownFormat(f"the codec of the {name.upper()} file is {codec}", CODECS)
    if context.sample_rate:  # some containers leave it to the first frame
        check_setup(context.sample_rate, context.channels)
    for frame in _frames(container, stream, name in RESYNCHRONISING):
        mixer.push(frame)
        if max_frames is not None and mixer.samples >= (max_frames + 1) * HOP_LENGTH + LARGEST_FILL:
            raise _too_long(max_frames)
    mixer.flush()
    if name != "m4a" or stream.duration is None or stream.time_base is None:
        return 0
    return round(stream.duration * stream.time_base * SAMPLE_RATE)  # asked last: of a fragmented file it grows


def _frames(container: InputContainer, stream: AudioStream, resynchronising: bool) -> Iterator[AudioFrame]:
    """Decoded frames. What lies between or behind the frames of a format that resynchronises is skipped."""
    decoded = skipped = 0
    seconds = 0.0
    for count, packet in enumerate(container.demux(stream), start=1):
        if count > SPARE_PACKETS + PACKETS_PER_SECOND * seconds:
            cause = f"the first {count} packets hold {seconds:.3g} s of audio"
            raise AudioTooCostly(cause, f"up to {PACKETS_PER_SECOND} packets a second")
        try:
            frames = packet.decode()
        except av.FFmpegError:
            skipped += packet.size
            if not resynchronising:
                raise
            continue
        decoded += len(frames)
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            yield frame  # refused there, where its rate is 0
            seconds += frame.samples / frame.sample_rate
    if skipped and not decoded:
        raise ValueError("none of its frames can be decoded")
    if skipped:
        logger.warning("%d bytes of the recording are no audio and were skipped", skipped)


class _Forwards:
    """A file that can be read but not searched."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read


class _Mixer:
    """Frames → mono at 16 kHz. A stream may change its rate and its channels.

    Args:
        write: takes each block that is mixed.

    Attributes:
        samples: received so far, at 16 kHz.
    """

    def __init__(self, write: Callable[[Float32], object]) -> None:
        self.samples = 0
        self._write = write
        self._held: list[Float32] = []  # (samples, channels), to be mixed together
        self._held_samples = 0
        self._setup: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None

    def push(self, frame: AudioFrame) -> None:
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        if setup != self._setup:
            self.flush()
            check_setup(frame.sample_rate, frame.layout.nb_channels)
            # Interleaved: PyAV runs past the table of planes where there are eight or more. The channels stay, since
            # FFmpeg's own mix to mono adds them up to 1.4 times full scale.
            self._setup, self._resampler = setup, AudioResampler(format="flt", rate=SAMPLE_RATE)
        assert self._resampler is not None
        self._take(self._resampler.resample(frame))

    def flush(self) -> None:
        """The end of a stream, or of frames that are alike."""
        if self._resampler is not None:
            self._take(self._resampler.resample(None))
            self._mix()
        self._setup = self._resampler = None

    def _take(self, pieces: list[AudioFrame]) -> None:
        for piece in pieces:
            samples = np.asarray(piece.to_ndarray(), np.float32)
            self._held.append(samples.reshape(-1, piece.layout.nb_channels))
            self.samples += piece.samples
            self._held_samples += piece.samples
        if self._held_samples >= MIXED_AT_ONCE:
            self._mix()

    def _mix(self) -> None:
        if self._held:
            self._write(to_mono(np.concatenate(self._held)))
            self._held, self._held_samples = [], 0


def _damaged(error: Exception, samples: int) -> DamagedAudio:
    reason = (error.strerror if isinstance(error, av.FFmpegError) else str(error)) or type(error).__name__
    if not samples:
        return DamagedAudio(f"the audio cannot be decoded: {reason}", "an intact file")
    return DamagedAudio(f"the audio is damaged after {samples / SAMPLE_RATE:.1f} s: {reason}", "an intact file")


def _too_long(max_frames: int) -> AudioTooLong:
    seconds = max_frames * HOP_LENGTH / SAMPLE_RATE
    return AudioTooLong(f"the recording is longer than {seconds:g} s", f"up to {seconds:g} s")
