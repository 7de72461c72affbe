"""Audio files of clients without the codec → an envelope, as a device would have sent it."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime
from typing import Final

from amser import codecs, wire
from amser.audio import decode
from amser.features import FRAMES_PER_SECOND, SAMPLE_RATE, log_mel

DEVICE_ID: Final = "audio-upload"


def envelope_of(content: bytes, language: str | None, max_frames: int) -> tuple[wire.Envelope, str]:
    """The speech in an audio file, and the name of its format. It computes: call it beside the event loop.

    Args:
        content: a whole file of one of `amser.audio.DEMUXERS`.
        language: that the speaker is known to speak.
        max_frames: of log-Mel, 10 ms each.

    Raises:
        amser.features.AudioError, amser.wire.WireError: as their names say.
    """
    waveform, name = decode(io.BytesIO(content), max_frames)
    mel = log_mel(waveform)[:, :max_frames]
    encoded = codecs.encode(mel, "mel-f16")
    envelope = wire.Envelope(
        codec=encoded.codec,
        profile="whisper80",
        frames=mel.shape[1],
        seconds=min(len(waveform) / SAMPLE_RATE, mel.shape[1] / FRAMES_PER_SECOND),
        language=language,
        device_id=DEVICE_ID,
        utterance_id=uuid.uuid4(),
        captured_at=datetime.now(UTC),
        payload=encoded.payload,
    )
    return envelope, name
