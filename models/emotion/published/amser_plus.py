"""Amser+ (Lu et al., IEEE Internet of Things Journal 2025, section IV): audio, words and context (R9 to R18)."""

from __future__ import annotations

from models.emotion.attention import SA, CoAttention
from models.emotion.batch import FusionBatch
from models.emotion.branches import AudioBranch, ContextBranch, WordBranch
from models.emotion.config import FusionConfig
from models.emotion.network import FusionOutput, JointNetwork, fuse


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
