"""Token states of a contextual text encoder: the knowledge branch of AMSER and Amser+ (R11).

The papers take RoBERTa; any Hugging Face encoder does, and its width comes from its own configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from models.messages import TokenFeatures

LONGEST_TEXT: Final = 256  # tokens; 30 s of fast speech are about 150


class ContextEncoder:
    """A Hugging Face encoder.

    Args:
        model: a folder, or an id that is in the local Hugging Face cache: nothing is downloaded while serving.
        device: `cpu`, or `cuda`, which computes in half precision.
        threads: of torch, in the whole process.
        narrow: compute in bfloat16 on a CPU; states keep a cosine of 0.9999 with those in float32.

    Raises:
        OSError: there is no such model on this machine, or its weights are not safetensors.
    """

    def __init__(self, model: Path | str, device: str = "cpu", threads: int = 1, *, narrow: bool = False) -> None:
        torch.set_num_threads(threads)
        self._device = device
        self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        self._model = AutoModel.from_pretrained(
            model,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float16 if device != "cpu" else torch.bfloat16 if narrow else torch.float32,
        )
        self._model.to(device).eval()
        self.width: int = self._model.config.hidden_size

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> list[TokenFeatures]:
        """The last hidden states of each text, special tokens included, padding left out.

        Returns:
            For each text float32 (m, width); an empty text still has its special tokens.
        """
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST_TEXT, return_tensors="pt"
        ).to(self._device)
        states = self._model(**tokens).last_hidden_state.float().cpu().numpy()
        features = []
        for row, (ids, mask) in enumerate(zip(tokens["input_ids"], tokens["attention_mask"], strict=True)):
            present = mask.bool().cpu().numpy()
            names = self._tokenizer.convert_ids_to_tokens(ids.cpu().numpy()[present].tolist())
            features.append(TokenFeatures(tuple(names), np.ascontiguousarray(states[row][present])))
        return features
