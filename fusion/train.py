"""Train Amser+: `python -m fusion.train --manifest FILE [--sentences FILE] [--final]`.

Speaker-independent cross-validation first: fold k is the test, the next fold ends the training, the others teach. With
`--final`, a network is then trained on everything for the median number of epochs, and written as a checkpoint that
carries the cross-validated figures.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from statistics import median_high
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from fusion.augmentation import MelAugmentation
from fusion.checkpoint import DEFAULT_CHECKPOINT, CheckpointInfo, save
from fusion.corpora.goemotions import neutral_sentences
from fusion.corpora.manifest import CLASSES, Corpus, ManifestError, load_manifest
from fusion.dataset import LabelledUtterance, TextFeaturePair, TextSubstitution, TrainingSampler
from fusion.evaluate import confusion_table, judge, row, scores_table
from fusion.extraction import THREADS, CodecSetting, Encoders, describe_texts, extract, fingerprints
from fusion.fitting import Epoch, Fitted, TrainingConfig, fit, predict
from fusion.folds import Split, split
from fusion.metrics import Scores, score
from fusion.network import FusionConfig
from fusion.progress import TrainingProgress

DEFAULT_RECIPE = Path(__file__).parent / "configs" / "amser-plus.yaml"
REFRESH_SECONDS = 0.5  # of the progress display
EXAMPLES = """
examples:
  python -m fusion.train --manifest corpora/ravdess.tsv --json folds.json
  python -m fusion.train --manifest corpora/ravdess.tsv --sentences goemotions/train.tsv --final --checkpoint my.st

Features are kept in Amser's cache folder, so a second run starts at once.
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training configuration, as the YAML file has it.

    Attributes:
        name: of the checkpoint.
        licence: condition that the data puts on the weights.
        codecs: settings that training draws from; validation averages over them.
        judged: settings that the test folds are judged at.
        text: `asr` reads the recogniser's text of each compressed Mel; `reference` the corpus's own transcript.
        substitute_sentences: how many neutral sentences stand ready to replace a text.
        replace_text: probability that one does.
        omit_text: probability that there is no text at all.
        network: sizes, as in `FusionConfig` without its classes.
        training: as in `TrainingConfig`.
        augmentation: as in `MelAugmentation`.
    """

    name: str
    licence: str
    codecs: tuple[str, ...]
    judged: tuple[str, ...]
    text: str = "asr"
    substitute_sentences: int = 300
    replace_text: float = 0.5
    omit_text: float = 0.05
    network: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    augmentation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file; an unknown or missing key raises TypeError."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return cls(**content | {"codecs": tuple(content["codecs"]), "judged": tuple(content["judged"])})

    def network_config(self) -> FusionConfig:
        """Sizes of the network."""
        sizes: dict[str, Any] = {
            name: tuple(size) if isinstance(size, list) else size for name, size in self.network.items()
        }
        return FusionConfig(classes=CLASSES, **sizes)

    def sampler(self, substitution: TextSubstitution | None) -> TrainingSampler:
        """How training sees an utterance."""
        return TrainingSampler(self.codecs, MelAugmentation(**self.augmentation), substitution)


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What one fold came to.

    Attributes:
        split: who was in which group.
        best_epoch: when the validation group was best.
        validation_ua: its mean UA over the codec settings, then.
        probabilities: float32 (n, classes) of the test group, for each judged codec setting.
    """

    split: Split
    best_epoch: int
    validation_ua: float
    probabilities: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Fold:
    """Everything a worker process needs for one fold."""

    recipe: Recipe
    split: Split
    utterances: Sequence[LabelledUtterance]
    substitution: TextSubstitution | None
    log_folder: Path | None
    reports: Queue[tuple[str, Epoch]]


def load_utterances(corpus: Corpus, recipe: Recipe) -> list[LabelledUtterance]:
    """Every utterance of a corpus with its features at all codec settings of the recipe."""
    settings = sorted({*recipe.codecs, *recipe.judged})
    features = {
        text: extract(corpus, CodecSetting.parse(text), reference_text=recipe.text == "reference") for text in settings
    }
    return [
        LabelledUtterance(
            CLASSES.index(record.emotion),
            record.speaker,
            record.fold,
            {text: features[text][number] for text in settings},
        )
        for number, record in enumerate(corpus.records)
    ]


