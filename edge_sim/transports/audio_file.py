"""Waveform ↔ audio file in memory, through PyAV: what the audio transports share."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from amser.audio import UnreadableAudio, decoder_of
from amser.features import SAMPLE_RATE, Float32, log_mel, validate
from edge_sim.transports.base import ROUTE_OF_AUDIO, UnknownSetting

SampleFormat = Literal["s16", "flt", "fltp"]

FULL_SCALE: Final = 32_768  # of 16-bit PCM
BIT_EXACT: Final = "+bitexact"  # no version strings and no random serial numbers: the same speech, the same bytes
NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})
SHORTFALL: Final = 0.01  # s; Ogg counts its pre-skip of 6.5 ms as playing time


class AudioFile(ABC):
    """A transport whose payload is an audio file that `/v1/emotion/audio` reads.

    Args:
        setting: one of `settings`.

    Raises:
        UnknownSetting: as named.
    """

    name: ClassVar[str]
    media_type: ClassVar[str]
    settings: ClassVar[tuple[str, ...]]
    demuxer: ClassVar[str]
    route: ClassVar[str] = ROUTE_OF_AUDIO

    def __init__(self, setting: str) -> None:
        if setting not in self.settings:
            raise UnknownSetting(f"{self.name} has no setting {setting!r}", ", ".join(self.settings))
        self.setting = setting

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.setting!r})"

    @abstractmethod
    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`."""

    def decode(self, payload: bytes) -> Float32:
        """See `AudioTransport.decode`."""
        return read(payload, self.demuxer)

    def as_log_mel(self, payload: bytes) -> Float32:
        """See `Transport.as_log_mel`."""
        return log_mel(self.decode(payload))

    def elementary_bytes(self, payload: bytes) -> int:
        """Bytes of the codec's packets, without the container."""
        return packet_bytes(payload, self.demuxer)


def bits_per_second(setting: str) -> int:
    """Of a setting such as "16k"."""
    return 1000 * int(setting.removesuffix("k"))


def write(
    waveform: Float32,
    muxer: str,
    encoder: str,
    sample_format: SampleFormat,
    *,
    bit_rate: int | None = None,
    encoder_options: Mapping[str, str] = NO_OPTIONS,
    muxer_options: Mapping[str, str] = NO_OPTIONS,
) -> bytes:
    """A mono audio file.

    Args:
        waveform: float32, shape (samples,), 16 kHz; clipped to full scale where `sample_format` is an integer.
        muxer, encoder: FFmpeg's names.
        sample_format: one that the encoder takes.
        bit_rate: bits per second; None for encoders without.
        encoder_options, muxer_options: FFmpeg's names and values.

    Raises:
        amser.features.AudioError: empty, too short or not finite.
    """
    samples = validate(waveform)[None]
    pcm = np.rint(samples * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    content = io.BytesIO()
    with av.open(content, "w", format=muxer, options={"fflags": BIT_EXACT, **muxer_options}) as container:
        options = {"flags": BIT_EXACT, **encoder_options}
        stream = container.add_stream(encoder, rate=SAMPLE_RATE, layout="mono", options=options)
        assert isinstance(stream, AudioStream)
        stream.format = sample_format
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(pcm if sample_format == "s16" else samples, sample_format, "mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = 0  # without it the muxers do not know where the audio begins and leave the delay out
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return content.getvalue()


def read(payload: bytes, demuxer: str) -> Float32:
    """The waveform in an audio file, without what the encoder put before and after it.

    FFmpeg skips the delay that the container states. The length is the container's too: FFmpeg itself leaves the zeros
    in place that fill the last frame of AAC.

    Returns:
        float32, shape (samples,), mono, 16 kHz.

    Raises:
        UnreadableAudio: no audio of this container, damaged, or cut off before the end that the container states.
    """
    blocks: list[Float32] = []
    try:
        with av.open(io.BytesIO(payload), "r", format=demuxer, metadata_errors="ignore") as container:
            stream = container.streams.audio[0]
            stated = _samples(stream)
            resampler = AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
            decoder = decoder_of(stream)
            for packet in container.demux(stream):
                for frame in decoder.decode(packet if packet.size else None):
                    blocks.extend(part.to_ndarray()[0] for part in resampler.resample(frame))
            if blocks:  # a resampler that saw no frame has nothing to flush
                blocks.extend(part.to_ndarray()[0] for part in resampler.resample(None))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise _unreadable(blocks, demuxer) from error
    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if waveform.size == 0 or waveform.size < stated - SHORTFALL * SAMPLE_RATE:
        raise _unreadable(blocks, demuxer)
    return waveform[:stated] if stated else waveform


def packet_bytes(payload: bytes, demuxer: str) -> int:
    """Bytes of the packets in an audio file.

    Raises:
        UnreadableAudio: no audio of this container.
    """
    try:
        with av.open(io.BytesIO(payload), "r", format=demuxer, metadata_errors="ignore") as container:
            return sum(packet.size for packet in container.demux(audio=0))
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise _unreadable([], demuxer) from error


def _samples(stream: AudioStream) -> int:
    """Samples at 16 kHz that the container states; 0 where it says nothing."""
    if stream.duration is None or stream.time_base is None:
        return 0
    return round(stream.duration * stream.time_base * SAMPLE_RATE)


def _unreadable(blocks: list[Float32], demuxer: str) -> UnreadableAudio:
    if not blocks:
        return UnreadableAudio("the payload is no audio that can be read", f"a file that FFmpeg's {demuxer} reads")
    seconds = sum(block.size for block in blocks) / SAMPLE_RATE
    return UnreadableAudio(f"the audio is damaged after {seconds:.1f} s", "an intact file")
