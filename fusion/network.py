"""Amser+: the network that turns log-Mel, words and context into an emotion (IoT-J 2025, section IV, R9 to R18).

Three branches bring audio, word vectors and a contextual text encoder to one width; co-attention fuses audio with
words, then the result with context; one more layer of self-attention and a two-layer head give the answer. Padding
never changes it: convolutions see zeros where an unpadded input would end, and every later layer is masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.attention import SA, CoAttention
from fusion.batch import FusionBatch, mask_of

VARIANCE_FLOOR = 1e-5  # keeps the gradient of a deviation finite where rows do not vary


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """Sizes of the network; a checkpoint carries them.

    The published settings (heads 4, hidden 512, feed-forward 1024, 2 layers) belong to 5,531 IEMOCAP utterances. The
    defaults are smaller, for corpora of about a thousand.

    Attributes:
        classes: names of the emotions, in the order of the logits.
        mel_bands: rows of the log-Mel.
        word_width: width of a word vector.
        context_width: width of the contextual encoder's token states, from that encoder's own config.
        conv_channels: output channels of the convolutions; the first two halve time as well as frequency, so that the
            LSTM sees 25 frames a second.
        hidden: width of every sequence after its branch.
        heads: attention heads.
        feed_forward: inner width of the feed-forward layers.
        layers: layers of each stack of a co-attention.
        common_length: rows that audio and words are pooled to before they are added.
        projection_width: width of the embedding for contrastive learning.
        dropout: within branches and attention.
        head_dropout: before the head.
    """

    classes: tuple[str, ...]
    mel_bands: int = 80
    word_width: int = 300
    context_width: int = 768
    conv_channels: tuple[int, ...] = (16, 32, 48)
    hidden: int = 128
    heads: int = 4
    feed_forward: int = 256
    layers: int = 2
    common_length: int = 60
    projection_width: int = 128
    dropout: float = 0.1
    head_dropout: float = 0.5


class FusionOutput(NamedTuple):
    """What the two heads say of B utterances.

    Attributes:
        logits: (B, classes), before softmax.
        embedding: (B, projection_width), of unit length.
    """

    logits: Tensor
    embedding: Tensor


class AmserPlus(nn.Module):
    """The whole network; `forward` reads a `FusionBatch`."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.hidden, config.heads, config.feed_forward)
        self.audio = AudioBranch(config)
        self.words = WordBranch(config)
        self.context = ContextBranch(config)
        self.audio_words = CoAttention(*sizes, config.layers, config.dropout)
        self.fused_context = CoAttention(*sizes, config.layers, config.dropout)
        self.joint = SA(*sizes, config.dropout)
        self.pooling = AttentiveStatistics(config.hidden)
        self.head_dropout = nn.Dropout(config.head_dropout)
        self.shared = nn.Linear(2 * config.hidden, config.hidden)
        self.predictor = nn.Linear(config.hidden, len(config.classes))
        self.projector = nn.Linear(config.hidden, config.projection_width)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        audio, audio_mask = self.audio(batch.log_mel, batch.mel_lengths)
        words, word_mask = self.words(batch.words, batch.word_lengths)
        context, context_mask = self.context(batch.context, batch.context_lengths)

        words, audio = self.audio_words(words, word_mask, audio, audio_mask)
        length = self.config.common_length
        fused = pool_to_length(audio, audio_mask, length) + pool_to_length(words, word_mask, length)
        fused_mask = torch.ones(fused.shape[:2], dtype=torch.bool, device=fused.device)

        context, fused = self.fused_context(context, context_mask, fused, fused_mask)
        joint_mask = torch.cat((fused_mask, context_mask), 1)
        joint = self.joint(torch.cat((fused, context), 1), joint_mask)  # (B, 60 + m, hidden)

        pooled = self.pooling(joint, joint_mask)
        shared = functional.relu(self.shared(self.head_dropout(pooled)))
        return FusionOutput(self.predictor(shared), functional.normalize(self.projector(shared), dim=1))


class AudioBranch(nn.Module):
    """Log-Mel (B, 80, T) → (B, ⌈T/4⌉, hidden): Conv-BatchNorm-ReLU over time and frequency, then an LSTM (R9)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        # A fixed standardisation of each band: zero then is a typical value, so that the zeros around an utterance,
        # which convolutions see, are not a loud noise.
        self.register_buffer("mean", torch.zeros(config.mel_bands, 1))
        self.register_buffer("deviation", torch.ones(config.mel_bands, 1))
        strides = [(2, 2) if layer < 2 else (2, 1) for layer in range(len(config.conv_channels))]
        self.convolutions = nn.ModuleList()
        channels, bands = 1, config.mel_bands
        for width, stride in zip(config.conv_channels, strides, strict=True):
            self.convolutions.append(ConvBatchNormReLU(channels, width, stride))
            channels, bands = width, -(-bands // 2)
        self.reduce = nn.Linear(channels * bands, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.hidden, config.hidden, batch_first=True)

    def standardize_by(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the standardisation from training data: two vectors of one value a band."""
        self.mean.copy_(mean.view_as(self.mean))
        self.deviation.copy_(deviation.view_as(self.deviation))

    def forward(self, log_mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask_of(lengths, log_mel.shape[2])
        maps = ((log_mel - self.mean) / self.deviation).unsqueeze(1)  # (B, 1, 80, T)
        maps = maps * mask[:, None, None, :]
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
    """Weighted mean and deviation of the rows, one learnt weight a row (Okabe et al., Interspeech 2018).

    Masked rows weigh nothing. The norm at the end takes away what all utterances share, which is most of it: without
    it the head saw almost the same vector for every utterance, and learning took several times as long.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1, bias=False))
        self.norm = nn.BatchNorm1d(2 * hidden)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(B, n, hidden) and bool (B, n) → (B, 2 hidden)."""
        weights = self.score(rows).masked_fill(~mask[:, :, None], float("-inf")).softmax(1)  # (B, n, 1)
        mean = (weights * rows).sum(1)
        variance = (weights * (rows - mean[:, None]).square()).sum(1)
        return cast(Tensor, self.norm(torch.cat((mean, (variance + VARIANCE_FLOOR).sqrt()), 1)))


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
