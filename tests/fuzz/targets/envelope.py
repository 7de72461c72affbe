"""Envelopes: `wire.unpack`, every codec's decoding, and what the cluster and a device's spool do with them."""

from __future__ import annotations

import functools
import struct
from contextlib import suppress
from typing import ClassVar, Final

import google_crc32c
import numpy as np
from recordings import envelope_of, silence, speakers, waveform_of

from amser import codecs, wire
from models.mel import reconstruct
from tests.fuzz.targets.base import Target

LIMITS: Final = wire.Limits()
DEVICE_ID_LENGTH_AT: Final = 19  # docs/wire.md
PAYLOAD_LENGTH_AT: Final = 44
HEADER: Final = 48


def repaired(data: bytes) -> bytes:
    """The same bytes with lengths and checksum to match, so that what lies behind them is read."""
    body = bytearray(data[:-4])
    if len(body) >= HEADER:
        body[DEVICE_ID_LENGTH_AT] = min(body[DEVICE_ID_LENGTH_AT], len(body) - HEADER, 255)
        struct.pack_into("<I", body, PAYLOAD_LENGTH_AT, len(body) - HEADER - body[DEVICE_ID_LENGTH_AT])
    return bytes(body) + struct.pack("<I", google_crc32c.value(bytes(body)))


@functools.cache
def envelopes() -> tuple[bytes, ...]:
    """Real speech in every codec and profile, and silence."""
    speech = waveform_of(speakers(1)[0]["path"])[: 16_000 // 2]
    made = [
        envelope_of(speech, codec, language, profile=profile)
        for codec in codecs.CODECS
        for language, profile in (("en", "whisper80"), (None, "paper"))
    ]
    made += [envelope_of(silence(0.3), codec) for codec in codecs.CODECS]
    made += [envelope_of(speech, "klt", step=step) for step in ("low", "high", 0) if step in (0, "low")]
    return tuple(wire.pack(each) for each in made)


class Envelopes(Target):
    """Each input is read as it is, and once more with lengths and checksum to match."""

    name: ClassVar[str] = "envelope"
    tokens: ClassVar[tuple[bytes, ...]] = (wire.MAGIC, b"en\0", b"device", struct.pack("<f", float("nan")))

    def seeds(self) -> list[bytes]:
        return list(envelopes())

    def accepts(self, data: bytes) -> bool:
        return any([_read(each) for each in (data, repaired(data))])


def _read(data: bytes) -> bool:
    try:
        envelope = wire.unpack(data, LIMITS)
    except wire.WireError:
        return False
    assert wire.pack(envelope) == data, "what is unpacked does not pack to the same bytes"
    with suppress(codecs.CodecError):
        codecs.payload_step(envelope.codec, envelope.payload)
    try:
        log_mel = wire.decode_mel(envelope, LIMITS)
    except wire.WireError:
        return False
    assert log_mel.shape == (envelope.bands, envelope.frames), f"a log-Mel of shape {log_mel.shape}"
    assert log_mel.dtype == np.float32
    assert np.isfinite(log_mel).all(), "a log-Mel that is not finite was accepted"
    mel = reconstruct(envelope, LIMITS)
    assert np.isfinite(mel.values).all(), "the cluster's half precision is not finite"
    return True
