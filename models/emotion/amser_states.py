"""The network that ships with Amser: Amser+ on the recogniser's encoder states, usable without voice or without text.

The lower states of Whisper's encoder, which the ASR stage computes, join the log-Mel as a fourth modality. Their branch
adds layers of its own, initialised from Whisper's next ones and trained for emotion. A voice network and a text
network, each usable alone, are fused as in Amser+ (R12). Their own logits are added to the fused ones, so that a
missing modality costs no more than its own contribution. The logits of a logistic regression on mean and deviation of
the states are added too: it errs on other utterances than the voice network (docs/decisions/0004).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.emotion.attention import SA, CoAttention, MultiHeadAttention
from models.emotion.batch import FusionBatch, mask_of
from models.emotion.branches import AudioBranch, ContextBranch, WordBranch
from models.emotion.config import FusionConfig
from models.emotion.network import FusionOutput, JointNetwork, Rows, fuse

FIRST_JOINT_SCALE = 0.1  # of the fused logits: training starts near the sum of the voice and text logits


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
    """Encoder states (B, s, state_width) → (B, s, hidden)."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width = config.state_width
        self.layers = nn.ModuleList(EncoderLayer(width, config.state_heads) for _ in range(config.state_layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width, config.hidden)
        self.linear_norm = nn.LayerNorm(config.hidden)

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        mask = mask_of(lengths, states.shape[1])
        width = self.norm.weight.dtype
        states = states.to(self._layer_dtype())
        for layer in self.layers:
            states = layer(states, mask)
        rows = self.linear_norm(self.linear(self.dropout(self.norm(states.to(width)))))
        return functional.gelu(rows) * mask[:, :, None], mask

    def narrow_layers(self, dtype: torch.dtype) -> None:
        """Let the layers, most of the network's work, compute in another precision, to answer but not to train."""
        self.layers.to(dtype)

    def _layer_dtype(self) -> torch.dtype:
        return next((value.dtype for value in self.layers.parameters()), torch.float32)


class EncodedVoice(NamedTuple):
    """Rows (B, n, hidden), 25 a second, with mask (B, n), and the answer of the voice alone."""

    rows: Tensor
    mask: Tensor
    alone: FusionOutput


class EncodedText(NamedTuple):
    """Rows of words (B, n, hidden) and of context (B, m, hidden) with masks, and the answer of the text alone."""

    words: Tensor
    word_mask: Tensor
    context: Tensor
    context_mask: Tensor
    alone: FusionOutput


class VoiceNetwork(JointNetwork):
    """An emotion from `states`, `mel` or both: rows of both stand for the same 40 ms and are added."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.modalities = tuple(name for name in ("states", "mel") if name in config.modalities)
        if not self.modalities:
            raise ValueError(f"a voice needs states or mel, but the modalities are {config.modalities}")
        self.states = StateBranch(config) if "states" in config.modalities else None
        self.audio = AudioBranch(config) if "mel" in config.modalities else None
        self.add_joint_head(config.heads)

    def encode(self, batch: FusionBatch) -> EncodedVoice:
        """Rows and answer of B voices."""
        if self.states is None:
            assert self.audio is not None
            rows, mask = self.audio(batch.log_mel, batch.mel_lengths)
        else:
            rows, mask = self.states(batch.states, batch.state_lengths)
            if self.audio is not None:
                frames, _ = self.audio(batch.log_mel, batch.mel_lengths)
                rows = rows + _match_length(frames, rows) * mask[:, :, None]
        return EncodedVoice(rows, mask, self.answer_joint(rows, mask))

    def forward(self, batch: FusionBatch) -> FusionOutput:
        return self.encode(batch).alone


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

    def encode(self, batch: FusionBatch) -> EncodedText:
        """Rows and answer of B texts."""
        words, word_mask = self.words(batch.words, batch.word_lengths)
        context, context_mask = self.context(batch.context, batch.context_lengths)
        context = self.context_norm(context)
        mask = torch.cat((word_mask, context_mask), 1)
        joint = self.joint(torch.cat((words, context), 1), mask)
        return EncodedText(words, word_mask, context, context_mask, self.answer_joint(joint, mask))

    def forward(self, batch: FusionBatch) -> FusionOutput:
        return self.encode(batch).alone


class AmserStates(JointNetwork):
    """Voice and text, fused as in Amser+: words guide the voice, the two are added, context guides the sum (R12)."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        sizes = (config.hidden, config.heads, config.feed_forward)
        self.voice = VoiceNetwork(config)
        self.text = TextNetwork(config)
        self.modalities = (*self.voice.modalities, *self.text.modalities)
        self.voice_words = CoAttention(*sizes, config.layers, config.dropout)
        self.fused_context = CoAttention(*sizes, config.layers, config.dropout)
        self.joint = SA(*sizes, config.dropout)
        self.statistics = _zero_head(config) if self.voice.states is not None else None
        self.no_voice = nn.Parameter(torch.zeros(config.hidden))
        self.no_text = nn.Parameter(torch.zeros(config.hidden))
        self.add_joint_head(config.heads)
        self.voice_weight = nn.Parameter(torch.ones(()))
        self.text_weight = nn.Parameter(torch.ones(()))
        with torch.no_grad():
            self.predictor.weight.mul_(FIRST_JOINT_SCALE)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        voice, text = self.voice.encode(batch), self.text.encode(batch)
        joint, joint_mask = fuse(
            self.voice_words,
            self.fused_context,
            self.joint,
            _or_placeholder(voice.rows, voice.mask, batch.has_voice, self.no_voice),
            _or_placeholder(text.words, text.word_mask, batch.has_text, self.no_text),
            _or_placeholder(text.context, text.context_mask, batch.has_text, self.no_text),
            self.config.common_length,
        )
        answer = self.answer_joint(joint, joint_mask)
        voice_logits = self.voice_weight * voice.alone.logits
        if self.statistics is not None:
            voice_logits = voice_logits + self.statistics(statistics_over_time(batch.states, batch.state_lengths))
        text_logits = self.text_weight * text.alone.logits
        logits = answer.logits + voice_logits * batch.has_voice[:, None] + text_logits * batch.has_text[:, None]
        return FusionOutput(logits, answer.embedding)


def statistics_over_time(states: Tensor, lengths: Tensor) -> Tensor:
    """Mean and deviation of states (B, n, width) over the first `lengths` (B,) rows of each: (B, 2 width)."""
    rows, mask = states.float(), mask_of(lengths, states.shape[1])[:, :, None]
    count = lengths.clamp(min=1)[:, None]
    mean = (rows * mask).sum(1) / count
    variance = ((rows - mean[:, None]) * mask).square().sum(1) / count
    return torch.cat((mean, variance.sqrt()), 1)


def _zero_head(config: FusionConfig) -> nn.Linear:
    """A layer of zeros: adds nothing until fitted weights are loaded into it (`training.fitting.curriculum`)."""
    head = nn.Linear(2 * config.state_width, len(config.classes))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _or_placeholder(rows: Tensor, mask: Tensor, present: Tensor, placeholder: Tensor) -> Rows:
    """Rows (B, n, hidden) with mask (B, n); where `present` (B,) is False, one row `placeholder` in their place."""
    first = torch.zeros_like(mask)
    first[:, 0] = True
    absent = first[:, :, None] * placeholder
    return torch.where(present[:, None, None], rows, absent), torch.where(present[:, None], mask, first)


def _match_length(rows: Tensor, others: Tensor) -> Tensor:
    """Cut or pad rows (B, n, hidden) with zeros to the length of others."""
    return functional.pad(rows, (0, 0, 0, others.shape[1] - rows.shape[1]))