def load_substitution(table: Path | None, recipe: Recipe) -> TextSubstitution:
    """What replaces texts: the features of neutral sentences, none without a table, and of an empty text."""
    sentences = [] if table is None else neutral_sentences(table, recipe.substitute_sentences)
    no_text, *others = [
        TextFeaturePair(words.values.astype(np.float16), context.values.astype(np.float16))
        for words, context in describe_texts(["", *sentences], Encoders.load(asr=False))
    ]
    return TextSubstitution(no_text, others, recipe.replace_text, recipe.omit_text)


def train_fold(fold: Fold) -> FoldResult:
    """Train on a fold's training group and answer for its test group. Runs in a process of its own."""
    torch.set_num_threads(THREADS)
    training, validation, test = (
        [fold.utterances[index] for index in group]
        for group in (fold.split.training, fold.split.validation, fold.split.test)
    )
    fitted = _fit(
        fold.recipe,
        training,
        fold.substitution,
        validation,
        f"fold {fold.split.fold}",
        fold.log_folder,
        lambda name, epoch: fold.reports.put((name, epoch)),
    )
    return FoldResult(
        fold.split,
        fitted.best_epoch,
        max(epoch.validation_ua or 0.0 for epoch in fitted.history),
        {
            text: predict(fitted.network, [utterance.features[text] for utterance in test])
            for text in fold.recipe.judged
        },
    )


def cross_validate(
    recipe: Recipe,
    utterances: Sequence[LabelledUtterance],
    substitution: TextSubstitution | None,
    *,
    workers: int,
    console: Console,
    log_folder: Path | None = None,
) -> list[FoldResult]:
    """All folds, `workers` at a time."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(workers, context) as pool,
        TrainingProgress(TrainingConfig(**recipe.training).epochs, console) as progress,
    ):
        reports: Queue[tuple[str, Epoch]] = manager.Queue()
        folds = [Fold(recipe, each, utterances, substitution, log_folder, reports) for each in split(utterances)]
        futures = [pool.submit(train_fold, fold) for fold in folds]
        while wait(futures, REFRESH_SECONDS).not_done:
            with suppress(Empty):
                while True:
                    progress.report(*reports.get_nowait())
        return [future.result() for future in futures]


def pooled(results: Sequence[FoldResult], setting: str, utterances: int) -> NDArray[np.float32]:
    """Probabilities of all test groups in the corpus's order: every utterance was in one of them."""
    classes = results[0].probabilities[setting].shape[1]
    together = np.zeros((utterances, classes), np.float32)
    for result in results:
        together[list(result.split.test)] = result.probabilities[setting]
    return together


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    torch.set_num_threads(THREADS)
    try:
        recipe = Recipe.read(options.config)
        corpus = load_manifest(options.manifest, options.root)
        utterances = load_utterances(corpus, recipe)
        substitution = load_substitution(options.sentences, recipe)
    except (ManifestError, FileNotFoundError, TypeError, ValueError) as error:
        print(f"fusion.train: {error}", file=sys.stderr)
        return 2
    results = cross_validate(
        recipe, utterances, substitution, workers=options.workers, console=console, log_folder=options.log_folder
    )
    rows = report_folds(console, recipe, corpus, results)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if options.final:
        epochs = median_high(result.best_epoch for result in results)
        with TrainingProgress(epochs, console) as progress:
            fitted = _fit(
                recipe,
                utterances,
                substitution,
                (),
                "all speakers",
                options.log_folder,
                progress.report,
                stop_after=epochs,
            )
        metrics = {
            f"{name}, {setting}": each[name]
            for setting, each in zip(recipe.judged, rows, strict=True)
            for name in ("ua", "wa", "macro_f1", "weighted_f1")
        }
        save(options.checkpoint, fitted.network, _info(recipe, corpus, metrics | {"epochs": epochs}))
        console.print(f"{options.checkpoint}: {options.checkpoint.stat().st_size / 1e6:.1f} MB, {epochs} epochs")
    return 0


