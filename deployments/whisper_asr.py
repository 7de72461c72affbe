"""Log-Mel → words, as a deployment: the shell around `whisper.recognizer`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import numpy as np
from ray import serve

from deployments.accelerator import device
from deployments.execution import ModelThread, Timed
from deployments.messages import Mel, Transcript
from deployments.whisper.ctranslate2_engine import CTranslate2Engine
from deployments.whisper.engine import Engine
from deployments.whisper.openai_engine import OpenAIEngine
from deployments.whisper.recognizer import DIGITAL_SILENCE, Context, WhisperRecognizer
from deployments.whisper.voice import VoiceEncoder

BATCH_WAIT_S: Final = 0.005
EngineName = Literal["ctranslate2", "openai-whisper"]


def load_engine(name: EngineName, model: Path, device: str = "cpu", threads: int = 1) -> Engine:
    """The engine of that name, with weights in CTranslate2's format."""
    if name == "ctranslate2":
        return CTranslate2Engine(model, device, threads=threads)
    return OpenAIEngine(model, device, threads)


@serve.deployment
class WhisperASR:
    """Utterances that arrive together are decoded together."""

    def __init__(
        self, engine: EngineName, model: Path, name: str, gpu: bool, threads: int, context: Context, batch_size: int
    ) -> None:
        self._device = device(gpu)
        loaded = load_engine(engine, model, self._device, threads)
        voice = VoiceEncoder(model, self._device, threads)
        self._recognizer = WhisperRecognizer(loaded, context, batch_size, voice)
        self._recognizer.transcribe([_second_of_silence(loaded.bands)])
        self._name = f"{name} ({engine})"
        self._thread = ModelThread("whisper")
        self._transcribe_together.set_max_batch_size(batch_size)

    async def transcribe(self, mel: Mel) -> Timed[Transcript]:
        """See `WhisperRecognizer.transcribe`."""
        answer: Timed[Transcript] = await self._transcribe_together(mel)
        return answer

    @serve.batch(max_batch_size=4, batch_wait_timeout_s=BATCH_WAIT_S)  # type: ignore[untyped-decorator]
    async def _transcribe_together(self, mels: list[Mel]) -> list[Timed[Transcript]]:
        answer = await self._thread.run(self._recognizer.transcribe, mels)
        return [Timed(transcript, answer.compute_ms) for transcript in answer.value]

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._name, "device": self._device}


def _second_of_silence(bands: int) -> Mel:
    return Mel(np.full((bands, 100), DIGITAL_SILENCE, np.float16), DIGITAL_SILENCE, 1.0, "en", "none", None)
