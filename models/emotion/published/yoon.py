"""Yoon: "Multimodal Speech Emotion Recognition Using Audio and Text" (Yoon et al., SLT 2018), section 3.3.

The multimodal dual recurrent encoder (MDRE): one GRU encodes audio, one encodes words, and their last states are
concatenated.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.emotion.batch import FusionBatch, mask_of
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork, FusionOutput
from models.emotion.published.frames import MelRows


class Yoon(FusionNetwork):
    """Published: 200 units in each GRU, at most 750 frames of 39 MFCC values and 128 GloVe words.

    Where we differ, or the description leaves room:

    - Audio is log-Mel at 25 rows a second. Published are MFCC, and 35 prosodic values of the whole utterance beside
      the last state, which a log-Mel does not hold.
    - The layer after each GRU halves the width, as in the authors' code; its ReLU is our choice.
    - `dropout` before the recurrences and `head_dropout` before the heads are those of our own networks.
    """

    modalities = ("mel", "words")

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        half = config.hidden // 2
        self.audio = MelRows(config.mel_bands)
        self.audio_gru = nn.GRU(config.mel_bands, config.hidden, batch_first=True)
        self.word_gru = nn.GRU(config.word_width, config.hidden, batch_first=True)
        self.audio_dense = nn.Sequential(nn.Linear(config.hidden, half), nn.ReLU())
        self.word_dense = nn.Sequential(nn.Linear(config.hidden, half), nn.ReLU())
        self.dropout = nn.Dropout(config.dropout)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.add_heads(2 * half)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        frames, audio_mask = self.audio(batch.log_mel, batch.mel_lengths)
        word_mask = mask_of(batch.word_lengths, batch.words.shape[1])
        audio = self.audio_dense(last_state(self.audio_gru, self.dropout(frames), audio_mask))
        words = self.word_dense(last_state(self.word_gru, self.dropout(batch.words), word_mask))
        return self.answer(self.head_dropout(torch.cat((audio, words), 1)))


def last_state(gru: nn.GRU, rows: Tensor, mask: Tensor) -> Tensor:
    """The state of a forward GRU after the last real row: (B, n, width) with bool mask (B, n) → (B, hidden)."""
    states: Tensor = gru(rows)[0]
    return states[torch.arange(len(rows), device=rows.device), mask.sum(1) - 1]
