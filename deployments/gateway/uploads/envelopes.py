"""Speech of clients without the codec → an envelope, as a device would have sent it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Final

from amser import codecs, wire
from amser.features import FRAMES_PER_SECOND, SAMPLE_RATE, Float32, log_mel

DEVICE_ID: Final = "audio-upload"


def envelope_of(waveform: Float32, language: str | None, max_frames: int) -> wire.Envelope:
    """What a device makes of a waveform. It computes: call it beside the event loop.

    Args:
        waveform: shape (samples,), of `amser.audio.decode`.
        language: that the speaker is known to speak.
        max_frames: of log-Mel, 10 ms each.

    Raises:
        amser.features.AudioError: too short, or not finite.
    """
    mel = log_mel(waveform)[:, :max_frames]
    encoded = codecs.encode(mel, "mel-f16")
    return wire.Envelope(
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
