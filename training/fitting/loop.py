"""The training loop: gradients, schedule, early stopping, resuming. Knows nothing of corpora or recipes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.emotion.batch import UtteranceFeatures, collate
from models.emotion.network import FusionNetwork
from training.data.dataset import Sampler, shuffled_batches
from training.fitting.objective import Objective, ObjectiveConfig
from training.fitting.sampling import Draws

DEVIATION_FLOOR = 1e-3  # of the standardisation: a band that never changes stays finite
PRETRAINED = "states.layers."  # in a parameter's name: initialised from a layer of Whisper


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train.

    Attributes:
        epochs: length of the learning-rate schedule; early stopping may end sooner.
        early_stopping: keep the epoch with the best validation score; False trains to the end and keeps the last, for
            where a few speakers give too noisy a score.
        patience: epochs without a better validation score before stopping.
        batch_size: utterances in a step.
        steps_per_epoch: batches in an epoch, drawn with a balance of corpora and classes (`training.fitting.sampling`);
            None for as many as one pass over the utterances takes.
        learning_rate: peak of the schedule: linear warm-up, then cosine to zero.
        pretrained_learning_rate: peak for the layers initialised from Whisper.
        warmup: share of the schedule that warms up.
        weight_decay: of AdamW.
        gradient_norm: gradients are clipped to it.
        class_balance: how far rare classes weigh more: weights are frequencies to the minus this, 1 for equal shares of
            the loss, 0 for equal weights.
        averaging: decay of the exponential moving average of the weights, per step, which is what is judged and kept.
        bfloat16: compute products in bfloat16; several times faster where the processor has it, slower elsewhere.
        seed: of weights, order and augmentation.
    """

    epochs: int = 40
    early_stopping: bool = True
    patience: int = 12
    batch_size: int = 32
    steps_per_epoch: int | None = None
    learning_rate: float = 1e-3
    pretrained_learning_rate: float = 1e-4
    warmup: float = 0.1
    weight_decay: float = 1e-2
    gradient_norm: float = 1.0
    class_balance: float = 1.0
    averaging: float = 0.98
    bfloat16: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Epoch:
    """Loss and validation score of one epoch; `validation` is None where there is no validation part."""

    number: int
    loss: float
    validation: float | None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained network, in evaluation mode, on the CPU.

    Attributes:
        network: with the averaged weights of its best epoch, or of its last without early stopping.
        best_epoch: how many epochs those weights took.
        history: every epoch.
    """

    network: FusionNetwork
    best_epoch: int
    history: tuple[Epoch, ...]

    @property
    def validation(self) -> float:
        """The best score; 0 without a validation part."""
        return max((epoch.validation or 0.0 for epoch in self.history), default=0.0)


class Training:
    """A network being trained, epoch by epoch.

    Args:
        network: what to train, in place.
        config: how.
        objective: what to minimise.
        sampler: draws what it is trained on.
        validate: score of a network, more is better; None to take the last epoch.
        draws: balanced draws, with class weights of 1; None for one pass an epoch over what the sampler has.
        freeze: names of submodules that stay as they are.
        stop_after: end after so many epochs of the schedule.
        state_file: where the state is kept after every epoch and found again by a run that was interrupted.
    """

    def __init__(
        self,
        network: FusionNetwork,
        config: TrainingConfig,
        objective: ObjectiveConfig,
        sampler: Sampler,
        validate: Callable[[FusionNetwork], float] | None = None,
        *,
        draws: Draws | None = None,
        freeze: Sequence[str] = (),
        stop_after: int | None = None,
        state_file: Path | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self._random = np.random.default_rng(config.seed)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._config, self._sampler, self._validate = config, sampler, validate
        self._last_epoch = min(config.epochs, stop_after or config.epochs)
        self._state_file = state_file
        self._network = network.to(self._device)
        self._frozen = [network.get_submodule(name) for name in freeze]
        for part in self._frozen:
            part.requires_grad_(False)
        self._labels = sampler.labels
        self._lengths = sampler.lengths
        self._draws = draws
        classes = len(network.config.classes)
        weights = class_weights(self._labels, classes, config.class_balance) if draws is None else torch.ones(classes)
        self._objective = Objective(network, objective, weights).to(self._device)
        self._optimizer = torch.optim.AdamW(_groups(network, config), weight_decay=config.weight_decay, fused=True)
        one_pass = max(1, round(len(self._labels) / config.batch_size))
        self._steps_per_epoch = config.steps_per_epoch if draws and config.steps_per_epoch else one_pass
        steps = config.epochs * self._steps_per_epoch
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: warmup_cosine(step / steps, config.warmup)
        )
        self._averaged = copy.deepcopy(network).eval()
        self._best = copy.deepcopy(self._averaged)
        self._best_epoch, self._best_score = 0, -1.0
        self._history: list[Epoch] = []

    def run(self, report: Callable[[Epoch], None] = lambda _: None) -> Fitted:
        """Train to the end; `report` is told of every epoch, those of an interrupted run too."""
        self._resume()
        for epoch in self._history:
            report(epoch)
        while len(self._history) < self._last_epoch and not self._is_patience_lost():
            loss = self._train_epoch()
            number = len(self._history) + 1
            score = self._validate(self._averaged) if self._validate is not None else None
            self._history.append(Epoch(number, loss, score))
            if score is None or not self._config.early_stopping or score > self._best_score:
                self._best = copy.deepcopy(self._averaged)
                self._best_epoch, self._best_score = number, score if score is not None else -1.0
            self._save()
            report(self._history[-1])
        if self._state_file is not None:
            self._state_file.unlink(missing_ok=True)
        return Fitted(self._best.eval().cpu(), self._best_epoch, tuple(self._history))

    def _train_epoch(self) -> float:
        self._network.train()
        for part in self._frozen:
            part.eval()
        views = 2 if self._objective.config.alpha > 0 else 1
        losses: list[float] = []
        for indices in self._batches():
            drawn = [[self._sampler.draw(int(index), self._random) for index in indices] for _ in range(views)]
            batches = [collate([example.features for example in view]).to(self._device) for view in drawn]
            labels = torch.tensor([example.label for example in drawn[0]], device=self._device)
            ids = torch.from_numpy(indices).to(self._device)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bfloat16):
                total = self._objective(self._network, batches, labels, ids, self._possible(indices)).total
            self._optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(self._network.parameters(), self._config.gradient_norm)
            self._optimizer.step()
            self._schedule.step()
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._config.bfloat16):
                self._objective.after_step(self._network)
            losses.append(float(total.detach()))
            _average_into(self._averaged, self._network, _decay(self._config.averaging, self._schedule.last_epoch))
        return float(np.mean(losses))

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        size = self._config.batch_size
        if self._draws is None:
            return shuffled_batches(self._lengths, size, self._random)
        return self._draws.batches(self._lengths, size, self._steps_per_epoch, self._random)

    def _possible(self, indices: NDArray[np.int64]) -> Tensor | None:
        return None if self._draws is None else torch.from_numpy(self._draws.possible[indices]).to(self._device)

    def _is_patience_lost(self) -> bool:
        has_judge = self._validate is not None and self._config.early_stopping
        return has_judge and len(self._history) - self._best_epoch >= self._config.patience

    def _save(self) -> None:
        if self._state_file is None:
            return
        self._state_file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._state_file.with_suffix(".partial")
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        state["about"] = json.dumps(
            {
                "history": [asdict(epoch) for epoch in self._history],
                "best": [self._best_epoch, self._best_score],
                "random": self._random.bit_generator.state,
            }
        )
        state["torch_random"] = torch.get_rng_state()
        torch.save(state, partial)
        partial.replace(self._state_file)

    def _resume(self) -> None:
        if self._state_file is None or not self._state_file.is_file():
            return
        state = torch.load(self._state_file, map_location=self._device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        about = json.loads(state["about"])
        self._history = [Epoch(**epoch) for epoch in about["history"]]
        self._best_epoch, self._best_score = about["best"]
        self._random.bit_generator.state = about["random"]
        torch.set_rng_state(state["torch_random"].cpu())

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "averaged": self._averaged,
            "best": self._best,
            "objective": self._objective,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }


def logits_of(
    network: FusionNetwork, utterances: Sequence[UtteranceFeatures], batch_size: int = 32
) -> NDArray[np.float32]:
    """Logits (n, classes), in the order given; batches are formed by length."""
    order = np.argsort([_length(utterance) for utterance in utterances], kind="stable")
    logits = np.zeros((len(utterances), len(network.config.classes)), np.float32)
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            indices = order[begin : begin + batch_size]
            batch = collate([utterances[index] for index in indices]).to(device)
            logits[indices] = network(batch).logits.cpu().numpy()
    return logits


def predict(
    network: FusionNetwork, utterances: Sequence[UtteranceFeatures], temperature: float = 1.0
) -> NDArray[np.float32]:
    """Probabilities (n, classes), in the order given; `temperature` divides the logits."""
    return torch.from_numpy(logits_of(network, utterances) / temperature).softmax(1).numpy()


def standardize(network: FusionNetwork, utterances: Sequence[UtteranceFeatures]) -> None:
    """Give the network the mean and deviation of each Mel band over all frames of the utterances."""
    mels = [utterance.log_mel.astype(np.float64) for utterance in utterances]
    frames = sum(mel.shape[1] for mel in mels)
    mean = sum(mel.sum(1) for mel in mels) / frames
    square = sum(np.square(mel).sum(1) for mel in mels) / frames
    deviation = np.sqrt(np.maximum(square - mean**2, DEVIATION_FLOOR**2))
    network.standardize_by(torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())


def class_weights(labels: NDArray[np.int64], classes: int, balance: float = 1.0) -> Tensor:
    """One weight a class, float32: its frequency to the minus `balance`, 1 on the average of the labels.

    A class that does not occur gets 1.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = np.power(np.maximum(counts, 1) / len(labels), -balance)
    weights /= weights[labels].mean()
    return torch.from_numpy(np.where(counts > 0, weights, 1.0)).float()


def warmup_cosine(progress: float, warmup: float) -> float:
    """The factor on the peak learning rate at `progress` 0 to 1 of the schedule."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, (progress - warmup) / (1 - warmup)))))


def _groups(network: FusionNetwork, config: TrainingConfig) -> list[dict[str, Any]]:
    trained = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    pretrained = [value for name, value in trained if PRETRAINED in name]
    groups: list[dict[str, Any]] = [
        {"params": [value for name, value in trained if PRETRAINED not in name], "lr": config.learning_rate}
    ]
    if pretrained:
        groups.append({"params": pretrained, "lr": config.pretrained_learning_rate})
    return groups


def _decay(averaging: float, step: int) -> float:
    return min(averaging, (1 + step) / (10 + step))  # young weights change fast; an old average would hold them back


@torch.no_grad()
def _average_into(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    for kept, current in zip(averaged.parameters(), network.parameters(), strict=True):
        kept.lerp_(current, 1 - decay)
    for statistic, latest in zip(averaged.buffers(), network.buffers(), strict=True):
        statistic.copy_(latest)


def _length(utterance: UtteranceFeatures) -> int:
    return max(int(utterance.log_mel.shape[1]), len(utterance.encoder_states)) + len(utterance.context)
