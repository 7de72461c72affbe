"""Payload → log-Mel: what the device compressed, rebuilt (Amser+, IoT-J 2025, equation 5 backwards)."""

from __future__ import annotations

import numpy as np

from amser import codecs
from amser.features import silence_value
from amser.wire import Envelope, Limits, decode_mel
from models.messages import Mel


def reconstruct(envelope: Envelope, limits: Limits) -> Mel:
    """The log-Mel that a device compressed, with the level at which Whisper expects it to be padded.

    Raises:
        amser.wire.WireError: the payload holds impossible values or passes a limit.
    """
    values = decode_mel(envelope, limits)
    return Mel(
        values=values.astype(np.float16),
        silence=silence_value(values),
        seconds=envelope.seconds,
        language=envelope.language,
        codec=envelope.codec,
        rank=codecs.payload_rank(envelope.codec, envelope.payload),
    )
