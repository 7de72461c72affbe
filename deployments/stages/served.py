"""Settings → what is served: which models, where they are, and by which weights exactly. It loads none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments.settings import Settings
from models.emotion import checkpoint_info
from models.resolve import Wanted, portable, resolve, wanted
from models.weights import adapted_from
from models.whisper.served import served_name
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


def model_names(settings: Settings, gpu: bool = False) -> dict[str, str]:
    """The models that answers name, by role: the keys of `stage_arguments` but for `mel`, which has no model."""
    recognizer = settings.recognizer
    return {
        "asr": served_name(resolve(recognizer.weights).name, recognizer.engine, gpu),
        "text_embedding": resolve(settings.word_vectors).name,
        "text_encoder": resolve(settings.text_encoder.model).name,
        "fusion": checkpoint_info.describe(settings.fusion_checkpoint).name,
    }


def emotion_classes(settings: Settings) -> tuple[str, ...]:
    """The classes that the emotion network tells apart, in its order."""
    return checkpoint_info.describe(settings.fusion_checkpoint).config.classes


def spoken_languages(settings: Settings) -> frozenset[str]:
    """Codes of the languages that the recogniser's model decodes."""
    return languages(Path(resolve(settings.recognizer.weights).location))
