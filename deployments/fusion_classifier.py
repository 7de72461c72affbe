"""Voice and words → emotion: the last stage, around the network in `fusion`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from ray import serve

from deployments.accelerator import device
from deployments.execution import ModelThread, Timed
from deployments.messages import Emotion, Mel, TextFeatures, Transcript
from fusion import checkpoint
from fusion.amser_states import StateBranch
from fusion.batch import UtteranceFeatures, collate, voice_alone
from fusion.network import FusionNetwork


class EmotionClassifier:
    """A trained fusion network.

    Args:
        path: its checkpoint.
        encoders: fingerprint of the weights behind each kind of feature; one that differs from those of the training
            is refused, since the network would answer nonsense with confidence.
        device: `cpu` or `cuda`.

    Raises:
        fusion.checkpoint.EncoderMismatch, fusion.checkpoint.CheckpointError, FileNotFoundError.
    """

    def __init__(self, path: Path, encoders: Mapping[str, str] | None, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        network, self.info = checkpoint.load(path, encoders)
        if device == "cpu" and has_bfloat16():
            narrow(network)
        self._network = network.to(device)
        self._device = device

    @torch.inference_mode()
    def classify(self, mel: Mel, transcript: Transcript, words: TextFeatures, context: TextFeatures) -> Emotion:
        """The calibrated probabilities of the classes; they sum to one.

        Words of a language that the network has not learnt are left out, and the answer says so.
        """
        features = UtteranceFeatures(mel.values, words.values, context.values, transcript.encoder_states)
        foreign = bool(transcript.text) and transcript.language not in self.info.text_languages
        if foreign:
            features = voice_alone(features)
        logits = self._network(collate([features]).to(self._device)).logits[0]
        probabilities = torch.softmax(logits.double() / self.info.temperature, dim=0).cpu().numpy()
        classes = self.info.config.classes
        return Emotion(
            label=classes[int(np.argmax(probabilities))],
            probabilities={name: float(value) for name, value in zip(classes, probabilities, strict=True)},
            left_out=("text",) if foreign else (),
        )


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 itself, several times faster than in float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def narrow(network: FusionNetwork) -> None:
    """Let the layers on the encoder states compute in bfloat16; a probability moves by less than 0.02."""
    for part in network.modules():
        if isinstance(part, StateBranch):
            part.narrow_layers(torch.bfloat16)


@serve.deployment
class FusionClassifier:
    """The shell around `EmotionClassifier`."""

    def __init__(self, path: Path, encoders: Mapping[str, str], gpu: bool) -> None:
        self._device = device(gpu)
        self._classifier = EmotionClassifier(path, encoders, self._device)
        self._thread = ModelThread("fusion")

    async def classify(
        self, mel: Mel, transcript: Transcript, words: TextFeatures, context: TextFeatures
    ) -> Timed[Emotion]:
        """See `EmotionClassifier.classify`."""
        return await self._thread.run(self._classifier.classify, mel, transcript, words, context)

    async def describe(self) -> dict[str, str]:
        """Name and device of what runs here; also the sign that it runs."""
        return {"model": self._classifier.info.name, "device": self._device}
