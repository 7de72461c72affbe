"""`opus`: Opus for speech (RFC 6716) in an Ogg file (RFC 7845): what a modern client sends."""

from __future__ import annotations

from typing import ClassVar, Final

from amser.audio import UnreadableAudio
from amser.features import Float32
from edge_sim.transports.audio_file import AudioFile, bits_per_second, write

BIT_RATES: Final = ("6k", "8k", "12k", "16k", "24k", "32k")
DEFAULT_FRAME_MS: Final = "20"
LONG_FRAME_MS: Final = "60"
LONG: Final = f"-{LONG_FRAME_MS}ms"
# Pages are closed when they are full, at 255 packets: 1.1 bytes a packet. FFmpeg's own page of 1 s makes it 1.5, and
# 2.6 with frames of 60 ms.
LONGEST_PAGE_US: Final = "60000000"

PAGE_HEADER_LENGTH: Final = 27  # bytes, before the table of segments
END_OF_STREAM: Final = 0x04


class Opus(AudioFile):
    """The setting is the mean bit rate, with frames of 20 ms, or of 60 ms: "16k" or "16k-60ms".

    Variable bit rate, mode `voip`, the encoder's default complexity. The high-pass filter of `voip` turns the phase of
    low voices: waveforms correlate at 0.95 with their originals even at 32k, where `audio` has 0.998.
    """

    name: ClassVar[str] = "opus"
    media_type: ClassVar[str] = "audio/ogg"
    settings: ClassVar[tuple[str, ...]] = (*BIT_RATES, *(rate + LONG for rate in BIT_RATES))
    demuxer: ClassVar[str] = "ogg"

    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`."""
        frame_ms = LONG_FRAME_MS if self.setting.endswith(LONG) else DEFAULT_FRAME_MS
        return write(
            waveform,
            "ogg",
            "libopus",
            "flt",
            bit_rate=bits_per_second(self.setting.removesuffix(LONG)),
            encoder_options={"application": "voip", "vbr": "on", "frame_duration": frame_ms},
            muxer_options={"page_duration": LONGEST_PAGE_US},
        )

    def decode(self, payload: bytes) -> Float32:
        """See `AudioTransport.decode`. FFmpeg would read a file that is cut off as a shorter one."""
        if not _is_whole(payload):
            raise UnreadableAudio("the payload is no Ogg file, or is cut off", "an intact file")
        return super().decode(payload)


def _is_whole(payload: bytes) -> bool:
    """Whether the pages follow one another up to the one that ends the stream, and nothing comes after it."""
    position, ended = 0, False
    while not ended:
        header = payload[position : position + PAGE_HEADER_LENGTH]
        if len(header) < PAGE_HEADER_LENGTH or not header.startswith(b"OggS"):
            return False
        flags, segments = header[5], header[26]
        position += PAGE_HEADER_LENGTH
        position += segments + sum(payload[position : position + segments])
        ended = bool(flags & END_OF_STREAM)
    return position == len(payload)
