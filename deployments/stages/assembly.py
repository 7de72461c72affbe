"""Settings → the stages: which model each one loads, where it is, and by which weights exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.pipeline import Stages, local_stages
from deployments.settings import Settings
from deployments.stages.fusion_classifier import FusionClassifier
from deployments.stages.mel_reconstruction import MelReconstruction
from deployments.stages.roberta import Roberta
from deployments.stages.text_embedding import TextEmbedding
from deployments.stages.whisper_asr import WhisperASR
from models.emotion import checkpoint, prior
from models.resolve import Wanted, portable, resolve, wanted
from models.weights import adapted_from
from models.whisper.engines import served_name
from models.whisper.vocabulary import languages


@dataclass(frozen=True, slots=True)
class Models:
    """What an application was built with, on the node that built it: every replica finds the same, or does not start.

    Attributes:
        weights: of each network, by role.
        names: that answers give the models, by role.
        languages: codes of those that the recogniser decodes.
        emotions: classes that the emotion network tells apart, in its order.
    """

    weights: Mapping[str, Wanted]
    names: Mapping[str, str]
    languages: frozenset[str]
    emotions: tuple[str, ...]


def models_of(settings: Settings, gpu: bool = False) -> Models:
    """What these settings name, as this node has it; `gpu` says whether replicas are given shares of one.

    Raises:
        models.weights.WeightsMissing: a model is not on this machine; the text has the command that brings it.
    """
    weights = {
        "asr": settings.recognizer.weights,
        "voice": adapted_from(settings.recognizer.weights),  # the emotion network has learnt from its states
        "words": settings.word_vectors,
        "context": settings.text_encoder.model,
        "fusion": portable(settings.fusion_checkpoint),
    }
    return Models(
        {role: wanted(name) for role, name in weights.items()},
        model_names(settings, gpu),
        spoken_languages(settings),
        emotion_classes(settings),
    )


def build_local_stages(settings: Settings, gpu: bool = False, models: Models | None = None) -> Stages:
    """All stages in this process. Call it where an event loop runs, as the fused replica does."""
    stages = stage_arguments(settings, gpu, models)
    return local_stages({name: stage.func_or_class(*arguments) for name, (stage, arguments) in stages.items()})


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


def model_names(settings: Settings, gpu: bool = False) -> dict[str, str]:
    """The models that answers name, by role: the keys of `stage_arguments` but for `mel`, which has no model."""
    recognizer = settings.recognizer
    return {
        "asr": served_name(resolve(recognizer.weights).name, recognizer.engine, gpu),
        "text_embedding": resolve(settings.word_vectors).name,
        "text_encoder": resolve(settings.text_encoder.model).name,
        "fusion": checkpoint.describe(settings.fusion_checkpoint).name,
    }


def emotion_classes(settings: Settings) -> tuple[str, ...]:
    """The classes that the emotion network tells apart, in its order."""
    return checkpoint.describe(settings.fusion_checkpoint).config.classes


def spoken_languages(settings: Settings) -> frozenset[str]:
    """Codes of the languages that the recogniser's model decodes."""
    return languages(Path(resolve(settings.recognizer.weights).location))
