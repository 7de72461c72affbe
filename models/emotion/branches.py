"""What every network here is made of: a branch for each modality, and the ways to pool sequences.

A branch brings a padded batch of features to one width and says which rows are real. Padding never changes a result:
convolutions see zeros where an unpadded input would end, and every later layer is masked.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.emotion.batch import mask_of
from models.emotion.config import FusionConfig

VARIANCE_FLOOR = 1e-5  # keeps the gradient of a deviation finite where rows do not vary


class StandardizedMel(nn.Module):
    """What every audio branch begins with: a fixed standardisation of each band of the log-Mel.

    Zero then is a typical value, so that the zeros around an utterance, which convolutions see, are not a loud noise.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(bands, 1))
        self.register_buffer("deviation", torch.ones(bands, 1))

    def standardize_by(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the standardisation from training data: two vectors of one value a band."""
        self.mean.copy_(mean.view_as(self.mean))
        self.deviation.copy_(deviation.view_as(self.deviation))

    def standardize(self, log_mel: Tensor, mask: Tensor) -> Tensor:
        """Log-Mel (B, bands, T) and bool (B, T) → the same shape, zero where the mask is False."""
        return (log_mel - self.mean) / self.deviation * mask[:, None, :]


class AudioBranch(StandardizedMel):
    """Log-Mel (B, 80, T) → (B, ⌈T/4⌉, hidden): Conv-BatchNorm-ReLU over time and frequency, then an LSTM (R9)."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config.mel_bands)
        strides = [(2, 2) if layer < 2 else (2, 1) for layer in range(len(config.conv_channels))]
        self.convolutions = nn.ModuleList()
        channels, bands = 1, config.mel_bands
        for width, stride in zip(config.conv_channels, strides, strict=True):
            self.convolutions.append(ConvBatchNormReLU(channels, width, stride))
            channels, bands = width, -(-bands // 2)
        self.reduce = nn.Linear(channels * bands, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.hidden, config.hidden, batch_first=True)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask_of(lengths, log_mel.shape[2])
        maps = self.standardize(log_mel, mask).unsqueeze(1)  # (B, 1, 80, T)
        for convolution in self.convolutions:
            maps, mask = convolution(maps, mask)
        rows = functional.relu(self.reduce(maps.flatten(1, 2).transpose(1, 2)))  # (B, ⌈T/4⌉, hidden)
        rows = self.dropout(rows) * mask[:, :, None]
        # The way around the LSTM is ours: with it the convolutions learn from the first step.
        return rows + run_lstm(self.lstm, rows, mask), mask


class ConvBatchNormReLU(nn.Module):
    """A 3×3 convolution over frequency and time that leaves zeros where there is no speech."""

    def __init__(self, channels: int, width: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.time_stride = stride[1]
        self.convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, F, T), zero where bool mask (B, T) is False → the same, strided."""
        mask = mask[:, :: self.time_stride]
        maps = functional.relu(self.norm(self.convolution(maps)))
        return maps * mask[:, None, None, :], mask


class WordBranch(nn.Module):
    """Word vectors (B, n, 300) → (B, n, hidden): LSTM, then a convolution over words (R10)."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.word_width, config.hidden, batch_first=True)
        self.convolution = nn.Conv1d(config.hidden, config.hidden, 3, padding=1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask_of(lengths, words.shape[1])
        rows = run_lstm(self.lstm, self.dropout(words), mask)
        rows = self.convolution(rows.transpose(1, 2)).transpose(1, 2)
        return functional.relu(rows) * mask[:, :, None], mask


class ContextBranch(nn.Module):
    """Token states (B, m, width) → (B, m, hidden) by one linear layer (R11)."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.context_width, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, context: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.dropout(self.linear(context)), mask_of(lengths, context.shape[1])


class AttentiveStatistics(nn.Module):
    """Weighted means and deviations of the rows, learnt weights for each row (Okabe et al., Interspeech 2018).

    Each of `heads` weighs the rows its own way; masked rows weigh nothing. The norm at the end takes away what all
    utterances share, which is most of it: without it the head saw almost the same vector for every utterance, and
    learning took several times as long.
    """

    def __init__(self, hidden: int, heads: int = 1) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, heads, bias=False))
        self.norm = nn.BatchNorm1d(2 * heads * hidden)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(B, n, hidden) and bool (B, n) → (B, 2 heads hidden)."""
        weights = self.score(rows).masked_fill(~mask[:, :, None], float("-inf")).softmax(1)  # (B, n, heads)
        mean = weights.transpose(1, 2) @ rows  # (B, heads, hidden)
        variance = (weights[:, :, :, None] * (rows[:, :, None] - mean[:, None]).square()).sum(1)
        return cast(Tensor, self.norm(torch.cat((mean, (variance + VARIANCE_FLOOR).sqrt()), 1).flatten(1)))


def run_lstm(lstm: nn.LSTM, rows: Tensor, mask: Tensor) -> Tensor:
    """States of a forward LSTM, zero after the end of each sequence: (B, n, width) → (B, n, hidden).

    Padding stands at the end and the LSTM runs forwards, so no real state can have seen it: packing is not needed.
    """
    states, _ = lstm(rows)
    return cast(Tensor, states) * mask[:, :, None]


def pool_to_length(rows: Tensor, mask: Tensor, length: int) -> Tensor:
    """Average the real rows of each sequence over `length` equal stretches of it.

    A stretch that covers a part of a row weighs it by that part; where there are fewer rows than stretches, rows
    repeat.

    Args:
        rows: (B, n, hidden).
        mask: bool (B, n), real rows first, at least one.
        length: how many rows to return.

    Returns:
        (B, length, hidden).
    """
    stretch = mask.sum(1).to(rows.dtype)[:, None, None] / length  # rows that one stretch covers
    begin = torch.arange(length, device=rows.device, dtype=rows.dtype)[None, :, None] * stretch
    row = torch.arange(rows.shape[1], device=rows.device, dtype=rows.dtype)[None, None, :]
    overlap = torch.minimum(begin + stretch, row + 1) - torch.maximum(begin, row)
    weights = overlap.clamp(min=0) * mask[:, None, :] / stretch  # (B, length, n)
    return weights @ rows
