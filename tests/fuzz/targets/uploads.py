"""Audio files through the gateway's workers, which may die of nothing either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from amser.features import AudioError
from deployments.gateway.uploads.decoding import DecoderCrashed, Decoders
from deployments.settings import DecodingSettings
from tests.fuzz.targets.audio import MAX_FRAMES, TOKENS, check, files
from tests.fuzz.targets.base import Target


class Uploads(Target):
    """As the gateway decodes them, one at a time."""

    name: ClassVar[str] = "uploads"
    tokens: ClassVar[tuple[bytes, ...]] = TOKENS
    slowest_s: ClassVar[float] = 12.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._decoders = Decoders(DecodingSettings(workers=1), MAX_FRAMES)

    def seeds(self) -> list[bytes]:
        return list(files())

    def accepts(self, data: bytes) -> bool:
        try:
            heard = self._decoders._decode(data)
        except DecoderCrashed as error:
            raise AssertionError("a worker died of this file") from error
        except AudioError as error:
            json.dumps([error.cause, error.limit]).encode()  # goes into a problem document
            return False
        check(heard)
        return True

    def close(self) -> None:
        self._decoders.close()