def _fit(
    recipe: Recipe,
    training: Sequence[LabelledUtterance],
    substitution: TextSubstitution | None,
    validation: Sequence[LabelledUtterance],
    name: str,
    log_folder: Path | None,
    show: Callable[[str, Epoch], None],
    stop_after: int | None = None,
) -> Fitted:
    writer = SummaryWriter(log_folder / name.replace(" ", "-")) if log_folder else None

    def report(epoch: Epoch) -> None:
        show(name, epoch)
        if writer is not None:
            writer.add_scalar("loss", epoch.loss, epoch.number)
            if epoch.validation_ua is not None:
                writer.add_scalar("validation_ua", epoch.validation_ua, epoch.number)

    config = TrainingConfig(**recipe.training)
    return fit(
        recipe.network_config(), config, training, recipe.sampler(substitution), validation,
        stop_after=stop_after, report=report,
    )  # fmt: skip


def report_folds(
    console: Console, recipe: Recipe, corpus: Corpus, results: Sequence[FoldResult]
) -> list[dict[str, Any]]:
    """Print the figures of each fold and of all together; returns a JSON row for each judged codec setting."""
    rows = []
    truth = np.array([CLASSES.index(record.emotion) for record in corpus.records])
    for text in recipe.judged:
        named: list[tuple[str, Scores]] = []
        for result in results:
            members = list(result.split.test)
            figures = score(truth[members], result.probabilities[text].argmax(1))
            named.append((f"fold {result.split.fold}, epoch {result.best_epoch}", figures))
        judged = judge(corpus, CodecSetting.parse(text), pooled(results, text, len(truth)), CLASSES)
        console.print(scores_table(f"{corpus.name} at {text}", [*named, ("all folds", judged.scores)]))
        console.print(confusion_table(judged.matrix, CLASSES))
        content = row(judged, recipe.name, f"speaker-independent {len(results)} folds", CLASSES)
        folds = [_fold_row(result, figures) for result, (_, figures) in zip(results, named, strict=True)]
        rows.append(content | {"text": recipe.text, "folds": folds})
    return rows


def _fold_row(result: FoldResult, figures: Scores) -> dict[str, Any]:
    return {
        "fold": result.split.fold,
        "n": figures.n,
        "epochs": result.best_epoch,
        "validation_ua": result.validation_ua,
        "wa": figures.wa.value,
        "ua": figures.ua.value,
        "macro_f1": figures.macro_f1.value,
        "weighted_f1": figures.weighted_f1.value,
        "ua_low": figures.ua.low,
        "ua_high": figures.ua.high,
    }


def _info(recipe: Recipe, corpus: Corpus, metrics: dict[str, float]) -> CheckpointInfo:
    return CheckpointInfo(
        name=recipe.name,
        config=recipe.network_config(),
        encoders=fingerprints(),
        codecs=recipe.codecs,
        corpora=(corpus.name,),
        metrics=metrics,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        licence=recipe.licence,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fusion.train",
        description=(
            "Train Amser+ on a corpus: cross-validation over the manifest's folds of speakers first, then, with "
            "--final, a network on all of it."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        required=True,
        metavar="FILE",
        help="TSV with the columns path, emotion, speaker and fold; language, if there, is told to the recogniser",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder that its paths are relative to (default: the nearest one above the manifest that has the files)",
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_RECIPE, metavar="FILE", help="the recipe (default: Amser+ for RAVDESS)"
    )
    parser.add_argument(
        "--sentences",
        type=Path,
        metavar="FILE",
        help="GoEmotions train.tsv, with labels.txt beside it: neutral texts for substitution (default: none)",
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="folds trained at a time, one thread each (default: 2)"
    )
    parser.add_argument("--log-folder", type=Path, metavar="DIR", help="write TensorBoard logs there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a row of pooled figures a codec setting there")
    parser.add_argument("--final", action="store_true", help="then train on everything and write the checkpoint")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FILE",
        help="where --final writes (default: the checkpoint that comes with Amser)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
