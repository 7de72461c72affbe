"""`mp3`: MPEG-2 layer III by LAME, at a constant bit rate."""

from __future__ import annotations

from typing import ClassVar

from amser.features import Float32
from edge_sim.transports.audio_file import AudioFile, bits_per_second, write


class Mp3(AudioFile):
    """The setting is the bit rate: those up to 64k that MPEG-2 has for 16 kHz. Frames of 36 ms."""

    name: ClassVar[str] = "mp3"
    media_type: ClassVar[str] = "audio/mpeg"
    settings: ClassVar[tuple[str, ...]] = ("8k", "16k", "24k", "32k", "40k", "48k", "56k", "64k")
    demuxer: ClassVar[str] = "mp3"

    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`. The first frame, LAME's tag, states delay and length: 180 bytes, up to 32k."""
        return write(
            waveform,
            "mp3",
            "libmp3lame",
            "fltp",
            bit_rate=bits_per_second(self.setting),
            muxer_options={"id3v2_version": "0"},  # no tags
        )
