"""Log-Mel through a codec of `amser.codecs`, in the envelope of `amser.wire`: what the AMSER papers propose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final
from uuid import uuid4

from amser import codecs
from amser.client.frontend import DEFAULT_FRONTEND, log_mel
from amser.features import SAMPLE_RATE, Float32
from amser.wire import MEDIA_TYPE, Envelope, decode_mel, pack, unpack
from edge_sim.transports.base import ROUTE_OF_FEATURES, UnknownSetting, UnknownTransport

RATES: Final = ("0.05", "0.0625", "0.125", "0.1875", "0.25", "0.5")
WHOLE: Final = "16-bit"  # of mel-f16, which has no setting
# Of each codec, from the coarsest to the finest
SETTINGS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "svd-f16": RATES,
        "svd-i8": RATES,
        "interpolation": ("8x4", "4x4", "4x2", "2x2", "2x1"),
        "klt": ("38", "34", "low", "27", "standard", "robust", "10"),
        "mel-f16": (WHOLE,),
    }
)


class Features:
    """A transport that sends a compressed log-Mel, `whisper80`.

    Args:
        codec: a name in `SETTINGS`, which is also the transport's.
        setting: one of `SETTINGS[codec]`: r / k of an SVD, cells of an interpolation, a step of `klt`.
        device_id: what the envelope names as the sender.

    Raises:
        UnknownTransport, UnknownSetting: as named.
    """

    media_type: Final = MEDIA_TYPE
    route: Final = ROUTE_OF_FEATURES
    frontend: Final = DEFAULT_FRONTEND

    def __init__(self, codec: str, setting: str, device_id: str = "device-1") -> None:
        if codec not in SETTINGS:
            raise UnknownTransport(f"no features are sent by {codec!r}", ", ".join(SETTINGS))
        if setting not in SETTINGS[codec]:
            raise UnknownSetting(f"{codec} has no setting {setting!r}", ", ".join(SETTINGS[codec]))
        self.name = codec
        self.setting = setting
        self._options = codecs.parse(codec if setting == WHOLE else f"{codec}:{setting}")[1]
        self._device_id = device_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.setting!r})"

    def encode(self, waveform: Float32) -> bytes:
        """See `Transport.encode`. The envelope carries a new utterance id and the time, so no two are the same."""
        mel = log_mel(waveform, frontend=self.frontend)
        encoded = codecs.encode(mel, self.name, **asdict(self._options))
        envelope = Envelope(
            codec=encoded.codec,
            profile="whisper80",
            frames=mel.shape[1],
            seconds=waveform.size / SAMPLE_RATE,
            language=None,
            device_id=self._device_id,
            utterance_id=uuid4(),
            captured_at=datetime.now(UTC),
            payload=encoded.payload,
        )
        return pack(envelope)

    def as_log_mel(self, payload: bytes) -> Float32:
        """See `Transport.as_log_mel`. Raises amser.wire.WireError for what the cluster refuses."""
        return decode_mel(unpack(payload))

    def elementary_bytes(self, payload: bytes) -> int:
        """Bytes of the codec's payload, without the envelope."""
        return len(unpack(payload).payload)
