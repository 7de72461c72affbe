"""The engines by name, and which one serves: read without loading any."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["onnxruntime", "ctranslate2", "openai-whisper"]


def served_by(name: EngineName, gpu: bool) -> EngineName:
    """Who computes in a replica that is, or is not, given a share of a GPU: ONNX Runtime decodes on CPUs alone.

    It is the share that counts, not the device: answers name the engine, and where they are written only shares are
    known.
    """
    return "ctranslate2" if gpu and name == "onnxruntime" else name


def served_name(weights: str, engine: EngineName, gpu: bool) -> str:
    """Of a recogniser: what it has learnt, and who computes."""
    return f"{weights} ({served_by(engine, gpu)})"
