"""The network that ships with Amser: voice and text, each usable alone, and the sum of what both say.

The voice reads the lower states of Whisper's encoder, which join the log-Mel as a fourth modality. What reads them is
an average of three, and the styles of its inputs are mixed in training: a large network alone learns the corpora that
teach it instead of emotions (docs/decisions/0004). The text reads word vectors and the contextual encoder's states.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.emotion.attention import SA, MultiHeadAttention
from models.emotion.batch import FusionBatch, mask_of
from models.emotion.branches import AudioBranch, ContextBranch, WordBranch
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork, FusionOutput, JointNetwork

MIXING: Final = 0.3  # both parameters of the Beta distribution of shares: most mixtures are nearly one or the other
DEVIATION_FLOOR: Final = 1e-3  # of states over time: silence has none


class EncoderLayer(nn.Module):
    """A layer of Whisper's encoder (Radford et al. 2022): norms first, GELU, and nothing is dropped."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """(B, n, width) and bool (B, n) → (B, n, width)."""
        normed = self.attention_norm(rows)
        rows = rows + self.attention(normed, normed, mask)
        return rows + cast(Tensor, self.feed_forward(self.feed_forward_norm(rows)))


class StateBranch(nn.Module):
    """Encoder states (B, s, state_width) → (B, s, hidden); with layers of its own it reads the last source alone."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width = config.state_width // config.state_sources if config.state_layers else config.state_width
        self.layers = nn.ModuleList(EncoderLayer(width, config.state_heads) for _ in range(config.state_layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width, config.hidden)
        self.linear_norm = nn.LayerNorm(config.hidden)

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask_of(lengths, states.shape[1])
        rows = states[:, :, -self.norm.weight.shape[0] :].to(self._layer_dtype())
        for layer in self.layers:
            rows = layer(rows, mask)
        rows = self.linear_norm(self.linear(self.dropout(self.norm(rows.to(self.norm.weight.dtype)))))
        return functional.gelu(rows) * mask[:, :, None], mask

    def narrow_layers(self, dtype: torch.dtype) -> None:
        """Let the layers, most of the network's work, compute in another precision, to answer but not to train."""
        self.layers.to(dtype)

    def _layer_dtype(self) -> torch.dtype:
        return next((value.dtype for value in self.layers.parameters()), torch.float32)


class StatisticsHead(nn.Module):
    """A linear layer on mean and deviation of the states, standardised: what a linear probe reads, as a head."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * config.state_width)
        self.dropout = nn.Dropout(config.head_dropout)
        self.predictor = nn.Linear(2 * config.state_width, len(config.classes))
        nn.init.zeros_(self.predictor.weight)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """States (B, s, state_width) → logits (B, classes)."""
        return cast(Tensor, self.predictor(self.dropout(self.norm(statistics_over_time(states, lengths)))))


class VoiceReader(JointNetwork):
    """An emotion from the states, or from the log-Mel."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.states = StateBranch(config) if "states" in config.modalities else None
        self.audio = AudioBranch(config) if self.states is None else None
        self.add_joint_head(config.heads)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        if self.states is not None:
            return self.answer_joint(*self.states(batch.states, batch.state_lengths))
        assert self.audio is not None
        return self.answer_joint(*self.audio(batch.log_mel, batch.mel_lengths))


