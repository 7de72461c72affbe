"""Settings → the stages: which model each one loads, where it is, and by which weights exactly."""

from __future__ import annotations

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
from models.resolve import resolve
from models.weights import adapted_from
from models.whisper.engines import served_name
from models.whisper.vocabulary import languages


def build_local_stages(settings: Settings, gpu: bool = False) -> Stages:
    """All stages in this process. Call it where an event loop runs, as the fused replica does."""
    stages = stage_arguments(settings, gpu)
    return local_stages({name: stage.func_or_class(*arguments) for name, (stage, arguments) in stages.items()})


def stage_arguments(settings: Settings, gpu: bool) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Each stage's deployment and the arguments of its constructor; devices are chosen inside the replicas.

    Raises:
        models.emotion.prior.PriorError: the prior does not fit the classes of the network.
    """
    asr, words, context = (
        resolve(name) for name in (settings.recognizer.weights, settings.word_vectors, settings.text_encoder.model)
    )
    voice = resolve(adapted_from(settings.recognizer.weights))  # the emotion network has learnt from its states
    encoders = {"asr": voice.fingerprint, "words": words.fingerprint, "context": context.fingerprint}
    health = settings.health.limits
    return {
        "mel": (MelReconstruction, (settings.requests.limits, health)),
        "asr": (WhisperASR, (settings.recognizer, asr.location, asr.name, gpu, health)),
        "text_embedding": (TextEmbedding, (words.location, words.name, health)),
        "text_encoder": (Roberta, (context.location, context.name, gpu, settings.text_encoder, health)),
        "fusion": (
            FusionClassifier,
            (
                settings.fusion_checkpoint,
                encoders,
                voice.location,
                gpu,
                prior.shares(settings.emotion_prior, emotion_classes(settings)),
                health,
            ),
        ),
    }


def model_names(settings: Settings) -> dict[str, str]:
    """The models that answers name, by role: the keys of `stage_arguments` but for `mel`, which has no model."""
    recognizer = settings.recognizer
    return {
        "asr": served_name(resolve(recognizer.weights).name, recognizer.engine),
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
