"""A small Whisper that has learnt nothing, in CTranslate2's format: for what reads weights and never transcribes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FORMAT, REVISION = 6, 3  # of a `model.bin` and of the Whisper in it
FLOAT32 = 0  # CTranslate2's number of the type
BANDS, CONTEXT, VOCABULARY = 80, 1500, 64
HEAD_WIDTH = 64  # of every Whisper

Shapes = dict[str, tuple[int, ...]]


def write_whisper(folder: Path, width: int, layers: int, decoder_layers: int = 0) -> Path:
    """An encoder and a decoder of so many layers.

    Args:
        folder: for `model.bin` and `config.json`; it is made.
        width: of the states, a multiple of 64.
        layers: of the encoder.
        decoder_layers: of the decoder.
    """
    random = np.random.default_rng(width)
    shapes = _norm("encoder/layer_norm", width) | _norm("decoder/layer_norm", width)
    shapes |= {
        "encoder/conv1/weight": (width, BANDS, 3),
        "encoder/conv1/bias": (width,),
        "encoder/conv2/weight": (width, width, 3),
        "encoder/conv2/bias": (width,),
        "encoder/position_encodings/encodings": (CONTEXT, width),
        "decoder/position_encodings/encodings": (448, width),
        "decoder/embeddings/weight": (VOCABULARY, width),
    }
    for number in range(layers):
        shapes |= _layer(f"encoder/layer_{number}", width)
    for number in range(decoder_layers):
        shapes |= _layer(f"decoder/layer_{number}", width) | _cross_attention(f"decoder/layer_{number}", width)
    arrays = {name: 0.1 * random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    heads = np.array(width // HEAD_WIDTH, np.float32)
    arrays |= {"encoder/num_heads": heads, "decoder/num_heads": heads}
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"".join(_content(arrays)))
    (folder / "config.json").write_text(json.dumps({"alignment_heads": [[0, 0]] if decoder_layers else []}))
    return folder


def _layer(name: str, width: int) -> Shapes:
    return (
        _norm(f"{name}/self_attention/layer_norm", width)
        | _linear(f"{name}/self_attention/linear_0", width, 3 * width)  # query, key and value
        | _linear(f"{name}/self_attention/linear_1", width, width)
        | _norm(f"{name}/ffn/layer_norm", width)
        | _linear(f"{name}/ffn/linear_0", width, 4 * width)
        | _linear(f"{name}/ffn/linear_1", 4 * width, width)
    )


def _cross_attention(name: str, width: int) -> Shapes:
    return (
        _norm(f"{name}/attention/layer_norm", width)
        | _linear(f"{name}/attention/linear_0", width, width)  # query
        | _linear(f"{name}/attention/linear_1", width, 2 * width)  # key and value
        | _linear(f"{name}/attention/linear_2", width, width)
    )


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}/gamma": (width,), f"{name}/beta": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}/weight": (outputs, inputs), f"{name}/bias": (outputs,)}


def _content(arrays: dict[str, NDArray[np.float32]]) -> Iterator[bytes]:
    yield struct.pack("<I", FORMAT) + _name("WhisperSpec") + struct.pack("<II", REVISION, len(arrays))
    for name, array in arrays.items():
        yield _name(name) + struct.pack(f"<B{array.ndim}IB", array.ndim, *array.shape, FLOAT32)
        yield struct.pack("<I", array.nbytes) + array.tobytes()
    yield struct.pack("<I", 1) + _name("decoder/projection/weight") + _name("decoder/embeddings/weight")  # aliases


def _name(text: str) -> bytes:
    content = text.encode() + b"\0"
    return struct.pack("<H", len(content)) + content
