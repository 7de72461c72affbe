"""`pcm`: 16-bit PCM in a WAV file. What a device sends that compresses nothing."""

from __future__ import annotations

from typing import ClassVar, Final

from amser.audio import UnreadableAudio
from amser.features import Float32
from edge_sim.transports.audio_file import AudioFile, write

RIFF_HEADER_LENGTH: Final = 8  # bytes: "RIFF" and how many follow


class Pcm(AudioFile):
    """256 kbit/s; keeps every sample to 16 bits."""

    name: ClassVar[str] = "pcm"
    media_type: ClassVar[str] = "audio/wav"
    settings: ClassVar[tuple[str, ...]] = ("16-bit",)
    demuxer: ClassVar[str] = "wav"

    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`."""
        return write(waveform, "wav", "pcm_s16le", "s16")

    def decode(self, payload: bytes) -> Float32:
        """See `AudioTransport.decode`. FFmpeg would read a file that is cut off as a shorter one."""
        stated = RIFF_HEADER_LENGTH + int.from_bytes(payload[4:RIFF_HEADER_LENGTH], "little")
        if len(payload) != stated:
            raise UnreadableAudio(f"the WAV file has {len(payload)} bytes", f"the {stated} that its header announces")
        return super().decode(payload)
