"""Token states of a contextual text encoder: the knowledge branch of AMSER and Amser+ (R11).

The papers take RoBERTa; any Hugging Face encoder does, and its width comes from its own configuration. On a CPU ONNX
Runtime computes the same in 32 bits as PyTorch, in less than half of the time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from models.messages import TokenFeatures
from models.onnx_session import cpu_session

LONGEST_TEXT: Final = 256  # tokens; 30 s of fast speech are about 150
_OPSET: Final = 18

Encode = Callable[[Tensor, Tensor], NDArray[np.float32]]


class ContextEncoder:
    """A Hugging Face encoder.

    Args:
        model: a folder, or an id that is in the local Hugging Face cache: nothing is downloaded while serving.
        device: `cpu`, or `cuda`, which computes in half precision.
        threads: of a text.

    Raises:
        OSError: there is no such model on this machine, or its weights are not safetensors.
    """

    def __init__(self, model: Path | str, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        dtype = torch.float32 if device == "cpu" else torch.float16
        loaded = AutoModel.from_pretrained(model, local_files_only=True, use_safetensors=True, dtype=dtype).eval()
        self.width: int = loaded.config.hidden_size
        self._encode = _on_cpu(loaded, threads) if device == "cpu" else _on_gpu(loaded.to(device), device)

    def encode(self, texts: Sequence[str]) -> list[TokenFeatures]:
        """The last hidden states of each text, special tokens included, padding left out.

        Returns:
            For each text float32 (m, width); an empty text still has its special tokens.
        """
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=LONGEST_TEXT, return_tensors="pt"
        )
        states = self._encode(tokens["input_ids"], tokens["attention_mask"])
        features = []
        for row, ids, mask in zip(states, tokens["input_ids"], tokens["attention_mask"], strict=True):
            present = mask.bool().numpy()
            names = self._tokenizer.convert_ids_to_tokens(ids.numpy()[present].tolist())
            features.append(TokenFeatures(tuple(names), np.ascontiguousarray(row[present])))
        return features


class _LastStates(nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, n) and (B, n) → (B, n, width)."""
        states: Tensor = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


def _on_cpu(model: PreTrainedModel, threads: int) -> Encode:
    """As a graph that PyTorch writes from two texts of unlike length."""
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    ids = torch.full_like(mask, model.config.pad_token_id or 0).masked_fill(mask.bool(), model.config.vocab_size - 1)
    axes = {name: {0: "texts", 1: "tokens"} for name in ("ids", "mask", "states")}
    with TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        graph = Path(folder) / "encoder.onnx"
        warnings.simplefilter("ignore")  # of the exporter that needs no other package: that there is a newer one
        torch.onnx.export(
            _LastStates(model),
            (ids, mask),
            graph,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["ids", "mask"],
            output_names=["states"],
            dynamic_axes=axes,
        )
        session = cpu_session(graph.read_bytes(), threads)

    def encode(ids: Tensor, mask: Tensor) -> NDArray[np.float32]:
        (states,) = session.run(["states"], {"ids": ids.numpy(), "mask": mask.numpy()})
        computed: NDArray[np.float32] = states
        return computed

    return encode


def _on_gpu(model: PreTrainedModel, device: str) -> Encode:
    states_of = _LastStates(model)

    @torch.inference_mode()
    def encode(ids: Tensor, mask: Tensor) -> NDArray[np.float32]:
        states: NDArray[np.float32] = states_of(ids.to(device), mask.to(device)).float().cpu().numpy()
        return states

    return encode
