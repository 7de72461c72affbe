"""The engines by name: who runs Whisper's networks."""

from __future__ import annotations

from pathlib import Path

from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.engine import Engine
from models.whisper.onnx.engine import OnnxEngine
from models.whisper.openai_engine import OpenAIEngine
from models.whisper.served import EngineName


def load_engine(name: EngineName, model: Path, device: str = "cpu", threads: int = 1, batches: int = 1) -> Engine:
    """The engine of that name, with weights in CTranslate2's format, for so many batches at once."""
    if name == "onnxruntime":
        return OnnxEngine(model, threads, batches)
    if name == "ctranslate2":
        return CTranslate2Engine(model, device, threads=threads, batches=batches)
    return OpenAIEngine(model, device, threads)
