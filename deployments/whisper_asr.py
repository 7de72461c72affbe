"""Log-Mel → words, as a deployment: the shell around `whisper.recognizer`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ray import serve

from deployments.accelerator import device
from deployments.batching import Batcher
from deployments.deadline import NEVER
from deployments.execution import Timed
from deployments.messages import Mel, Transcript
from deployments.settings import EngineName, RecognizerSettings
from deployments.whisper.ctranslate2_engine import CTranslate2Engine
from deployments.whisper.engine import Engine
from deployments.whisper.openai_engine import OpenAIEngine
from deployments.whisper.recognizer import DIGITAL_SILENCE, WhisperRecognizer


def load_engine(name: EngineName, model: Path, device: str = "cpu", threads: int = 1, batches: int = 1) -> Engine:
    """The engine of that name, with weights in CTranslate2's format, for so many batches at once."""
    if name == "ctranslate2":
        return CTranslate2Engine(model, device, threads=threads, batches=batches)
    return OpenAIEngine(model, device, threads)


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


def served_name(weights: str, engine: EngineName) -> str:
    """Of a recogniser: what it has learnt, and who runs it."""
    return f"{weights} ({engine})"


def _second_of_silence(bands: int) -> Mel:
    return Mel(np.full((bands, 100), DIGITAL_SILENCE, np.float16), DIGITAL_SILENCE, 1.0, "en", "none", None)
