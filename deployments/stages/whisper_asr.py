"""Log-Mel → words, as a deployment: the shell around `whisper.recognizer`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ray import serve

from deployments.replica.batching import Batcher
from deployments.replica.deadline import NEVER
from deployments.replica.execution import Timed
from deployments.settings import RecognizerSettings
from models.device import device
from models.messages import Mel, Transcript
from models.whisper.engines import load_engine, served_name
from models.whisper.fill import DIGITAL_SILENCE
from models.whisper.recognizer import WhisperRecognizer


@serve.deployment
class WhisperASR:
    """Utterances that wait together are decoded together, those of like length first."""

    def __init__(self, settings: RecognizerSettings, model: Path, name: str, gpu: bool) -> None:
        self._device = device(gpu)
        loaded = load_engine(settings.engine, model, self._device, settings.threads, settings.batches)
        batch_size = settings.gpu_batch_size if gpu else settings.batch_size
        recognizer = WhisperRecognizer(loaded, settings.context, batch_size)
        recognizer.transcribe([_second_of_silence(loaded.bands)])
        self._name = served_name(name, settings.engine)
        self._batcher = Batcher(
            "whisper",
            recognizer.transcribe,
            batch_size=batch_size,
            budget=settings.batch_frames,
            size=lambda mel: mel.frames,
            threads=settings.batches,
        )

    async def transcribe(self, mel: Mel, deadline: float = NEVER) -> Timed[Transcript]:
        """See `WhisperRecognizer.transcribe`."""
        return await self._batcher.submit(mel, deadline)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._batcher.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._name, "device": self._device}


def _second_of_silence(bands: int) -> Mel:
    return Mel(np.full((bands, 100), DIGITAL_SILENCE, np.float16), DIGITAL_SILENCE, 1.0, "en", "none", None)
