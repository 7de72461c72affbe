# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""Audio file → waveform at 16 kHz, mono: PyAV (FFmpeg) decodes and resamples, within bounds on what a file claims."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer

from amser.audio import amr, frame_heads, matroska, ogg
from amser.audio.containers import (
    CODECS,
    DECODERS,
    DEMUXERS,
    FORMATS,
    MOST_STREAMS,
    DamagedAudio,
    NoSound,
    UnknownCodec,
    UnknownFormat,
    behind_id3,
    check_m4a,
    check_setup,
    format_of,
)
from amser.audio.frames import AudioTooCostly, Frames
from amser.audio.headers import READERS, Samples, Spliced, samples_of
from amser.audio.mixing import Mixer
from amser.audio.tracks import the_one_that_speaks
from amser.features import FRAMES_PER_SECOND, HOP_LENGTH, SAMPLE_RATE, AudioError, Float32, validate

AudioWarning = Literal["audio_damaged", "audio_cut"]

# An M4A's last frame is filled up with zeros, which FFmpeg leaves in place: samples at 16 kHz, 2048 at 8 kHz at most
LARGEST_FILL: Final = 4096
OPTIONS: Final = {"codec_whitelist": ",".join(sorted(DECODERS)), "max_streams": str(MOST_STREAMS)}
STATING: Final = frozenset({"flac", "m4a"})  # formats whose header says, truly, how long they are
LONGEST_S: Final = 1e9
SPARE_S: Final = 60  # of the container that is looked at beyond the longest recording
BLOCKS_PER_SECOND: Final = 500  # of WebM; Opus has 400 packets at most
MISSING_S: Final = 0.1  # that a file may be shorter than it says
MISSING_MP3_S: Final = 0.3  # what encoders put in front and behind is taken off


class AudioTooLong(AudioError):
    """Longer than the caller accepts."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file holds.

    Attributes:
        waveform: float32, shape (samples,), mono, 16 kHz, full scale ±1; it may be empty, and hold values that are not
            finite where the file has such samples.
        format: a key of `amser.audio.DEMUXERS`.
        warnings: `audio_damaged` where something inside was lost, and is silent or left out; `audio_cut` where the file
            ends early.
    """

    waveform: Float32
    format: str
    warnings: tuple[AudioWarning, ...] = ()


def read(path: Path) -> Float32:
    """The sound of a file, as a microphone would have given it. What was damaged or cut is not told: see `decode`.

    Returns:
        float32, shape (samples,), mono, 16 kHz, full scale ±1.

    Raises:
        OSError: the file cannot be opened.
        amser.features.AudioError: see `decode`; or empty, too short or not finite.
    """
    with path.open("rb") as file:  # not the path itself: FFmpeg would take `a:b.wav` for an address
        return validate(decode(file).waveform)


def decode(file: BinaryIO, max_frames: int | None = None) -> Recording:
    """The sound of a file: of several tracks, the one that speaks.

    Decoding stops soon after the first sample too many, whatever the file's header says of its length. An M4A's header
    says where in its last frame it ends.

    Args:
        file: seekable; it is read from its beginning.
        max_frames: of log-Mel, 10 ms each; None reads on to the end.

    Raises:
        UnknownFormat: no audio in one of `DEMUXERS`; `UnknownCodec` where it is of a codec other than `CODECS`,
            `NoSound` where there is none.
        DamagedAudio: nothing of it can be heard.
        UnsupportedAudio: a sample rate or a number of channels that no recording of speech has.
        AudioTooLong: more than `max_frames`.
        AudioTooCostly: more than `PACKETS_PER_SECOND`, or more memory than this process may have.
    """
    parts = blocks(file, max_frames)
    read = list(parts)
    waveform = read[0] if len(read) == 1 else np.concatenate([np.zeros(0, np.float32), *read])
    return Recording(waveform, parts.format, parts.warnings)


def blocks(file: BinaryIO, max_frames: int | None = None) -> Blocks:
    """The same in blocks, so that a recording of hours is never in memory whole.

    Args:
        file: see `decode`.
        max_frames: see `decode`.

    Raises:
        amser.features.AudioError: see `decode`; here, or while the blocks are read.
    """
    return Blocks(file, max_frames)


