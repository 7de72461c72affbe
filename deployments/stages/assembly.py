"""Settings → the stages, with the arguments of each one's constructor."""

from __future__ import annotations

from typing import Any

from deployments.pipeline import Stages, local_stages
from deployments.settings import Settings
from deployments.stages.fusion_classifier import FusionClassifier
from deployments.stages.mel_reconstruction import MelReconstruction
from deployments.stages.roberta import Roberta
from deployments.stages.served import Models, models_of
from deployments.stages.text_embedding import TextEmbedding
from deployments.stages.whisper_asr import WhisperASR
from models.emotion import prior


def build_local_stages(settings: Settings, gpu: bool = False, models: Models | None = None) -> Stages:
    """All stages in this process. Call it where an event loop runs, as the fused replica does."""
    stages = stage_arguments(settings, gpu, models)
    members = {name: stage.func_or_class(*arguments) for name, (stage, arguments) in stages.items()}
    return local_stages(members, cores=0.0 if gpu else settings.recognizer.cores)


def stage_arguments(
    settings: Settings, gpu: bool, models: Models | None = None
) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Each stage's deployment and the arguments of its constructor.

    Devices are chosen and weights are looked for inside the replicas, which may be on other nodes.

    Args:
        settings: of the application.
        gpu: whether replicas are given shares of one.
        models: that the application was built with; None takes those that this node has.

    Raises:
        models.emotion.prior.PriorError: the prior does not fit the classes of the network.
        models.weights.WeightsMissing: `models` is None, and one is not here.
    """
    models = models or models_of(settings, gpu)
    weights, names = models.weights, models.names
    encoders = {"asr": weights["voice"], "words": weights["words"], "context": weights["context"]}
    fingerprints = {role: model.fingerprint for role, model in encoders.items()}
    shares = prior.shares(settings.emotion_prior, models.emotions)
    health = settings.health.limits
    text_encoder = (weights["context"], names["text_encoder"], gpu, settings.text_encoder, health)
    fusion = (weights["fusion"], fingerprints, weights["voice"], gpu, shares, health)
    return {
        "mel": (MelReconstruction, (settings.requests.limits, health)),
        "asr": (WhisperASR, (settings.recognizer, weights["asr"], names["asr"], gpu, health)),
        "text_embedding": (TextEmbedding, (weights["words"], names["text_embedding"], health)),
        "text_encoder": (Roberta, text_encoder),
        "fusion": (FusionClassifier, fusion),
    }
