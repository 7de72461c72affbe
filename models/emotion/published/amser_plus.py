"""Amser+ (Lu et al., IEEE Internet of Things Journal 2025, section IV): audio, words and context (R9 to R18)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.emotion.attention import SA, CoAttention
from models.emotion.batch import FusionBatch
from models.emotion.branches import AudioBranch, ContextBranch, WordBranch, pool_to_length
from models.emotion.config import FusionConfig
from models.emotion.network import FusionOutput, JointNetwork

PUBLISHED = ("mel", "words", "context")
Rows = tuple[Tensor, Tensor]  # (B, n, hidden) and the bool mask (B, n) of those that are real


class AmserPlus(JointNetwork):
    """Amser+: words guide audio, the two are added, context guides the sum, self-attention reads both (R12).

    `modalities` of its config may be some of `mel`, `words` and `context` (the papers' Table VI). Of the others there
    is no branch, and of the fusion what is left over has no layers:

    - audio and words: words guide audio, and self-attention reads the sum;
    - context and one other: context guides that other's rows, which keep their number, and self-attention reads both;
    - one: self-attention reads its rows.

    Modalities that it cannot read, as the default of `FusionConfig` has them, are not a choice: it then reads all
    three.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        is_choice = bool(config.modalities) and set(config.modalities) <= set(PUBLISHED)
        self.modalities = tuple(name for name in PUBLISHED if not is_choice or name in config.modalities)
        has_audio, has_words, has_context = (name in self.modalities for name in PUBLISHED)
        sizes = (config.hidden, config.heads, config.feed_forward)
        stacks = (*sizes, config.layers, config.dropout)
        self.audio = AudioBranch(config) if has_audio else None
        self.words = WordBranch(config) if has_words else None
        self.context = ContextBranch(config) if has_context else None
        self.audio_words = CoAttention(*stacks) if has_audio and has_words else None
        self.fused_context = CoAttention(*stacks) if has_context and (has_audio or has_words) else None
        self.joint = SA(*sizes, config.dropout)
        self.add_joint_head()

    def forward(self, batch: FusionBatch) -> FusionOutput:
        fused = self._audio_and_words(batch)
        context = None if self.context is None else self.context(batch.context, batch.context_lengths)
        rows, mask = self._joined(fused, context)
        return self.answer_joint(self.joint(rows, mask), mask)

    def _audio_and_words(self, batch: FusionBatch) -> Rows | None:
        """The sum of both, pooled to `common_length` rows; one alone as it is."""
        audio = None if self.audio is None else self.audio(batch.log_mel, batch.mel_lengths)
        words = None if self.words is None else self.words(batch.words, batch.word_lengths)
        if audio is None or words is None or self.audio_words is None:
            return words if audio is None else audio
        length = self.config.common_length
        words_seen, audio_seen = self.audio_words(*words, *audio)
        fused = pool_to_length(audio_seen, audio[1], length) + pool_to_length(words_seen, words[1], length)
        return fused, torch.ones(fused.shape[:2], dtype=torch.bool, device=fused.device)

    def _joined(self, fused: Rows | None, context: Rows | None) -> Rows:
        """Rows (B, n + m, hidden): those of `fused`, guided by context, then the m of context; one alone as it is."""
        if fused is None or context is None or self.fused_context is None:
            alone = context if fused is None else fused
            assert alone is not None
            return alone
        context_seen, rows = self.fused_context(*context, *fused)
        return torch.cat((rows, context_seen), 1), torch.cat((fused[1], context[1]), 1)
