"""What training minimises: cross-entropy and supervised contrast (IoT-J 2025, equations 7 and 8, R16 to R19).

Every utterance passes twice; the passes differ in dropout alone unless augmentation made two views of it. A queue of
keys from a slowly moving copy of the network adds more utterances to contrast with than a batch holds.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.emotion.batch import FusionBatch
from models.emotion.network import FusionNetwork, FusionOutput
from training.data.dataset import NO_CLASS


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """How much contrast, and against what.

    Attributes:
        alpha: weight of the contrast beside cross-entropy, in equation 8; 0 for cross-entropy alone, which then takes
            one pass of the network, no queue and no second network.
        temperature: τ of equation 7. The paper's 1 hardly tells unit vectors apart, whose products lie within ±1;
            0.1 is the choice of Khosla et al. 2020.
        queue: keys that are kept, one for each utterance of the latest steps. The paper's 16,384 would hold every
            utterance of IEMOCAP several times; 0 contrasts within the batch alone.
        momentum: share of its weights that the slowly moving copy keeps in a step (m of He et al. 2020, equation 2).
        label_smoothing: of the cross-entropy.
    """

    alpha: float = 0.5
    temperature: float = 0.1
    queue: int = 4096
    momentum: float = 0.999
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.temperature <= 0 or self.queue < 0 or not 0 <= self.momentum <= 1:
            raise ValueError(f"alpha and queue ≥ 0, temperature > 0 and momentum of 0 to 1 are possible; got {self}")


class Losses(NamedTuple):
    """Scalars of one batch.

    Attributes:
        total: (cross_entropy + α contrast) / (1 + α), equation 8; what is minimised.
        cross_entropy: mean over the views.
        contrast: equation 7; 0 where α is.
    """

    total: Tensor
    cross_entropy: Tensor
    contrast: Tensor


def masked_cross_entropy(
    logits: Tensor, labels: Tensor, possible: Tensor, class_weights: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy among the classes that are possible for each utterance.

    An utterance says nothing about a class that its corpus does not label: its logit gets no gradient. The smoothed
    share of a label goes to the possible classes alone. `NO_CLASS` is taught equal probabilities of all classes.

    Args:
        logits: float, (B, classes).
        labels: int64, (B,), numbers of possible classes, or `NO_CLASS`.
        possible: bool, (B, classes).
        class_weights: float, (classes,); the mean over the batch is weighted by those of the labels, as in torch.
        label_smoothing: share of the probability that is spread over the possible classes.

    Returns:
        A scalar.
    """
    has_class = labels != NO_CLASS
    possible = possible | ~has_class[:, None]
    spread = possible / possible.sum(1, keepdim=True)
    known = labels.clamp(min=0)
    exact = nn.functional.one_hot(known, logits.shape[1]).to(spread.dtype)
    smoothing = torch.where(has_class, label_smoothing, 1.0)[:, None]
    target = ((1 - smoothing) * exact + smoothing * spread) * class_weights
    likely = logits.masked_fill(~possible, -torch.inf).log_softmax(1).masked_fill(~possible, 0.0)
    weights = torch.where(has_class, class_weights[known], 1.0)
    return -(target * likely).sum() / weights.sum()


def supervised_contrast(
    embeddings: Tensor,
    labels: Tensor,
    ids: Tensor,
    queue_keys: Tensor,
    queue_labels: Tensor,
    queue_ids: Tensor,
    temperature: float,
) -> Tensor:
    """Equation 7 (Khosla et al. 2020, equation 2), as a mean over the anchors that have positives.

    I is the batch; A(i) is I without i, and the queue without the utterance of i, whose old keys would only measure
    how far the network has moved since; P(i) is what of A(i) has the label of i, the other view of its utterance
    included.

    Args:
        embeddings: float, (n, d), of unit length; all views of all utterances.
        labels: int64, (n,).
        ids: int64, (n,), which utterance of the corpus an embedding shows.
        queue_keys: float, (m, d), of unit length, without gradient; m may be 0.
        queue_labels: int64, (m,).
        queue_ids: int64, (m,).
        temperature: τ.

    Returns:
        A scalar; 0 if no anchor has a positive.
    """
    others = torch.cat((embeddings, queue_keys))
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    left_out = torch.cat((itself, ids[:, None] == queue_ids), 1)  # (n, n + m)
    positive = (labels[:, None] == torch.cat((labels, queue_labels))) & ~left_out

    positives = positive.sum(1)
    anchors = positives > 0
    if not anchors.any():
        return embeddings.sum() * 0  # so that backward() works whatever the batch
    similarity = embeddings[anchors] @ others.T / temperature
    log_denominator = similarity.masked_fill(left_out[anchors], -torch.inf).logsumexp(1)
    mean_positive = (similarity * positive[anchors]).sum(1) / positives[anchors]
    return (log_denominator - mean_positive).mean()


