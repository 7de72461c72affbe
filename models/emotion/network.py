"""The base classes of every emotion network.

`models.emotion.amser_states` is the network that ships, `models.emotion.published` holds those of the papers, and
`models.emotion.registry` finds each by its name. Branches bring each modality to one width, co-attention fuses them,
two heads give logits and an embedding. Padding never changes an answer: convolutions see zeros where an unpadded input
would end, and every later layer is masked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from models.emotion.batch import FusionBatch
from models.emotion.branches import AttentiveStatistics, StandardizedMel
from models.emotion.config import FusionConfig


class FusionOutput(NamedTuple):
    """The output of the two heads for B utterances.

    Attributes:
        logits: (B, classes), before softmax.
        embedding: (B, projection_width), of unit length.
    """

    logits: Tensor
    embedding: Tensor


class FusionNetwork(nn.Module, ABC):
    """Any network of `models.emotion.registry`: reads a `FusionBatch`, answers with a `FusionOutput`.

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
        """Logits and embeddings of B utterances."""

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
        """(B, width) → the output of both heads."""
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
        """Joint rows (B, n, hidden) with bool mask (B, n) → the output of both heads."""
        pooled = self.pooling(joint, mask)
        return self.answer(functional.relu(self.shared(self.head_dropout(pooled))))
