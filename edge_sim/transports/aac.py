"""`aac`: AAC-LC by FFmpeg's own encoder, in an M4A file.

Below 24k it is no measure of AAC: HE-AAC, which would be used there, needs an encoder that PyAV does not ship.
"""

from __future__ import annotations

from typing import ClassVar

from amser.features import SAMPLE_RATE, Float32
from edge_sim.transports.audio_file import AudioFile, bits_per_second, write


class Aac(AudioFile):
    """The setting is the mean bit rate: those that the encoder keeps to at 16 kHz, to an eighth. Frames of 64 ms."""

    name: ClassVar[str] = "aac"
    media_type: ClassVar[str] = "audio/mp4"
    settings: ClassVar[tuple[str, ...]] = ("12k", "16k", "24k", "32k", "48k", "64k")
    demuxer: ClassVar[str] = "mov"

    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`. The index costs about 770 bytes and 4 more for each frame."""
        return write(
            waveform,
            "ipod",
            "aac",
            "fltp",
            bit_rate=bits_per_second(self.setting),
            muxer_options={"movie_timescale": str(SAMPLE_RATE)},  # states the length to the sample, not to 1 ms
        )
