# ruff: noqa: N818 - the names of the errors say what happened; their base class says that it is an error
"""The frames of a track, and silence for those that cannot be decoded: a bad frame costs that frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec import codecs_available
from av.container import InputContainer
from av.packet import Packet

from amser.audio.frame_heads import frame_bytes
from amser.features import AudioError

PACKETS_PER_SECOND: Final = 2000  # of audio; Opus has 400 at most, Vorbis and FLAC with the shortest blocks no more
SPARE_PACKETS: Final = 5000  # tags and padding between frames, some of which look like frames
MOST_FAILURES: Final = 100  # of the container one after another: it does not go on

RESYNCHRONISING: Final = frozenset({"mp3", "aac"})  # frames that are found again behind tags and padding
# In the others a gap in time may be meant: a recorder was paused, or sends nothing where nobody speaks
GAPS_ARE_DAMAGE: Final = frozenset({"ogg", "flac", "mp3", "aac"})
LEAST_GAP_S: Final = 0.015  # frames are longer; rounding is shorter
LEAST_GAP_OF_DAMAGE_S: Final = 0.005  # a damaged packet may say that it is short
LONGEST_GAP_S: Final = 5.0  # of silence that stands for what was lost
AMR_PAUSE: Final = 6  # bytes of a packet with a hiss to be made, which FFmpeg does not make, or with nothing
AMR_FRAME_S: Final = 0.02
MOST_FRAMES: Final = 50  # in whose place there is silence: what is longer is a tag or a picture

logger = logging.getLogger("amser")


class AudioTooCostly(AudioError):
    """Decoding it takes more memory or time than its speech is worth."""


def decoder_of(stream: AudioStream) -> AudioCodecContext:
    """What decodes a track whose codec is one of ours."""
    context: AudioCodecContext = stream.codec_context
    if context.name == "flac":
        context.options = {"err_detect": "crccheck+explode"}  # else a damaged frame is a noise
    if context.name == "opus" and "libopus" in codecs_available:  # FFmpeg's own is deafening at times, of good files
        decoder: AudioCodecContext = AudioCodecContext.create("libopus", "r")
        decoder.extradata = context.extradata
        if not context.extradata and context.channels:
            decoder.layout = context.layout
        decoder.options = {"request_sample_fmt": "flt"}
        return decoder
    return context


class Frames:
    """Iterates once over pairs: seconds that were lost in front of a frame, and the frame.

    Args:
        container: open.
        stream: one of it.
        format_name: a key of `amser.audio.DEMUXERS`.
        is_damaged: damage was found already.

    Attributes:
        is_damaged: something inside was lost. What stands between or behind the frames of a format that resynchronises
            was no audio and is no loss.
        is_cut: the last frame is not whole.
    """

    def __init__(self, container: InputContainer, stream: AudioStream, format_name: str, is_damaged: bool) -> None:
        self._container, self._stream, self._format = container, stream, format_name
        self.is_damaged, self.is_cut = is_damaged, False
        self._seconds = 0.0
        self._least_gap_s = LEAST_GAP_OF_DAMAGE_S if is_damaged else LEAST_GAP_S
        self._gaps_are_damage = is_damaged or format_name in GAPS_ARE_DAMAGE
        self._expected: float | None = None  # when the next frame begins
        self._decoded_bytes = self._decoded_packets = 0
        self._tick = float(stream.time_base or 0)  # seconds
        self._is_paused, self._rate = False, 0
        self._failed: list[tuple[int, int]] = []  # since the last frame: bytes of a packet, and those its head states

    def __iter__(self) -> Iterator[tuple[float, AudioFrame]]:
        """Raises:
        AudioTooCostly: too many packets for the audio in them.
        ValueError: there are frames, and none can be decoded.
        """
        decoder = decoder_of(self._stream)
        has_decoded = False
        last: Packet[AudioStream] | None = None
        for packet in self._packets():
            try:
                frames = decoder.decode(packet if packet.size else None)
            except av.FFmpegError as error:
                if isinstance(error, MemoryError):
                    raise
                if decoder.name.startswith("amr") and packet.size <= AMR_PAUSE:
                    self._is_paused = True
                    self._seconds += AMR_FRAME_S
                    continue
                self._failed.append((packet.size, frame_bytes(bytes(packet)[:7])))
                continue
            if packet.size:
                self._decoded_bytes += packet.size
                self._decoded_packets += 1
                last = packet
            for frame in frames:
                assert isinstance(frame, AudioFrame)
                lost = self._lost(frame)
                if not has_decoded:  # what encoders put in front is taken off it, and libopus does not tell its time
                    self._expected, has_decoded = None, True
                yield lost, frame  # refused there, where its rate is 0
                self._seconds += frame.samples / frame.sample_rate
        if self._failed and not has_decoded:
            raise ValueError("none of its frames can be decoded")
        if last is not None and self._format in RESYNCHRONISING:
            self.is_cut = frame_bytes(bytes(last)[:7]) > last.size
        self._end()

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        """Packets; where the container cannot be read it is read on behind that."""
        count = failures = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                failures += 1
                if isinstance(error, MemoryError) or (not count and failures > MOST_FAILURES):
                    raise
                self.is_damaged = True
                if failures > MOST_FAILURES:
                    return
                packets = self._container.demux(self._stream)
                continue
            count, failures = count + 1, 0
            if count > SPARE_PACKETS + PACKETS_PER_SECOND * self._seconds:
                cause = f"the first {count} packets hold {self._seconds:.3g} s of audio"
                raise AudioTooCostly(cause, f"up to {PACKETS_PER_SECOND} packets a second")
            yield packet

    def _lost(self, frame: AudioFrame) -> float:
        """Seconds between the frame before and this one that are not there."""
        lasts = frame.samples / frame.sample_rate if frame.sample_rate else 0.0
        at = frame.pts * self._tick if frame.pts is not None else self._expected
        # Files that were joined count anew, some in the ticks of the first
        is_joined, self._rate = frame.sample_rate != self._rate, frame.sample_rate
        gap = 0.0 if at is None or self._expected is None or is_joined else at - self._expected
        self._expected = None if at is None else at + lasts
        failed, self._failed = self._failed, []
        is_paused, self._is_paused = self._is_paused, False
        is_damaged = bool(failed) or (gap > self._least_gap_s and self._gaps_are_damage)
        if not self._seconds or not (is_damaged or is_paused):
            return 0.0  # what stands in front of the first frame is not lost
        self.is_damaged |= is_damaged
        if failed and not is_joined and self._format in RESYNCHRONISING:  # which take several damaged frames for one
            usual = self._decoded_bytes / self._decoded_packets
            frames = sum(max(1, round(size / usual)) for size, _ in failed)
            gap = frames * lasts if frames <= MOST_FRAMES else 0.0
        return min(max(gap, 0.0), LONGEST_GAP_S)

    def _end(self) -> None:
        """What the packets behind the last frame were: the begin of one more, damaged ones, or no audio."""
        if not self._failed:
            return
        size, stated = self._failed[-1]
        if self._format in RESYNCHRONISING:
            self.is_cut |= stated > size
            self.is_damaged |= any(0 < stated <= size for size, stated in self._failed)
            logger.warning(
                "%d bytes of the recording are no audio and were skipped", sum(size for size, _ in self._failed)
            )
        elif len(self._failed) == 1:
            self.is_cut = True
        else:
            self.is_damaged = True
