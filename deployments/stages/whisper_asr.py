"""Log-Mel → words, as a deployment: the shell around `whisper.recognizer`."""

from __future__ import annotations

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
from models.whisper.recognizer import WhisperRecognizer


@serve.deployment
class WhisperASR(RemoteStage):
    """Utterances that wait together are decoded together, those of like length first."""

    def __init__(
        self,
        settings: RecognizerSettings,
        model: Wanted,
        name: str,
        gpu: bool,
        health: HealthLimits | None = None,
    ) -> None:
        self._device = device(gpu)
        loaded = load_engine(
            settings.engine, Path(on_this_node(model)), self._device, settings.threads, settings.batches + 1
        )
        on_gpu = self._device == "cuda"  # False too where Ray gave a GPU that CUDA does not see
        batch_size = settings.gpu_batch_size if on_gpu else settings.batch_size
        batch_frames = settings.gpu_batch_frames if on_gpu else settings.batch_frames
        recognizer = WhisperRecognizer(loaded, settings.context, batch_size)
        recognizer.transcribe([sample_mel(loaded.bands)])
        if on_gpu:  # a whole batch, so that a card too small for it is known before clients are
            frames = min(batch_frames // batch_size, CONTEXT_FRAMES)
            recognizer.transcribe([sample_mel(loaded.bands, max(SECOND, frames))] * batch_size)
        self._name = name
        self._batcher = Batcher(
            "asr",
            recognizer.transcribe,
            batch_size=batch_size,
            budget=batch_frames,
            size=lambda mel: mel.frames,
            threads=settings.batches,
            express=settings.express_frames,
            limits=health,
        )

    async def transcribe(self, mel: Mel, deadline: float = NEVER) -> Timed[Transcript]:
        """See `WhisperRecognizer.transcribe`."""
        return await self._batcher.submit(mel, deadline)

    async def check_health(self) -> None:
        """See `Health.check`; Ray asks for it."""
        self._batcher.health.check()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """See `Work`; Ray asks for it."""
        return self._batcher.work.counts

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._name, "device": self._device}
