"""The engines by name: who runs Whisper's networks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.engine import Engine
from models.whisper.onnx_engine import OnnxEngine
from models.whisper.openai_engine import OpenAIEngine

EngineName = Literal["onnxruntime", "ctranslate2", "openai-whisper"]


def load_engine(name: EngineName, model: Path, device: str = "cpu", threads: int = 1, batches: int = 1) -> Engine:
    """The engine of that name, with weights in CTranslate2's format, for so many batches at once."""
    if name == "onnxruntime":
        return OnnxEngine(model, threads, batches)
    if name == "ctranslate2":
        return CTranslate2Engine(model, device, threads=threads, batches=batches)
    return OpenAIEngine(model, device, threads)


def served_by(name: EngineName, gpu: bool) -> EngineName:
    """Who computes in a replica that is, or is not, given a share of a GPU: ONNX Runtime decodes on CPUs alone.

    It is the share that counts, not the device: answers name the engine, and where they are written only shares are
    known.
    """
    return "ctranslate2" if gpu and name == "onnxruntime" else name


def served_name(weights: str, engine: EngineName, gpu: bool) -> str:
    """Of a recogniser: what it has learnt, and who computes."""
    return f"{weights} ({served_by(engine, gpu)})"
