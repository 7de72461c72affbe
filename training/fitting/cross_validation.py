"""A network for each split of the utterances, by folds of speakers or by corpora: trained in processes of their own,
kept on disk so that a run can go on.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from models.emotion.amser_states import TextNetwork, VoiceNetwork
from models.emotion.batch import UtteranceFeatures
from models.emotion.checkpoint import load, save
from models.emotion.checkpoint_info import CheckpointInfo, describe
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork
from training.data.dataset import LabelledSentence, LabelledUtterance, Substitution
from training.data.extraction import THREADS
from training.data.folds import Split
from training.data.pairs import paired
from training.fitting.curriculum import Report, join, text_temperature, train_at_once, voice_temperature
from training.fitting.loading import SentenceBank
from training.fitting.loop import Epoch, logits_of, predict
from training.fitting.progress import TrainingProgress
from training.fitting.recipe import Recipe
from training.judging.calibration import fit_temperature

REFRESH_SECONDS = 0.5  # of the progress display


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What the networks of all folds are trained from.

    Attributes:
        utterances: all of a corpus, or of several.
        substitution: other texts, for networks that are trained at once.
        bank: sentences, for those that are trained in stages.
        text: trained from them.
        licence: terms of all of it, see `training.corpora.licences`.
    """

    utterances: Sequence[LabelledUtterance]
    substitution: Substitution | None = None
    bank: SentenceBank | None = None
    text: TextNetwork | None = None
    licence: str = ""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A network of one split.

    Attributes:
        split: which utterances trained, validated and tested it; all trained the final network.
        network: in evaluation mode.
        temperature: fitted to the validation part; 1 where there is none.
        validation: its score there.
        epochs: how many each stage took, by name.
    """

    split: Split
    network: FusionNetwork
    temperature: float
    validation: float
    epochs: dict[str, int]

    def probabilities(self, utterances: Sequence[UtteranceFeatures]) -> NDArray[np.float32]:
        """Calibrated, (n, classes)."""
        return predict(self.network, utterances, self.temperature)


@dataclass(frozen=True, slots=True)
class _Job:
    recipe: Recipe
    config: FusionConfig
    split: Split
    folder: Path
    log_folder: Path | None
    reports: Queue[tuple[str, Epoch]]


def cross_validate(
    recipe: Recipe,
    config: FusionConfig,
    training_data: TrainingData,
    splits: Sequence[Split],
    folder: Path,
    *,
    workers: int = 1,
    console: Console | None = None,
    log_folder: Path | None = None,
) -> list[TrainedNetwork]:
    """Train a network for each split, `workers` at a time.

    Args:
        recipe: how to train.
        config: of the network.
        training_data: what to train from.
        splits: which utterances train, validate and test each network.
        folder: where networks and the state of unfinished ones are kept; a network that is there is not trained again,
            which the console says.
        workers: processes, one thread each.
        console: where progress is shown; None for nowhere.
        log_folder: for TensorBoard.
    """
    console = console or Console(quiet=True)
    if not recipe.own_words:  # the voice alone is trained
        training_data = replace(training_data, bank=None, text=None)
    if training_data.bank is not None:  # a gigabyte that only the text network needs, which is trained already
        training_data = replace(training_data, bank=replace(training_data.bank, training=(), development=(), test=()))
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(training_data,)) as pool,
        TrainingProgress(recipe.stage("training").epochs, console) as progress,
    ):
        reports: Queue[tuple[str, Epoch]] = manager.Queue()
        missing = [each for each in splits if not _file(folder, each).is_file()]
        if kept := [each for each in splits if each not in missing]:
            oldest = min(describe(_file(folder, each)).created for each in kept)
            names = ", ".join(each.name for each in kept)
            console.print(f"{names}: networks kept since {oldest} in {folder}; delete it to train them anew")
        futures = [
            pool.submit(_train_and_keep, _Job(recipe, config, each, folder, log_folder, reports)) for each in missing
        ]
        training = True
        while training:
            training = bool(wait(futures, REFRESH_SECONDS).not_done)
            with suppress(Empty):  # once more after the last network: it may have reported since
                while True:
                    progress.report(*reports.get_nowait())
        for future in futures:
            future.result()
    return [_read(folder, each) for each in splits]


def train(
    recipe: Recipe,
    config: FusionConfig,
    training_data: TrainingData,
    split: Split,
    show: Report,
    *,
    stop_after: dict[str, int] | None = None,
    state_folder: Path | None = None,
    log_folder: Path | None = None,
) -> TrainedNetwork:
    """One network; `show` is told of every epoch. Without a validation part stages take the epochs of `stop_after`.

    Of a recipe in stages that learns from no words of the corpora it is the voice network alone.
    """
    training = [training_data.utterances[index] for index in split.training]
    validation = [training_data.utterances[index] for index in split.validation]
    stop_after = stop_after or {}
    writer = SummaryWriter(log_folder / _file_name(split)) if log_folder else None

    def report(stage: str, epoch: Epoch) -> None:
        show(f"{split.name}, {stage}" if split.test else stage, epoch)
        if writer is not None:
            writer.add_scalar(f"{stage}/loss", epoch.loss, epoch.number)
            if epoch.validation is not None:
                writer.add_scalar(f"{stage}/validation", epoch.validation, epoch.number)

    first = replace(config, model="voice") if recipe.in_stages else config
    fitted = train_at_once(
        recipe,
        first,
        training,
        validation,
        training_data.substitution,
        report,
        stop_after=stop_after.get("training"),
        state_file=state_folder / f"{_file_name(split)}.state" if state_folder else None,
    )
    epochs = {"training": fitted.best_epoch}
    if recipe.in_stages and recipe.own_words:
        assert training_data.bank is not None
        assert training_data.text is not None
        voice, text = cast(VoiceNetwork, fitted.network), training_data.text
        groups = enumerate(training_data.bank.pairs["dev"])
        sentences = [LabelledSentence(each, (label,)) for label, group in groups for each in group]
        temperatures = voice_temperature(voice, validation, recipe.views), text_temperature(text, sentences)
        fitted = replace(fitted, network=join(voice, text, *temperatures))
    bank = training_data.bank if recipe.own_words else None
    temperature = temperature_of(recipe, fitted.network, validation, bank) if validation else 1.0
    return TrainedNetwork(split, fitted.network, temperature, fitted.validation, epochs)


def temperature_of(
    recipe: Recipe, network: FusionNetwork, validation: Sequence[LabelledUtterance], bank: SentenceBank | None
) -> float:
    """What calibrates a network on utterances with their own words and, where there are sentences, on pairs."""
    features = [each.features[view] for view in recipe.views for each in validation]
    labels = [each.label for _ in recipe.views for each in validation]
    if bank is not None:
        pairs = paired(validation, recipe.views[0], bank.pairs["dev"])
        features, labels = features + pairs.features, labels + pairs.labels
    return fit_temperature(logits_of(network, features), labels)


_shared: list[TrainingData] = []  # of a worker: what all of its jobs train from


def _begin_worker(training_data: TrainingData) -> None:
    _shared[:] = [training_data]
    _end_with_parent()


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed: no one would read its result."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def _train_and_keep(job: _Job) -> None:
    torch.set_num_threads(THREADS)
    trained = train(
        job.recipe,
        job.config,
        _shared[0],
        job.split,
        lambda name, epoch: job.reports.put((name, epoch)),
        state_folder=job.folder,
        log_folder=job.log_folder,
    )
    info = CheckpointInfo(
        name=f"{job.recipe.name}, {job.split.name}",
        config=trained.network.config,
        encoders={},
        codecs=job.recipe.views,
        corpora=(),
        metrics={"validation": trained.validation} | {f"epochs, {name}": n for name, n in trained.epochs.items()},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        licence=_shared[0].licence,
        temperature=trained.temperature,
    )
    save(_file(job.folder, job.split), trained.network, info)


def _read(folder: Path, split: Split) -> TrainedNetwork:
    network, info = load(_file(folder, split))
    epochs = {
        name.removeprefix("epochs, "): int(value) for name, value in info.metrics.items() if name.startswith("epochs")
    }
    return TrainedNetwork(split, network, info.temperature, info.metrics["validation"], epochs)


def _file(folder: Path, split: Split) -> Path:
    return folder / f"{_file_name(split)}.safetensors"


def _file_name(split: Split) -> str:
    return split.name.replace(" ", "-")
