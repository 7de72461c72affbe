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
    """The engine of that name, with weights in CTranslate2's format, for so many batches at once.

    ONNX Runtime decodes on a CPU; on a GPU CTranslate2 does.
    """
    if name == "onnxruntime" and device == "cpu":
        return OnnxEngine(model, threads, batches)
    if name != "openai-whisper":
        return CTranslate2Engine(model, device, threads=threads, batches=batches)
    return OpenAIEngine(model, device, threads)


def served_name(weights: str, engine: EngineName, gpu: bool) -> str:
    """Of a recogniser: what it has learnt, and who decodes."""
    return f"{weights} ({'ctranslate2' if gpu and engine == 'onnxruntime' else engine})"
