"""The two published networks that turn log-Mel, words and context into an emotion, and what every network shares.

`Amser` (ICASSP 2025, R13) fuses audio with context; `AmserPlus` (IoT-J 2025, section IV, R9 to R18) audio with words,
then the result with context. Branches bring each modality to one width, co-attention fuses them, two heads answer.
`fusion.models` finds a network by its name. Padding never changes an answer: convolutions see zeros where an unpadded
input would end, and every later layer is masked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.attention import SA, CoAttention
from fusion.batch import FusionBatch
from fusion.branches import (
    AttentiveStatistics,
    AudioBranch,
    ContextBranch,
    StandardizedMel,
    WordBranch,
    pool_to_length,
)

Rows = tuple[Tensor, Tensor]  # (B, n, hidden) and the bool mask (B, n) of those that are real


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """Which network, and its sizes; a checkpoint carries them.

    The published settings (heads 4, hidden 512, feed-forward 1024, 2 layers) belong to 5,531 IEMOCAP utterances. The
    defaults are smaller, for corpora of about a thousand.

    Attributes:
        classes: names of the emotions, in the order of the logits.
        model: name of the network, a key of `fusion.models.MODELS`.
        mel_bands: rows of the log-Mel.
        word_width: width of a word vector.
        context_width: width of the contextual encoder's token states, from that encoder's own config.
        state_width: width of a row of the recogniser's encoder states, for a network that reads them.
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
        modalities: what `fusion.amser_states` reads of `mel`, `states`, `words` and `context`; the published networks
            and the rivals read what their papers say.
        state_layers: layers that it puts on top of the encoder states.
        state_heads: attention heads of these layers; 8 in Whisper base.
    """

    classes: tuple[str, ...]
    model: str = "amser-plus"
    mel_bands: int = 80
    word_width: int = 300
    context_width: int = 768
    state_width: int = 512
    conv_channels: tuple[int, ...] = (16, 32, 48)
    hidden: int = 128
    heads: int = 4
    feed_forward: int = 256
    layers: int = 2
    common_length: int = 60
    projection_width: int = 128
    dropout: float = 0.1
    head_dropout: float = 0.5
    modalities: tuple[str, ...] = ("states", "words", "context")
    state_layers: int = 2
    state_heads: int = 8


class FusionOutput(NamedTuple):
    """What the two heads say of B utterances.

    Attributes:
        logits: (B, classes), before softmax.
        embedding: (B, projection_width), of unit length.
    """

    logits: Tensor
    embedding: Tensor


class FusionNetwork(nn.Module, ABC):
    """Any network of `fusion.models`: reads a `FusionBatch`, answers with a `FusionOutput`.

    A subclass adds its heads last: weights are drawn in the order of the data's way through the network.

    Attributes:
        modalities: what it reads of `mel`, `states`, `words` and `context`.
        config: its name and sizes.
        predictor: head for the classes (R18).
        projector: head for contrastive learning (R18); without that term in the loss it stays as it was drawn.
    """

    modalities: tuple[str, ...]
    predictor: nn.Linear
    projector: nn.Linear

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, batch: FusionBatch) -> FusionOutput:
        """Answer B utterances."""

    def standardize_by(self, mean: Tensor, deviation: Tensor) -> None:
        """Give the audio branch, if there is one, the mean and deviation of each Mel band in the training data."""
        for module in self.modules():
            if isinstance(module, StandardizedMel):
                module.standardize_by(mean, deviation)

    def add_heads(self, width: int) -> None:
        """Two one-layer heads on a vector of `width` values an utterance."""
        self.predictor = nn.Linear(width, len(self.config.classes))
        self.projector = nn.Linear(width, self.config.projection_width)

    def answer(self, vectors: Tensor) -> FusionOutput:
        """(B, width) → what both heads say."""
        return FusionOutput(self.predictor(vectors), functional.normalize(self.projector(vectors), dim=1))


class JointNetwork(FusionNetwork):
    """A network that ends in one joint sequence: pooled, then a layer shared by both heads.

    The layers stand here, not in a module of their own, because checkpoints know them by these names.
    """

    def add_joint_head(self, pooling_heads: int = 1) -> None:
        """Add all that follows the joint sequence."""
        hidden = self.config.hidden
        self.pooling = AttentiveStatistics(hidden, pooling_heads)
        self.head_dropout = nn.Dropout(self.config.head_dropout)
        self.shared = nn.Linear(2 * pooling_heads * hidden, hidden)
        self.add_heads(hidden)

    def answer_joint(self, joint: Tensor, mask: Tensor) -> FusionOutput:
        """Joint rows (B, n, hidden) with bool mask (B, n) → what both heads say."""
        pooled = self.pooling(joint, mask)
        return self.answer(functional.relu(self.shared(self.head_dropout(pooled))))


class Amser(JointNetwork):
    """AMSER: audio, guided by context, beside context; it reads no words (R13).

    The paper does not say which modality guides: here context does, as the later paper lets it guide the fused stream.
    The two are concatenated as sequences. The published recipe trains with cross-entropy alone.
    """

    modalities = ("mel", "context")

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.audio = AudioBranch(config)
        self.context = ContextBranch(config)
        self.audio_context = CoAttention(
            config.hidden, config.heads, config.feed_forward, config.layers, config.dropout
        )
        self.add_joint_head()

    def forward(self, batch: FusionBatch) -> FusionOutput:
        audio, audio_mask = self.audio(batch.log_mel, batch.mel_lengths)
        context, context_mask = self.context(batch.context, batch.context_lengths)
        context, audio = self.audio_context(context, context_mask, audio, audio_mask)
        joint = torch.cat((audio, context), 1)  # (B, ⌈T/4⌉ + m, hidden)
        return self.answer_joint(joint, torch.cat((audio_mask, context_mask), 1))


class AmserPlus(JointNetwork):
    """Amser+: words guide audio, the two are added, context guides the sum, self-attention reads both (R12)."""

    modalities = ("mel", "words", "context")

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        sizes = (config.hidden, config.heads, config.feed_forward)
        self.audio = AudioBranch(config)
        self.words = WordBranch(config)
        self.context = ContextBranch(config)
        self.audio_words = CoAttention(*sizes, config.layers, config.dropout)
        self.fused_context = CoAttention(*sizes, config.layers, config.dropout)
        self.joint = SA(*sizes, config.dropout)
        self.add_joint_head()

    def forward(self, batch: FusionBatch) -> FusionOutput:
        audio, audio_mask = self.audio(batch.log_mel, batch.mel_lengths)
        words, word_mask = self.words(batch.words, batch.word_lengths)
        context, context_mask = self.context(batch.context, batch.context_lengths)

        joint, joint_mask = fuse(
            self.audio_words,
            self.fused_context,
            self.joint,
            (audio, audio_mask),
            (words, word_mask),
            (context, context_mask),
            self.config.common_length,
        )
        return self.answer_joint(joint, joint_mask)


def fuse(
    audio_words: CoAttention,
    fused_context: CoAttention,
    joint: SA,
    audio: Rows,
    words: Rows,
    context: Rows,
    length: int,
) -> Rows:
    """Words guide audio, both are pooled to `length` rows and added, context guides the sum, `joint` reads both (R12).

    Returns:
        Rows (B, length + m, hidden), m those of context.
    """
    words_seen, audio_seen = audio_words(*words, *audio)
    fused = pool_to_length(audio_seen, audio[1], length) + pool_to_length(words_seen, words[1], length)
    fused_mask = torch.ones(fused.shape[:2], dtype=torch.bool, device=fused.device)
    context_seen, fused = fused_context(*context, fused, fused_mask)
    mask = torch.cat((fused_mask, context[1]), 1)
    return joint(torch.cat((fused, context_seen), 1), mask), mask
