"""What a checkpoint says about its network, read without torch and without the weights: a gateway needs no more."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

from safetensors import SafetensorError, safe_open

from models.emotion.config import FusionConfig

FORMAT = "amser/2"
SURE_FROM: Final = 0.6  # confidence from which a label may be acted upon, where the checkpoint does not say
Evidence = Literal["voice", "text", "voice+text"]
"""What an answer was read from."""
DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "amser-states.safetensors"


class CheckpointError(ValueError):
    """The file is not a checkpoint of this network."""


class EncoderMismatch(CheckpointError):  # noqa: N818 - an error by its base class
    """The checkpoint was trained with the features of other encoders."""


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What is known about a trained network.

    Attributes:
        name: of the checkpoint, as answers give it.
        config: sizes and classes.
        encoders: fingerprint of the weights of each encoder behind the features: `asr`, `words`, `context`.
        codecs: codec settings that training drew from, such as `svd-f16:0.125`.
        corpora: names of the corpora it learnt from.
        metrics: measured figures, by name.
        created: ISO 8601, UTC.
        licence: terms of the data it learnt from, corpus by corpus.
        temperature: what logits are divided by, so that probabilities are as often right as they say (Guo et al.,
            ICML 2017).
        temperatures: the same by what was read, keys of `Evidence`; `temperature` holds for a missing one.
        sure_from: by what was read, the lowest confidence from which the label may be acted upon; `SURE_FROM` holds for
            a missing one.
        voice_languages: ISO 639-1 codes of the speech that the voice was taught and calibrated on. Empty where that is
            not known: then no language makes an answer doubtful.
        text_languages: ISO 639-1 codes of the languages that its text has learnt; of others only the voice is used.

    Raises:
        ValueError: calibration for something else than `Evidence`, or a temperature that is not above 0.
    """

    name: str
    config: FusionConfig
    encoders: dict[str, str]
    codecs: tuple[str, ...]
    corpora: tuple[str, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    created: str = ""
    licence: str = ""
    temperature: float = 1.0
    temperatures: dict[str, float] = field(default_factory=dict)
    sure_from: dict[str, float] = field(default_factory=dict)
    voice_languages: tuple[str, ...] = ()
    text_languages: tuple[str, ...] = ("en",)

    def __post_init__(self) -> None:
        unknown = (self.temperatures.keys() | self.sure_from.keys()) - set(get_args(Evidence))
        if unknown:
            known = ", ".join(get_args(Evidence))
            raise ValueError(f"it is calibrated for {', '.join(sorted(unknown))}; known: {known}")
        if any(not temperature > 0 for temperature in (self.temperature, *self.temperatures.values())):
            raise ValueError("a temperature is not above 0")

    def temperature_for(self, evidence: Evidence) -> float:
        """The temperature of answers that were read from this."""
        return self.temperatures.get(evidence, self.temperature)

    def sure_from_for(self, evidence: Evidence) -> float:
        """The lowest confidence of such an answer from which its label may be acted upon."""
        return self.sure_from.get(evidence, SURE_FROM)


def describe(path: Path = DEFAULT_CHECKPOINT) -> CheckpointInfo:
    """What is known about a trained network; raises FileNotFoundError, CheckpointError."""
    if not path.is_file():
        raise FileNotFoundError(f"no fusion checkpoint at {path}; `python -m training.train --final` writes one")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format {metadata.get('format')!r}, expected {FORMAT!r}")
        return _info(json.loads(metadata["info"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of Amser: {error}") from error


def _info(content: dict[str, Any]) -> CheckpointInfo:
    known = {entry.name for entry in fields(FusionConfig)}
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content["config"].items()
        if name in known
    }
    typed: dict[str, Any] = {
        "config": FusionConfig(**sizes),
        "codecs": tuple(content["codecs"]),
        "corpora": tuple(content["corpora"]),
        "text_languages": tuple(content.get("text_languages", ("en",))),
        "voice_languages": tuple(content.get("voice_languages", ())),
    }
    return CheckpointInfo(**{**content, **typed})