class ContrastQueue(nn.Module):
    """The latest keys with label and utterance, in a ring: once full, the oldest make room (He et al. 2020, MoCo).

    Args:
        size: keys that fit in.
        width: of a key.
    """

    keys: Tensor
    labels: Tensor
    ids: Tensor
    enqueued: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("keys", torch.zeros(size, width))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.int64))  # since the start; may exceed the size

    def __len__(self) -> int:
        return min(int(self.enqueued), self.size)

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """What is in the queue, in no particular order: keys (m, width), labels (m,), ids (m,)."""
        filled = len(self)
        return self.keys[:filled], self.labels[:filled], self.ids[:filled]

    def enqueue(self, keys: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Add keys (n, width) with labels (n,) and ids (n,); of more than fit, the last ones stay."""
        first = max(0, len(keys) - self.size)
        positions = (self.enqueued + torch.arange(first, len(keys), device=self.keys.device)) % self.size
        self.keys[positions] = keys[first:].detach().float()
        self.labels[positions] = labels[first:]
        self.ids[positions] = ids[first:]
        self.enqueued += len(keys)


class MomentumEncoder(nn.Module):
    """A slowly moving copy of the network, so that keys of different steps can be compared (He et al. 2020, MoCo).

    It stays in training mode: keys then differ from embeddings of the batch in age alone, not in dropout or in how
    BatchNorm sees them, and each is one more random view of its utterance.

    Args:
        network: what to copy.
        momentum: share of the weights that is kept in a step, in the long run.
    """

    updates: Tensor

    def __init__(self, network: FusionNetwork, momentum: float = 0.999) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.momentum = momentum
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: FusionNetwork) -> None:
        """Move the weights towards those of the network; buffers (BatchNorm's statistics) are copied."""
        momentum = self.momentum_at(int(self.updates))
        for kept, fresh in zip(self.network.parameters(), network.parameters(), strict=True):
            kept.lerp_(fresh, 1 - momentum)
        for statistic, latest in zip(self.network.buffers(), network.buffers(), strict=True):
            statistic.copy_(latest)
        self.updates += 1

    def momentum_at(self, update: int) -> float:
        """The momentum of an update, counted from 0.

        A thousand steps are a whole training on a small corpus, and 0.999^1000 = 0.37: the copy would remember the
        random start all along. So the momentum rises from 0.1.
        """
        return min(self.momentum, (1 + update) / (10 + update))

    @torch.no_grad()
    def forward(self, batch: FusionBatch) -> Tensor:
        """Keys (B, projection_width), of unit length, without gradient."""
        self.network.train()
        output: FusionOutput = self.network(batch)
        return output.embedding


class Objective(nn.Module):
    """Equation 8, with all that it remembers between steps; `state_dict()` after a step resumes it exactly.

    In each step of the training loop::

        losses = objective(network, views, labels, ids)
        losses.total.backward()
        optimizer.step()
        objective.after_step(network)

    Args:
        network: what is trained.
        config: how much contrast, and against what.
        class_weights: float32, (classes,), of the cross-entropy; None for equal ones.
    """

    class_weights: Tensor

    def __init__(self, network: FusionNetwork, config: ObjectiveConfig, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        classes = len(network.config.classes)
        self.register_buffer("class_weights", torch.ones(classes) if class_weights is None else class_weights)
        queued = config.queue if config.alpha else 0
        self.queue = ContrastQueue(queued, network.config.projection_width)
        self.momentum_encoder = MomentumEncoder(network, config.momentum) if queued else None
        self._to_enqueue: tuple[FusionBatch, Tensor, Tensor] | None = None

    def forward(
        self,
        network: FusionNetwork,
        views: Sequence[FusionBatch],
        labels: Tensor,
        ids: Tensor,
        possible: Tensor | None = None,
    ) -> Losses:
        """The losses of B utterances.

        Args:
            network: what is trained, in training mode.
            views: one batch, which contrast passes through the network twice (R19), or two differently augmented ones
                of the same utterances in the same order.
            labels: int64, (B,), numbers of the classes, or `NO_CLASS`.
            ids: int64, (B,), which utterance of the corpus each is.
            possible: bool, (B, classes), the classes that the corpus of each labels; None for all.
        """
        config = self.config
        passes = [views[0], views[0]] if config.alpha and len(views) == 1 else views
        outputs: list[FusionOutput] = [network(view) for view in passes]
        # An ensemble answers with the logits of each member in training: all learn, each by itself.
        members = len(outputs[0].logits) // len(labels)
        everything = torch.ones((len(labels), len(self.class_weights)), dtype=torch.bool, device=labels.device)
        allowed = (everything if possible is None else possible).repeat(members, 1)
        truth = labels.repeat(members)
        cross_entropy = torch.stack(
            [
                masked_cross_entropy(output.logits.float(), truth, allowed, self.class_weights, config.label_smoothing)
                for output in outputs
            ]
        ).mean()
        if not config.alpha:
            return Losses(cross_entropy, cross_entropy, torch.zeros_like(cross_entropy))
        contrast = supervised_contrast(
            torch.cat([output.embedding for output in outputs]).float(),
            labels.repeat(len(outputs)),
            ids.repeat(len(outputs)),
            *self.queue.entries(),
            config.temperature,
        )
        self._to_enqueue = (views[-1], labels, ids)
        return Losses((cross_entropy + config.alpha * contrast) / (1 + config.alpha), cross_entropy, contrast)

    def after_step(self, network: FusionNetwork) -> None:
        """Once the optimiser has stepped: move the copy, let it make keys of the batch, enqueue them.

        In that order, so that keys are as recent as can be. One key an utterance, of its last view: further ones would
        only push out those of other utterances.
        """
        if self.momentum_encoder is None or self._to_enqueue is None:
            return
        view, labels, ids = self._to_enqueue
        self.momentum_encoder.update(network)
        self.queue.enqueue(self.momentum_encoder(view), labels, ids)
        self._to_enqueue = None
