"""The device that a model computes on, and the number format that is fast there."""

from __future__ import annotations

import logging
from typing import Literal

import torch

Device = Literal["cpu", "cuda"]

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files


def has_bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16 itself, several times faster than in float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def device(gpu: bool) -> Device:
    """The device for a replica. A GPU that Ray counts and CUDA does not see is logged, and the CPU is used."""
    if gpu and not torch.cuda.is_available():
        logger.warning("Ray assigned a GPU to this replica, but CUDA sees none: running on the CPU")
        return "cpu"
    return "cuda" if gpu else "cpu"
