"""Payload → log-Mel: what the device compressed, rebuilt (Amser+, IoT-J 2025, equation 5 backwards)."""

from __future__ import annotations

import numpy as np

from amser import codecs
from amser.features import Float32, silence_value
from amser.wire import Envelope, Limits, decode_mel
from models.messages import Mel


def reconstruct(envelope: Envelope, limits: Limits) -> Mel:
    """The log-Mel that a device compressed, with the level at which Whisper expects it to be padded.

    Raises:
        amser.wire.WireError: the payload holds impossible values or passes a limit.
    """
    return mel_of(envelope, decode_mel(envelope, limits))


def mel_of(envelope: Envelope, values: Float32) -> Mel:
    """The same for an envelope whose log-Mel, float32 of shape (bands, frames), was decoded while it came."""
    return Mel(
        values=values.astype(np.float16),
        silence=silence_value(values),
        seconds=envelope.seconds,
        language=envelope.language,
        codec=envelope.codec,
        rank=codecs.payload_rank(envelope.codec, envelope.payload),
    )
