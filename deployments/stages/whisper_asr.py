"""Log-Mel → words, as a deployment: the shell around `whisper.recognizer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ray import serve

from deployments.replica.batching import Batcher
from deployments.replica.calls import RemoteStage
from deployments.replica.deadline import NEVER
from deployments.replica.execution import Timed
from deployments.replica.health import HealthLimits
from deployments.replica.weights import on_this_node
from deployments.settings import RecognizerSettings
from models.device import device
from models.messages import Mel, Transcript
from models.resolve import Wanted
from models.sample import SECOND, sample_mel
from models.whisper.engine import CONTEXT_FRAMES
from models.whisper.engines import load_engine
from models.whisper.recognizer import Heard, WhisperRecognizer
from models.whisper.served import served_by


@dataclass(frozen=True, slots=True)
class _Pass:
    """Attributes:
    mel: of the utterance.
    frames: that are encoded.
    first: what the first pass heard; None for the first.
    """

    mel: Mel
    frames: int
    first: Heard | None = None


@serve.deployment
class WhisperASR(RemoteStage):
    """Utterances that wait together are decoded together, those of like length first.

    A second pass waits anew and is decoded alone: nobody waits for another one's.
    """

    def __init__(
        self,
        settings: RecognizerSettings,
        model: Wanted,
        name: str,
        gpu: bool,
        health: HealthLimits | None = None,
    ) -> None:
        self._device = device(gpu)
        batches = settings.batches + (settings.express_frames is not None)
        engine, weights = served_by(settings.engine, gpu), Path(on_this_node(model))
        loaded = load_engine(engine, weights, self._device, settings.threads, batches)
        on_gpu = self._device == "cuda"  # False too where Ray gave a GPU that CUDA does not see
        batch_size = settings.gpu_batch_size if on_gpu else settings.batch_size
        batch_frames = settings.gpu_batch_frames if on_gpu else settings.batch_frames
        self._recognizer = recognizer = WhisperRecognizer(loaded, settings.context, batch_size)
        recognizer.transcribe([sample_mel(loaded.bands)])
        if on_gpu:  # a whole batch, so that a card too small for it is known before clients are
            frames = min(batch_frames // batch_size, CONTEXT_FRAMES)
            recognizer.transcribe([sample_mel(loaded.bands, max(SECOND, frames))] * batch_size)
        self._name = name
        self._batcher = Batcher(
            "asr",
            self._heard,
            batch_size=batch_size,
            budget=batch_frames,
            size=lambda each: each.frames,
            counts=lambda each: each.first is None,
            alone=lambda each: each.first is not None,
            threads=settings.batches,
            express=settings.express_frames,
            limits=health,
        )

    async def transcribe(self, mel: Mel, deadline: float = NEVER) -> Timed[Transcript]:
        """See `WhisperRecognizer.transcribe`."""
        first = await self._batcher.submit(_Pass(mel, mel.frames), deadline)
        heard, compute_ms = first.value, first.compute_ms
        if self._recognizer.is_doubtful(heard):
            frames = self._recognizer.second_frames(mel)
            second = await self._batcher.submit(_Pass(mel, frames, heard), deadline)
            heard, compute_ms = second.value, compute_ms + second.compute_ms
        return Timed(self._recognizer.transcript(heard), compute_ms)

    def _heard(self, passes: Sequence[_Pass]) -> list[Heard]:
        first = passes[0].first
        if first is not None:
            return [self._recognizer.second_pass(passes[0].mel, first)]
        return self._recognizer.first_pass([each.mel for each in passes])

    async def check_health(self) -> None:
        """See `Health.check`; Ray asks for it."""
        self._batcher.health.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._batcher.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._name, "device": self._device}
