"""Low-rank adapters on the matrices of an openai-whisper model: while it learns, and the mean of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import whisper
from safetensors.numpy import load_file
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import linear

RANK: Final = 32
RANK_OF_MEAN: Final = 64
FROZEN_LAYERS: Final = 3  # of the encoder: the emotion network reads their states, and has learnt them as they are
SPREAD: Final = 0.02  # deviation of the first values of D; U begins at zero, so nothing is changed yet


class AdaptersDiffer(ValueError):  # noqa: N818 - an error by its base class
    """Adapters that cannot be averaged."""


class LowRank(nn.Module):
    """A linear layer x Wᵀ + b that answers x (W + U D)ᵀ + b; only U (outputs, rank) and D (rank, inputs) learn."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) * SPREAD)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.layer(inputs) + linear(linear(inputs, self.down), self.up)
        return answer


def add_adapters(model: whisper.Whisper, rank: int = RANK) -> dict[str, LowRank]:
    """Freeze the model and put an adapter on each matrix that learns; by the name that the matrix had."""
    model.requires_grad_(False)
    adapters: dict[str, LowRank] = {}
    for place, block in enumerate(model.encoder.blocks):
        if place >= FROZEN_LAYERS:
            _wrap(block, f"encoder.blocks.{place}", rank, adapters)
    for place, block in enumerate(model.decoder.blocks):
        _wrap(block, f"decoder.blocks.{place}", rank, adapters)
    return adapters


def _wrap(module: nn.Module, prefix: str, rank: int, adapters: dict[str, LowRank]) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            adapters[f"{prefix}.{name}.weight"] = adapter = LowRank(child, rank)
            setattr(module, name, adapter)
        else:
            _wrap(child, f"{prefix}.{name}", rank, adapters)


def save_adapters(adapters: dict[str, LowRank], file: Path) -> None:
    """Write the adapters in half precision, as `models.whisper.adapter` reads them."""
    tensors = {}
    for name, adapter in adapters.items():
        tensors[f"{name}.down"] = adapter.down.detach().half().contiguous()
        tensors[f"{name}.up"] = adapter.up.detach().half().contiguous()
    save_file(tensors, file)


def average(adapters: Sequence[Path], output: Path, rank: int = RANK_OF_MEAN) -> None:
    """Write the mean of adapters, which errs less than each: weights of one origin that learnt apart may be averaged.

    Wortsman et al. 2022, "Model soups". The mean of products is a sum, so it is factored anew.

    Args:
        adapters: files; one that is named twice counts twice.
        output: a safetensors file.
        rank: of the mean; what lies beyond its largest singular values is cut off.

    Raises:
        FileNotFoundError: one is not there.
        AdaptersDiffer: they are not of the same matrices.
    """
    parts = [load_file(file) for file in adapters]
    if any(part.keys() != parts[0].keys() for part in parts):
        raise AdaptersDiffer("the adapters that are to be averaged are not of the same matrices")
    mean = {}
    for name in sorted({key.rpartition(".")[0] for key in parts[0]}):
        down = np.concatenate([part[f"{name}.down"].astype(np.float64) for part in parts], 0)
        up = np.concatenate([part[f"{name}.up"].astype(np.float64) for part in parts], 1) / len(parts)
        (left, outer), (right, inner) = np.linalg.qr(up), np.linalg.qr(down.T)
        first, sizes, last = np.linalg.svd(outer @ inner.T)  # no larger than the ranks together
        roots = np.sqrt(sizes[:rank])
        mean[f"{name}.up"] = (left @ (first[:, :rank] * roots)).astype(np.float16)
        mean[f"{name}.down"] = ((last[:rank] * roots[:, None]) @ right.T).astype(np.float16)
    save_arrays(mean, output)
