"""A trained network as one safetensors file: weights, sizes, what it was trained on and which encoders it expects.

The format cannot carry code. A network is only valid with features of the encoders that it was trained with, so a
checkpoint names their weights by fingerprint, and loading it beside other encoders is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork
from models.emotion.registry import build

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


def save(path: Path, network: FusionNetwork, info: CheckpointInfo) -> None:
    """Write a checkpoint, atomically; matrices in half precision, which changes a probability by less than 0.001."""
    tensors = {name: _stored(tensor) for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata={"format": FORMAT, "info": json.dumps(asdict(info))})
    partial.chmod(0o644)  # safetensors writes for the owner alone; a server may be another user
    partial.replace(path)


def load(
    path: Path = DEFAULT_CHECKPOINT, expected_fingerprints: Mapping[str, str] | None = None
) -> tuple[FusionNetwork, CheckpointInfo]:
    """Read a checkpoint.

    Args:
        path: the file.
        expected_fingerprints: fingerprint of each encoder that is about to be used; None trusts the caller.

    Returns:
        The network in evaluation mode, on the CPU, and what is known about it.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is not a checkpoint of this network.
        EncoderMismatch: an encoder differs from the one it was trained with, or is not among the expected ones.
    """
    info, tensors = _read(path, with_tensors=True)
    if expected_fingerprints is not None:
        _require_encoders(path, info.encoders, expected_fingerprints)
    try:
        network = build(info.config)
        network.load_state_dict(tensors)  # which widens them again
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return network.eval(), info


def describe(path: Path = DEFAULT_CHECKPOINT) -> CheckpointInfo:
    """What is known about a trained network, without its weights; raises FileNotFoundError, CheckpointError."""
    return _read(path, with_tensors=False)[0]


def _read(path: Path, with_tensors: bool) -> tuple[CheckpointInfo, dict[str, Tensor]]:
    if not path.is_file():
        raise FileNotFoundError(f"no fusion checkpoint at {path}; `python -m training.train --final` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"format {metadata.get('format')!r}, expected {FORMAT!r}")
            info = _info(json.loads(metadata["info"]))
            return info, {name: file.get_tensor(name) for name in file.keys() if with_tensors}  # noqa: SIM118 - no dict
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of Amser: {error}") from error


def _stored(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.ndim > 1 else tensor


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


def _require_encoders(path: Path, trained: Mapping[str, str], expected: Mapping[str, str]) -> None:
    different = [
        f"{encoder}: trained with {trained.get(encoder, 'none')}, this process has {expected.get(encoder, 'none')}"
        for encoder in sorted(trained.keys() | expected.keys())
        if trained.get(encoder) != expected.get(encoder)
    ]
    if different:
        raise EncoderMismatch(f"{path.name} does not fit these encoders; {'; '.join(different)}")
