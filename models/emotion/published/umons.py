"""UMONS: Delbrouck et al., "A Transformer-based joint-encoding for Emotion Recognition and Sentiment Analysis".

Second Grand-Challenge and Workshop on Multimodal Language, ACL 2020. Words and log-Mel each go through an LSTM; blocks
of modular co-attention, in which words guide audio, alternate with glimpses; attention flattens what is left.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.emotion.attention import SA, SGA
from models.emotion.batch import FusionBatch, mask_of
from models.emotion.branches import pool_to_length, run_lstm
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork, FusionOutput
from models.emotion.published.frames import MelRows


class Umons(FusionNetwork):
    """Published for IEMOCAP: hidden 512, heads 4, feed-forward 1024, 2 blocks, 60 rows, dropout 0.1 and 0.5.

    Where the description leaves room:

    - Published sequences are cut or padded to 60 rows before the LSTM. Here each LSTM reads its whole sequence, audio
      at 25 rows a second, and its states are pooled to `common_length`, so that nothing is cut and all rows are real.
    - A block is guided by the words as they enter it, and adds its input to its output, as the authors' code does.
    - `head_dropout` before the heads is ours: the baselines are regularised as our own networks are.
    """

    modalities = ("mel", "words")

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.audio = MelRows(config.mel_bands)
        self.audio_lstm = nn.LSTM(config.mel_bands, config.hidden, batch_first=True)
        self.word_lstm = nn.LSTM(config.word_width, config.hidden, batch_first=True)
        self.blocks = nn.ModuleList(ModularCoAttention(config) for _ in range(config.layers))
        self.glimpses = nn.ModuleList(
            nn.ModuleList((Glimpse(config), Glimpse(config))) for _ in range(config.layers - 1)
        )
        self.flatten_words = AttentionFlattening(config)
        self.flatten_audio = AttentionFlattening(config)
        self.norm = nn.LayerNorm(2 * config.hidden)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.add_heads(2 * config.hidden)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        length = self.config.common_length
        frames, audio_mask = self.audio(batch.log_mel, batch.mel_lengths)
        word_mask = mask_of(batch.word_lengths, batch.words.shape[1])
        audio = pool_to_length(run_lstm(self.audio_lstm, frames, audio_mask), audio_mask, length)
        words = pool_to_length(run_lstm(self.word_lstm, batch.words, word_mask), word_mask, length)

        for number, block in enumerate(self.blocks):
            if number > 0:
                glimpse_words, glimpse_audio = cast(nn.ModuleList, self.glimpses[number - 1])
                words, audio = glimpse_words(words), glimpse_audio(audio)
            words, audio = block(words, audio)  # (B, 60, hidden) each
        return self.answer(self.head_dropout(self.norm(self.flatten_words(words) + self.flatten_audio(audio))))


class ModularCoAttention(nn.Module):
    """Self-attention over the words, beside self-attention over the audio that the words then guide."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        sizes = (config.hidden, config.heads, config.feed_forward, config.dropout)
        self.words = SA(*sizes)
        self.audio = SGA(*sizes)

    def forward(self, words: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Words and audio, (B, n, hidden) each → both, same shapes."""
        every_row = torch.ones(words.shape[:2], dtype=torch.bool, device=words.device)
        return words + self.words(words, every_row), audio + self.audio(audio, every_row, words, every_row)


class SoftAttention(nn.Sequential):
    """Rows (B, n, hidden) → weights (B, n, outputs): for each output, how much it takes of each row."""

    def __init__(self, config: FusionConfig, outputs: int) -> None:
        super().__init__(
            nn.Linear(config.hidden, config.feed_forward),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feed_forward, outputs, bias=False),  # softmax over rows does not see a bias
            nn.Softmax(1),
        )


class Glimpse(nn.Module):
    """As many soft attentions as there are rows, each the next content of its row."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.attention = SoftAttention(config, config.common_length)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, n, hidden) → (B, n, hidden)."""
        seen = self.attention(rows).transpose(1, 2) @ rows
        return cast(Tensor, self.norm(rows + self.dropout(seen)))


class AttentionFlattening(nn.Module):
    """MCAN's AttFlat: one soft attention, then a linear layer to twice the width."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.attention = SoftAttention(config, 1)
        self.merge = nn.Linear(config.hidden, 2 * config.hidden)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, n, hidden) → (B, 2 hidden)."""
        return cast(Tensor, self.merge((self.attention(rows) * rows).sum(1)))