class Blocks:
    """A recording block by block, once: float32, shape (samples,), up to half a minute each.

    Attributes:
        format: see `Recording`.
        warnings: see `Recording`; complete behind the last block.
    """

    def __init__(self, file: BinaryIO, max_frames: int | None) -> None:
        self._file, self._max_frames = file, max_frames
        name = format_of(file)
        if name is None:
            raise UnknownFormat("the file is no audio that can be read", FORMATS)
        self.format: str = name
        self.warnings: tuple[AudioWarning, ...] = ()
        self._begin = behind_id3(file)
        self._samples: Samples | None = None
        self._damage = matroska.Damage((), False)
        self._pages: ogg.Pages | None = None
        self._amr: amr.Frames | None = None
        self._is_damaged = self._is_cut = False
        latest_s = LONGEST_S if max_frames is None else SPARE_S + max_frames / FRAMES_PER_SECOND
        if name in READERS:
            self._samples = samples_of(file, name, self._begin)
        elif name == "m4a":
            check_m4a(file)
        elif name == "webm":
            self._damage = matroska.damage_of(file, round(BLOCKS_PER_SECOND * latest_s))
        elif name == "ogg":
            self._pages = ogg.pages_of(file, self._begin, latest_s)

    def __iter__(self) -> Iterator[Float32]:
        """Raises what `decode` raises."""
        mixer = Mixer()
        failure: Exception | None = None
        stated = 0.0
        for part in self._pages.links if self._pages else ((self._begin, 0),):
            try:
                with self._open(part) as container:
                    stream = self._track(container, part)
                    yield from self._pushed(container, stream, mixer)
                    stated = self._stated(stream)  # asked last: of a fragmented file it grows
            except UnknownFormat as error:
                failure = failure or error
            except AudioError:
                raise  # a ValueError too, and says already what is wrong
            except MemoryError as error:  # FFmpeg says the same of too many streams
                cause = f"the {self.format.upper()} takes too much memory, or has too many streams"
                raise AudioTooCostly(cause, f"{MOST_STREAMS} streams, within the memory of this process") from error
            except (av.FFmpegError, ValueError) as error:
                failure = failure or _damaged(error)
        yield from self._end(mixer, stated)
        if failure is not None:
            if not mixer.samples:
                raise failure
            self._is_damaged = True
        flags: dict[AudioWarning, bool] = {"audio_damaged": self._is_damaged, "audio_cut": self._is_cut}
        self.warnings = tuple(name for name, is_so in flags.items() if is_so)

    def _pushed(self, container: InputContainer, stream: AudioStream, mixer: Mixer) -> Iterator[Float32]:
        """Mixes the frames of a track; gives the blocks that are ready, but for the end of an M4A."""
        mixer.is_lossy = not stream.codec_context.name.startswith("pcm")
        frames = Frames(
            container,
            stream,
            self.format,
            is_damaged=bool(self._damage.holes or (self._pages and self._pages.is_damaged)),
        )
        for silent_s, frame in frames:
            if silent_s:
                mixer.silence(silent_s)
            mixer.push(frame)
            if self._max_frames is not None and mixer.samples >= (self._max_frames + 1) * HOP_LENGTH + LARGEST_FILL:
                raise _too_long(self._max_frames)
            yield from mixer.blocks(LARGEST_FILL if self.format == "m4a" else 0)
        self._is_damaged |= frames.is_damaged
        self._is_cut |= frames.is_cut

    def _end(self, mixer: Mixer, stated: float) -> Iterator[Float32]:
        mixer.flush()
        surplus = mixer.samples - round(stated * SAMPLE_RATE)
        if self.format == "m4a" and stated and 0 < surplus <= LARGEST_FILL:
            mixer.drop(surplus)
        if self._max_frames is not None and mixer.samples >= (self._max_frames + 1) * HOP_LENGTH:
            raise _too_long(self._max_frames)
        containers = [each.is_damaged for each in (self._pages, self._amr) if each is not None]
        self._is_damaged |= mixer.is_damaged or any(containers)
        self._is_cut |= self._ends_early(mixer.samples / SAMPLE_RATE, stated)
        yield from mixer.blocks()

    def _ends_early(self, seconds: float, stated: float) -> bool:
        if self._samples is not None:
            return self._samples.is_cut
        if self._amr is not None:
            return self._amr.is_cut
        if self._pages is not None:
            return self._pages.is_cut
        if self.format == "mp3":
            return frame_heads.stated_mp3_seconds(self._file, self._begin) > seconds + MISSING_MP3_S
        return self._damage.is_cut or stated > seconds + MISSING_S

    def _stated(self, stream: AudioStream) -> float:
        """Seconds that the header states; 0 where it states none."""
        if self.format not in STATING or stream.duration is None or stream.time_base is None:
            return 0.0
        return float(stream.duration * stream.time_base)

    def _open(self, part: tuple[int, int]) -> InputContainer:
        source: Any = self._file
        self._file.seek(0)
        if self._samples is not None:
            source = Spliced(self._samples, self._file)
        elif self.format == "amr":
            source = self._amr = amr.Frames(self._file, self._begin)
        elif self._pages is not None:
            source = ogg.Link(self._file, self._pages, part)
        elif self._damage.holes:
            source = matroska.Mended(self._file, self._damage.holes)
        container: InputContainer = av.open(source, "r", DEMUXERS[self.format], OPTIONS, metadata_errors="ignore")
        return container

    def _track(self, container: InputContainer, part: tuple[int, int]) -> AudioStream:
        """The track that is heard."""
        streams = container.streams.audio
        if not streams:
            raise NoSound(f"there is no audio in the {self.format.upper()} file", FORMATS)
        readable = [stream for stream in streams if stream.codec_context and stream.codec_context.name in DECODERS]
        if not readable:
            context = streams[0].codec_context
            codec = "one that FFmpeg does not know" if context is None else context.name
            raise UnknownCodec(f"the codec of the {self.format.upper()} file is {codec}", CODECS)
        index = readable[0].index
        if len(readable) > 1:
            with self._open(part) as probed:
                index = the_one_that_speaks(probed, [stream.index for stream in readable])
        stream = next(stream for stream in readable if stream.index == index)
        context = stream.codec_context
        if context.sample_rate:  # some containers leave it to the first frame
            check_setup(context.sample_rate, context.channels)
        return stream


def _damaged(error: Exception) -> DamagedAudio:
    reason = (error.strerror if isinstance(error, av.FFmpegError) else str(error)) or type(error).__name__
    return DamagedAudio(f"the audio cannot be decoded: {reason}", "an intact file")


def _too_long(max_frames: int) -> AudioTooLong:
    seconds = max_frames * HOP_LENGTH / SAMPLE_RATE
    return AudioTooLong(f"the recording is longer than {seconds:g} s", f"up to {seconds:g} s")
