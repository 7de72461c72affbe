"""`flac`: 16-bit FLAC, the least that a device sends without losing anything."""

from __future__ import annotations

from typing import ClassVar

from amser.features import Float32
from edge_sim.transports.audio_file import AudioFile, write


class Flac(AudioFile):
    """Keeps every sample to 16 bits. The setting is the compression level, 0 for the least work."""

    name: ClassVar[str] = "flac"
    media_type: ClassVar[str] = "audio/flac"
    settings: ClassVar[tuple[str, ...]] = ("0", "2", "5", "8", "12")
    demuxer: ClassVar[str] = "flac"

    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`."""
        return write(
            waveform,
            "flac",
            "flac",
            "s16",
            encoder_options={"compression_level": self.setting},
            muxer_options={"metadata_header_padding": "0"},  # FFmpeg leaves 8 kB for tags
        )
