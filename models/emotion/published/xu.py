"""Xu: "Learning Alignment for Multimodal Emotion Recognition from Speech" (Xu et al., Interspeech 2019).

Attention learns which audio frames belong to each word; the word and its frames go on together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from models.emotion.batch import FusionBatch, mask_of
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork, FusionOutput
from models.emotion.published.frames import MelRows


class Xu(FusionNetwork):
    """Three bidirectional LSTMs, over audio, over words and over both, and a maximum over the words.

    Published: low-level descriptors at the rate of the frames, 300-d GloVe words. Where the description leaves room:

    - Audio is log-Mel at 25 rows a second.
    - Every LSTM has `hidden` units in each direction; we could not confirm the published widths.
    - The one fully connected layer after the maximum is the predictor.
    - `dropout` before the recurrences and `head_dropout` before the heads are those of our own networks.
    """

    modalities = ("mel", "words")

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        width = 2 * config.hidden  # of both directions
        self.audio = MelRows(config.mel_bands)
        self.audio_lstm = nn.LSTM(config.mel_bands, config.hidden, batch_first=True, bidirectional=True)
        self.word_lstm = nn.LSTM(config.word_width, config.hidden, batch_first=True, bidirectional=True)
        self.alignment = Alignment(width)
        self.multimodal_lstm = nn.LSTM(2 * width, config.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.add_heads(width)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        frames, audio_mask = self.audio(batch.log_mel, batch.mel_lengths)
        word_mask = mask_of(batch.word_lengths, batch.words.shape[1])
        audio = run_bidirectional(self.audio_lstm, self.dropout(frames), audio_mask)
        words = run_bidirectional(self.word_lstm, self.dropout(batch.words), word_mask)

        aligned = self.alignment(words, audio, audio_mask)
        joint = self.dropout(torch.cat((words, aligned), 2))  # (B, n, 4 hidden)
        states = run_bidirectional(self.multimodal_lstm, joint, word_mask)
        strongest = states.masked_fill(~word_mask[:, :, None], float("-inf")).amax(1)  # (B, 2 hidden)
        return self.answer(self.head_dropout(strongest))


class Alignment(nn.Module):
    """For each word the audio that belongs to it: softmax over frames of tanh(u·frame + v·word + b)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score_of_audio = nn.Linear(width, 1, bias=False)
        self.score_of_word = nn.Linear(width, 1)

    def forward(self, words: Tensor, audio: Tensor, audio_mask: Tensor) -> Tensor:
        """Words (B, n, width), audio (B, t, width) with bool mask (B, t) → (B, n, width)."""
        scores = torch.tanh(self.score_of_word(words) + self.score_of_audio(audio).transpose(1, 2))  # (B, n, t)
        return scores.masked_fill(~audio_mask[:, None, :], float("-inf")).softmax(2) @ audio


def run_bidirectional(lstm: nn.LSTM, rows: Tensor, mask: Tensor) -> Tensor:
    """States of both directions, zero after the end of each sequence: (B, n, width) → (B, n, 2 hidden).

    The backward direction must begin at the last real row, hence the packing.
    """
    packed = pack_padded_sequence(rows, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=rows.shape[1])
    return states
