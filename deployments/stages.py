"""Settings → the stages: which model each one loads, where it is, and by which weights exactly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.fusion_classifier import FusionClassifier
from deployments.mel_reconstruction import MelReconstruction
from deployments.pipeline import Stages, local_stages
from deployments.roberta import Roberta
from deployments.settings import Settings
from deployments.text_embedding import TextEmbedding
from deployments.weights import UnknownModel, fingerprint, model_path
from deployments.whisper_asr import WhisperASR, served_name
from fusion import checkpoint


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model that settings name: where it is, and which weights exactly."""

    name: str
    location: Path | str
    fingerprint: str


def build_local_stages(settings: Settings, gpu: bool = False) -> Stages:
    """All stages in this process. Call it where an event loop runs, as the fused replica does."""
    stages = stage_arguments(settings, gpu)
    return local_stages({name: stage.func_or_class(*arguments) for name, (stage, arguments) in stages.items()})


def stage_arguments(settings: Settings, gpu: bool) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Each stage's deployment and the arguments of its constructor; devices are chosen inside the replicas."""
    models = _resolve_all(settings)
    asr, words, context = models["asr"], models["words"], models["context"]
    encoder = settings.text_encoder
    return {
        "mel_reconstruction": (MelReconstruction, (settings.requests.limits,)),
        "whisper_asr": (WhisperASR, (settings.recognizer, asr.location, asr.name, gpu)),
        "text_embedding": (TextEmbedding, (words.location, words.name)),
        "roberta": (Roberta, (context.location, context.name, gpu, encoder.threads, encoder.batch_size)),
        "fusion_classifier": (
            FusionClassifier,
            (
                settings.fusion_checkpoint,
                {role: model.fingerprint for role, model in models.items()},
                asr.location,
                gpu,
            ),
        ),
    }


def model_names(settings: Settings) -> dict[str, str]:
    """What answers name as their models."""
    recognizer = settings.recognizer
    return {
        "asr": served_name(resolve(recognizer.weights).name, recognizer.engine),
        "words": resolve(settings.word_vectors).name,
        "text_encoder": resolve(settings.text_encoder.model).name,
        "fusion": checkpoint.describe(settings.fusion_checkpoint).name,
    }


def _resolve_all(settings: Settings) -> dict[str, Resolved]:
    return {
        "asr": resolve(settings.recognizer.weights),
        "words": resolve(settings.word_vectors),
        "context": resolve(settings.text_encoder.model),
    }


def resolve(name: str) -> Resolved:
    """A name of the catalogue, a folder, or else a Hugging Face id."""
    try:
        return Resolved(name, model_path(name), fingerprint(name))
    except UnknownModel:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return Resolved(folder.name, folder, _fingerprint_of_folder(folder))
        if "/" not in name:
            raise
    return Resolved(name, name, hashlib.sha256(f"hub:{name}".encode()).hexdigest())


def _fingerprint_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
