"""A trained network as one safetensors file: weights, sizes, what it was trained on and which encoders it expects.

The format cannot carry code. A network is only valid with features of the encoders that it was trained with, so a
checkpoint names their weights by fingerprint, and loading it beside other encoders is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.emotion.checkpoint_info import (
    DEFAULT_CHECKPOINT,
    FORMAT,
    CheckpointError,
    CheckpointInfo,
    EncoderMismatch,
    describe,
)
from models.emotion.network import FusionNetwork
from models.emotion.registry import build


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
    info = describe(path)
    if expected_fingerprints is not None:
        _require_encoders(path, info.encoders, expected_fingerprints)
    try:
        network = build(info.config)
        network.load_state_dict(load_file(path))  # which widens them again
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return network.eval(), info


def _stored(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if tensor.ndim > 1 else tensor


def _require_encoders(path: Path, trained: Mapping[str, str], expected: Mapping[str, str]) -> None:
    different = [
        f"{encoder}: trained with {trained.get(encoder, 'none')}, this process has {expected.get(encoder, 'none')}"
        for encoder in sorted(trained.keys() | expected.keys())
        if trained.get(encoder) != expected.get(encoder)
    ]
    if different:
        raise EncoderMismatch(f"{path.name} does not fit these encoders; {'; '.join(different)}")
