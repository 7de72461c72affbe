"""CTranslate2's Whisper weights as an openai-whisper model: the same numbers under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
import whisper
from whisper.model import AudioEncoder

from models.whisper.arrays import Arrays, layers_of, read_arrays, renamed

_TEXT_CONTEXT: Final = 448


def load_openai_whisper(model: Path) -> whisper.Whisper:
    """An openai-whisper model, float32 on the CPU, from a folder in CTranslate2's format.

    Raises:
        FileNotFoundError, ValueError: no `model.bin`, or not a Whisper.
    """
    arrays = read_arrays(model / "model.bin")
    state = {name: torch.from_numpy(values.astype(np.float32)) for name, values in renamed(arrays)}
    converted = whisper.Whisper(_dimensions(arrays))
    converted.load_state_dict(state)
    heads = json.loads((model / "config.json").read_text())["alignment_heads"]
    mask = torch.zeros(converted.dims.n_text_layer, converted.dims.n_text_head, dtype=torch.bool)
    mask[tuple(zip(*heads, strict=True))] = True
    converted.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return converted.eval()


def load_audio_encoder(model: Path, layers: int | None = None) -> AudioEncoder:
    """The encoder alone, float32 on the CPU, with its first `layers` layers, or all of them.

    Raises:
        FileNotFoundError, ValueError: no `model.bin`, or not a Whisper.
    """
    arrays = read_arrays(model / "model.bin")
    sizes = _dimensions(arrays)
    encoder = AudioEncoder(
        sizes.n_mels,
        sizes.n_audio_ctx,
        sizes.n_audio_state,
        sizes.n_audio_head,
        sizes.n_audio_layer if layers is None else layers,
    )
    wanted = encoder.state_dict().keys()
    state = {
        name.removeprefix("encoder."): torch.from_numpy(values.astype(np.float32))
        for name, values in renamed(arrays)
        if name.startswith("encoder.") and name.removeprefix("encoder.") in wanted
    }
    encoder.load_state_dict(state)
    return encoder.eval()


def _dimensions(arrays: Arrays) -> whisper.ModelDimensions:
    width, bands, _ = arrays["encoder/conv1/weight"].shape
    vocabulary, text_width = arrays["decoder/embeddings/weight"].shape
    return whisper.ModelDimensions(
        n_mels=bands,
        n_audio_ctx=arrays["encoder/position_encodings/encodings"].shape[0],
        n_audio_state=width,
        n_audio_head=int(arrays["encoder/num_heads"]),
        n_audio_layer=layers_of(arrays, "encoder"),
        n_vocab=vocabulary,
        n_text_ctx=_TEXT_CONTEXT,
        n_text_state=text_width,
        n_text_head=int(arrays["decoder/num_heads"]),
        n_text_layer=layers_of(arrays, "decoder"),
    )