class VoiceNetwork(FusionNetwork):
    """An emotion from the voice; with `ensemble` the mean of the probabilities of three that err differently.

    `deep` goes on with layers of its own on the encoder states: the best with speakers like those that taught it.
    `shallow`, without these layers, and `statistics` are better with voices, rooms and languages that are new.

    In training the logits are those of all members, (members B, classes): each is compared with the labels.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.modalities = tuple(name for name in ("states", "mel") if name in config.modalities)
        if len(self.modalities) != 1:
            raise ValueError(f"a voice reads states or mel, but the modalities are {config.modalities}")
        if config.ensemble and "mel" in self.modalities:
            raise ValueError("the three of an ensemble read states, not mel")
        self.deep = VoiceReader(config)
        self.shallow = VoiceReader(replace(config, state_layers=0)) if config.ensemble else None
        self.statistics = StatisticsHead(config) if config.ensemble else None

    def forward(self, batch: FusionBatch) -> FusionOutput:
        if self.training and self.config.style_mixing:
            batch = replace(batch, states=mix_styles(batch.states, batch.state_lengths, self.config.style_mixing))
        answer = self.deep(batch)
        if self.shallow is None or self.statistics is None:
            return cast(FusionOutput, answer)
        members = (answer.logits, self.shallow(batch).logits, self.statistics(batch.states, batch.state_lengths))
        if self.training:
            return FusionOutput(torch.cat(members), answer.embedding)
        return FusionOutput(torch.stack(members).float().log_softmax(2).logsumexp(0), answer.embedding)


def mix_styles(states: Tensor, lengths: Tensor, probability: float) -> Tensor:
    """Give utterances of a batch the mean and deviation over time of a mixture of their own and another one's.

    Zhou et al., Domain Generalization with MixStyle, ICLR 2021: speaker, room and corpus are in these statistics more
    than emotion is, so a network that sees them mixed relies on them less. The utterance's own share is the larger.

    Args:
        states: (B, s, width).
        lengths: int64 (B,), how many rows of each are real.
        probability: that an utterance is mixed.
    """
    mask = mask_of(lengths, states.shape[1])[:, :, None]
    mean, deviation = statistics_over_time(states, lengths)[:, None].chunk(2, dim=2)  # (B, 1, width) each
    deviation = deviation + DEVIATION_FLOOR
    shares = torch.distributions.Beta(MIXING, MIXING).sample((len(states), 1, 1)).to(states.device)
    others = torch.minimum(shares, 1 - shares) * (torch.rand_like(shares) < probability)
    order = torch.randperm(len(states), device=states.device)
    mixed_mean = mean + others * (mean[order] - mean)
    mixed_deviation = deviation + others * (deviation[order] - deviation)
    mixed: Tensor = ((states - mean) / deviation * mixed_deviation + mixed_mean) * mask
    return mixed


class TextNetwork(JointNetwork):
    """An emotion from word vectors and the contextual encoder's token states."""

    modalities = ("words", "context")

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.words = WordBranch(config)
        self.context = ContextBranch(config)
        self.context_norm = nn.LayerNorm(config.hidden)
        self.joint = SA(config.hidden, config.heads, config.feed_forward, config.dropout)
        self.add_joint_head(config.heads)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        words, word_mask = self.words(batch.words, batch.word_lengths)
        context, context_mask = self.context(batch.context, batch.context_lengths)
        mask = torch.cat((word_mask, context_mask), 1)
        joint = self.joint(torch.cat((words, self.context_norm(context)), 1), mask)
        return self.answer_joint(joint, mask)


class AmserStates(FusionNetwork):
    """The log-probabilities of voice and text, each calibrated, summed: the answer of two witnesses that err apart.

    A modality that an utterance lacks adds nothing. The weights are the inverse temperatures of the two and are fitted
    on voices and sentences that taught nothing (`training.fitting`), not learnt with the networks. A co-attention of
    both, as in Amser+, was fed by a voice that knew its training utterances, and cost seven points of accuracy with
    voices of another corpus (docs/decisions/0004).
    """

    voice_weight: Tensor
    text_weight: Tensor

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.voice = VoiceNetwork(config)
        self.text = TextNetwork(config)
        self.modalities = (*self.voice.modalities, *self.text.modalities)
        self.register_buffer("voice_weight", torch.ones(()))
        self.register_buffer("text_weight", torch.ones(()))

    def forward(self, batch: FusionBatch) -> FusionOutput:
        voice, text = self.voice(batch), self.text(batch)
        has_voice, has_text = batch.has_voice[:, None], batch.has_text[:, None]
        logits = self.voice_weight * voice.logits.log_softmax(1) * has_voice
        logits = logits + self.text_weight * text.logits.log_softmax(1) * has_text
        embedding = functional.normalize(voice.embedding * has_voice + text.embedding * has_text, dim=1)
        return FusionOutput(logits, embedding)


def statistics_over_time(states: Tensor, lengths: Tensor) -> Tensor:
    """Mean and deviation of states (B, n, width) over the first `lengths` (B,) rows of each: (B, 2 width)."""
    rows, mask = states.float(), mask_of(lengths, states.shape[1])[:, :, None]
    count = lengths.clamp(min=1)[:, None]
    mean = (rows * mask).sum(1) / count
    variance = ((rows - mean[:, None]) * mask).square().sum(1) / count
    return torch.cat((mean, variance.sqrt()), 1)
