"""AMSER (Lu et al., ICASSP 2025): audio and contextual text states, fused by co-attention (R13)."""

from __future__ import annotations

import torch

from models.emotion.attention import CoAttention
from models.emotion.batch import FusionBatch
from models.emotion.branches import AudioBranch, ContextBranch
from models.emotion.config import FusionConfig
from models.emotion.network import FusionOutput, JointNetwork


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
