"""Log-Mel → lower states of Whisper's encoder: the input of the emotion network from the voice.

Emotion lives in the middle layers, words in the last one. A recogniser whose engine gives the states of both encodes
once (`voice_of`); what it gives is the same but for 8-bit products and the pauses around, which it hears too. Where
there is none, as without words or on a GPU, `VoiceEncoder` runs the first layers in torch, on the speech alone. The
network that reads the states goes on with layers of its own (`models.emotion.amser_states`), which start as Whisper's
next ones.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu
from whisper.model import AudioEncoder, MultiHeadAttention

from amser.features import between_pauses, trim_pauses
from models.messages import Mel
from models.whisper.conversion import load_audio_encoder
from models.whisper.engine import LOWER_LAYERS, States

POOLED_STATES: Final = 4  # encoder states, 20 ms each, in a row


class VoiceEncoder:
    """The first layers of the encoder of a Whisper model in CTranslate2's format.

    Args:
        model: its folder.
        device: `cpu`, or `cuda`, which multiplies in half precision.
        threads: of torch, in the whole process.
        narrow: multiply in bfloat16 on a CPU; see `models.emotion.classifier.narrow`.
        dtype: multiply in this precision, whatever the device.
    """

    def __init__(
        self,
        model: Path,
        device: str = "cpu",
        threads: int = 1,
        *,
        narrow: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        on_cpu = device == "cpu"
        self._dtype = dtype or (torch.float16 if not on_cpu else torch.bfloat16 if narrow else torch.float32)
        self._encoder = load_audio_encoder(model, LOWER_LAYERS).to(device)
        if self._dtype != torch.float32:
            narrow_products(self._encoder, self._dtype, fused_attention=not on_cpu)
        self._device = device
        self.width: int = LOWER_LAYERS * self._encoder.positional_embedding.shape[1]

    @torch.inference_mode()
    def encode(self, mel: Mel) -> NDArray[np.float16]:
        """The states of the speech between the pauses: (⌈T / 8⌉, width), T its frames.

        They are the sums that flow from layer to layer, not normalised, each the mean of 80 ms; the first layer's come
        first.
        """
        speech = np.ascontiguousarray(trim_pauses(mel.values)[None], np.float32)
        features = torch.from_numpy(speech).to(self._device, self._dtype)
        hidden = gelu(self._encoder.conv2(gelu(self._encoder.conv1(features)))).transpose(1, 2)  # (1, ⌈T / 2⌉, width)
        hidden = hidden + self._encoder.positional_embedding[: hidden.shape[1]].to(self._dtype)
        layers = []
        for block in self._encoder.blocks:
            hidden = block(hidden)
            layers.append(hidden[0])
        return pool_states(torch.cat(layers, 1).float().cpu().numpy())


def narrow_products(encoder: AudioEncoder, dtype: torch.dtype, *, fused_attention: bool) -> None:
    """Let an encoder of openai-whisper multiply in another precision.

    Only weights of products change: Whisper's LayerNorm widens its input to float32 and fails where its weights are
    narrower, so `encoder.to(dtype)` would leave a network that cannot run.
    """
    for part in encoder.modules():
        if isinstance(part, nn.Linear | nn.Conv1d):
            part.to(dtype)
        if isinstance(part, MultiHeadAttention) and not fused_attention:
            part.qkv_attention = partial(attend, part.n_head)


def attend(heads: int, queries: Tensor, keys: Tensor, values: Tensor, _mask: None = None) -> tuple[Tensor, None]:
    """softmax(q kᵀ / √d) v of rows (1, n, width), in place of Whisper's `MultiHeadAttention.qkv_attention`.

    Plain products: torch's fused kernel takes twice as long in bfloat16 on a CPU. Both are as far from float32.
    """
    scale = (queries.shape[2] // heads) ** -0.5
    split = (rows.unflatten(2, (heads, -1)).transpose(1, 2) for rows in (queries * scale, keys, values))
    queries, keys, values = split  # (1, heads, n, d)
    weights = torch.softmax(queries @ keys.transpose(2, 3), dim=3)
    return (weights @ values).transpose(1, 2).flatten(2), None


def voice_of(lower: States, mel: Mel) -> NDArray[np.float16]:
    """What `VoiceEncoder.encode` makes, from the lower states (n, width) of a recogniser's encoder.

    docs/decisions/0020 says what pauses and 8 bits change.
    """
    speech = between_pauses(mel.values)
    return pool_states(lower[speech.start // 2 : (speech.stop + 1) // 2])


def pool_states(states: NDArray[np.float32]) -> NDArray[np.float16]:
    """(n, width) → (⌈n / 4⌉, width) float16: the mean of every four states, and of those left over."""
    starts = np.arange(0, len(states), POOLED_STATES)
    sums = np.add.reduceat(states, starts, axis=0)
    counts = np.diff(np.append(starts, len(states)))
    pooled: NDArray[np.float16] = (sums / counts[:, None]).astype(np.float16)
    return pooled
