"""How well emotions are recognised: our network and the published ones, on the same folds and features.

    python -m benchmarks.emotion --only cross --json FILE

Each corpus left out in turn (`cross`); and on folds of one corpus's speakers, with the other corpora in training, by
rate (as the papers' Tables I and II), by modality on pairs (as VI and VII), of seven and of four classes. Trained
networks are kept (`training.train`); `--only` measures some tables alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import softmax

from benchmarks.measuring import command
from benchmarks.measuring.console import output
from benchmarks.measuring.emotion.cross import cross_rows, probe_rows_of_folds
from benchmarks.measuring.emotion.modalities import (
    SETTING,
    Judged,
    ours_by_subset,
    published_by_subset,
    recipe_of_pairs,
)
from benchmarks.measuring.emotion.recognised import word_rows
from benchmarks.measuring.emotion.tables import tables
from benchmarks.measuring.report import write_rows
from benchmarks.plots.emotion import plot
from load_tests.commands import count
from models.emotion.amser_states import VoiceNetwork
from models.emotion.batch import UtteranceFeatures
from training.corpora.manifest import Corpus
from training.corpora.teacher import Teacher
from training.data.dataset import NO_CLASS, LabelledSentence, LabelledUtterance, sentence_alone
from training.data.extraction import THREADS, UNCOMPRESSED, CodecSetting
from training.data.folds import Split, can_leave_corpora_out
from training.data.pairs import paired
from training.data.screening import summary_of
from training.data.texts import TextFeatureExtractor
from training.evaluate import among, compare, row
from training.fitting.cross_validation import TrainedNetwork, TrainingData, cross_validate
from training.fitting.curriculum import join, text_temperature
from training.fitting.loading import OpenTeacher, SentenceBank, open_teachers
from training.fitting.loop import predict
from training.fitting.recipe import Recipe
from training.judging.calibration import expected_calibration_error
from training.reports import pooled
from training.train import load_training_data, networks_folder, splits_of

CONFIGS = Path(__file__).resolve().parents[1] / "training" / "configs"
OURS, PUBLISHED = "amser-states", "amser-plus"
BASELINES = ("amser", "umons", "xu", "yoon")  # trained as AMSER was: with cross-entropy alone (R13)
OWN_SIZES: dict[str, dict[str, int]] = {"umons": {"layers": 2}}  # its glimpses stand between blocks
PUBLISHED_RATES = (
    "none",
    "svd-f16:0.125",
    "svd-f16:0.1875",
    "svd-f16:0.25",
    "svd-f16:0.5",
    "svd-f16:1",
)  # Tables I, II
RATES = (*PUBLISHED_RATES, "klt:low", "klt:standard")
FOUR = ("angry", "happy", "neutral", "sad")  # the classes of IEMOCAP's protocol
TINY = 1e-30  # no probability is below it
TABLES = ("cross", "rates", "baselines", "four", "pairs", "modalities", "voice", "words")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """Data, encoders and options, and the networks of a recipe: what every table is made from.

    Attributes:
        console: where it is shown.
        corpus: a manifest, or NAME=FOLDER, in place of the corpora of the recipes; None for those.
        sentences: GoEmotions, likewise.
        noise: recordings, likewise.
        extractor: of the texts.
        workers: networks trained at a time.
        most_folds: so many of a corpus's folds, the first ones, are trained and judged; None for all.
        opened: corpora that were read already, by what recipes say of them.
    """

    console: Console
    corpus: str | None
    sentences: Path | None
    noise: Path | None
    extractor: TextFeatureExtractor
    workers: int
    most_folds: int | None = None
    opened: dict[tuple[Teacher, ...], list[OpenTeacher]] = field(default_factory=dict)

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name, on the data that the command line names."""
        return Recipe.read(CONFIGS / f"{name}.yaml").with_data(self.corpus, self.sentences, self.noise)

    def baseline(self, model: str) -> Recipe:
        """The published recipe for another network."""
        base = self.recipe(PUBLISHED)
        network = {**base.network, "model": model, **OWN_SIZES.get(model, {})}
        return replace(base, name=model, network=network, objective={"alpha": 0.0})

    def corpora(self, recipe: Recipe) -> list[OpenTeacher]:
        """The usable recordings of a recipe's corpora; what is left out is said once."""
        if recipe.teachers not in self.opened:
            self.opened[recipe.teachers] = open_teachers(recipe)
            for _, corpus in self.opened[recipe.teachers]:
                if corpus.unusable:
                    self.console.print(summary_of(corpus), style="yellow")
        return self.opened[recipe.teachers]

    def data(self, recipe: Recipe, settings: Sequence[str] = ()) -> TrainingData:
        """What the networks of a recipe learn from and are judged on, at `settings` too."""
        config = recipe.network_config(self.extractor.context_width)
        return load_training_data(self.console, recipe, config, self.corpora(recipe), self.extractor, settings)

    def splits(self, recipe: Recipe, utterances: Sequence[LabelledUtterance]) -> list[Split]:
        """The folds of the first corpus that are trained and judged."""
        return list(splits_of(self.corpora(recipe)[0][1].name, recipe, utterances))[: self.most_folds]

    def folder(self, recipe: Recipe) -> Path:
        """Where the networks of a recipe are kept."""
        return networks_folder(recipe, self.corpora(recipe), self.extractor)

    def folds(self, recipe: Recipe, settings: Sequence[str] = ()) -> _Folds:
        """The networks of all folds of the first corpus, trained where they are not kept, with their data."""
        corpus = self.corpora(recipe)[0][1]
        self.console.rule(f"{recipe.name} on {corpus.name}")
        training_data = self.data(recipe, settings)
        networks = cross_validate(
            recipe,
            recipe.network_config(self.extractor.context_width),
            training_data,
            self.splits(recipe, training_data.utterances),
            self.folder(recipe),
            workers=self.workers,
            console=self.console,
        )
        return _Folds(recipe, corpus, training_data, networks)


@dataclass(frozen=True, slots=True)
class _Folds:
    recipe: Recipe
    corpus: Corpus
    training_data: TrainingData
    networks: list[TrainedNetwork]

    @property
    def members(self) -> list[int]:
        """The numbers of the utterances that are tested."""
        return sorted(index for each in self.networks for index in each.split.test)

    @property
    def truth(self) -> NDArray[np.int64]:
        return np.array([self.training_data.utterances[index].label for index in self.members])

    @property
    def speakers(self) -> list[str]:
        return [self.training_data.utterances[index].speaker for index in self.members]

    @property
    def protocol(self) -> str:
        judged, folds = len(self.networks), len({record.fold for record in self.corpus.records})
        return f"speaker-independent, {judged}{f' of {folds}' if judged < folds else ''} folds"

    def at(self, setting: str) -> Row:
        """Each utterance with its own words, by the network that was not trained on its speaker."""
        probabilities = pooled(self.networks, self.training_data.utterances, setting)
        raw = probabilities.copy()
        for each in self.networks:  # undo the temperature: the networks need not run twice
            test = list(each.split.test)
            raw[test] = softmax(each.temperature * np.log(np.maximum(probabilities[test], TINY)), axis=1)
        result = self.row(probabilities[self.members], self.truth, self.speakers, setting, self.protocol)
        return result | {"ece_uncalibrated": expected_calibration_error(raw[self.members], self.truth)}

    def row(
        self,
        probabilities: NDArray[np.float32],
        truth: NDArray[np.int64],
        speakers: Sequence[str],
        setting: str,
        protocol: str,
        modalities: Sequence[str] | None = None,
    ) -> Row:
        judged = compare(CodecSetting.parse(setting), probabilities, truth, speakers)
        read = modalities or self.networks[0].network.modalities
        return row(judged, self.recipe.name, self.corpus.name, protocol, self.recipe.classes, read)


def by_rate(bench: Bench) -> list[Row]:
    """Ours at every rate."""
    folds = bench.folds(bench.recipe(OURS), settings=RATES)
    return [folds.at(setting) for setting in RATES]


def baselines(bench: Bench) -> list[Row]:
    """The published networks at every rate, and linear probes on the encoder states."""
    rows = probes(bench, bench.recipe(OURS))
    for recipe in (bench.recipe(PUBLISHED), *map(bench.baseline, BASELINES)):
        folds = bench.folds(recipe, settings=PUBLISHED_RATES)
        rows += [folds.at(setting) for setting in PUBLISHED_RATES]
    return rows


def probes(bench: Bench, recipe: Recipe) -> list[Row]:
    """Logistic regression on the states that our network reads, trained on all folds but one, which tests it."""
    plain = replace(recipe, network={**recipe.network, "model": "voice"}, copies=0)
    utterances = bench.data(plain).utterances
    return probe_rows_of_folds(plain, bench.corpora(recipe)[0][1].name, utterances, bench.splits(recipe, utterances))


def four_classes(bench: Bench) -> list[Row]:
    """Our network limited to the four classes of IEMOCAP's protocol, and linear probes trained on these four."""
    folds = bench.folds(bench.recipe(OURS))
    columns = [folds.recipe.classes.index(name) for name in FOUR]
    members = [index for index, label in enumerate(folds.truth) if label in columns]
    truth = np.array([columns.index(label) for label in folds.truth[members]])
    rows = []
    for setting in folds.recipe.judged:
        probabilities = pooled(folds.networks, folds.training_data.utterances, setting)[folds.members][members]
        speakers = [folds.speakers[index] for index in members]
        chosen = among(probabilities, folds.recipe.classes, FOUR)
        judged = compare(CodecSetting.parse(setting), chosen, truth, speakers)
        protocol = f"{folds.protocol}, trained on seven classes"
        rows.append(row(judged, OURS, folds.corpus.name, protocol, FOUR, folds.networks[0].network.modalities))
    return [*rows, *probes(bench, replace(folds.recipe, classes=FOUR))]


def pairs(bench: Bench) -> list[Row]:
    """Voices with sentences of their class that GoEmotions keeps for testing, both together and each alone."""
    folds = _with_text(bench.folds(bench.recipe(OURS)))
    bank = _bank(folds)
    rows = []
    for setting in folds.recipe.judged:
        rows += _paired_rows(folds, bank, setting)
    single = [sentence for sentence in bank.test if len(sentence.labels) == 1]
    rows.append(_words_only(folds, single))
    return rows


def _paired_rows(folds: _Folds, bank: SentenceBank, setting: str) -> list[Row]:
    kinds: dict[str, Callable[[Any], list[UtteranceFeatures]]] = {
        "paired": lambda made: made.features,
        "paired, voice alone": lambda made: made.voices,
        "paired, words alone": lambda made: made.sentences,
    }
    read = {
        "paired": ("states", "words", "context"),
        "paired, voice alone": ("states",),
        "paired, words alone": ("words", "context"),
    }
    shape = len(folds.training_data.utterances), len(folds.recipe.classes)
    answers = {kind: np.zeros(shape, np.float32) for kind in kinds}
    for fold in folds.networks:
        test = list(fold.split.test)
        made = paired([folds.training_data.utterances[index] for index in test], setting, bank.pairs["test"])
        for kind, choose in kinds.items():
            answers[kind][test] = fold.probabilities(choose(made))
    return [
        folds.row(
            answers[kind][folds.members], folds.truth, folds.speakers, setting, f"{kind}, {folds.protocol}", read[kind]
        )
        for kind in kinds
    ]


def _words_only(folds: _Folds, sentences: Sequence[LabelledSentence]) -> Row:
    """The text branch alone on GoEmotions' test sentences of one class."""
    assert folds.training_data.text is not None
    features = [sentence_alone(sentence.features) for sentence in sentences]
    truth = np.array([sentence.labels[0] for sentence in sentences])
    writers = [str(number) for number in range(len(sentences))]  # not known: each sentence counts as someone else's
    judged = compare(UNCOMPRESSED, predict(folds.training_data.text, features), truth, writers)
    return row(judged, "text", "goemotions", "its own test part, one class", folds.recipe.classes, ("words", "context"))


def modalities(bench: Bench) -> list[Row]:
    """Ours and the published network, with each subset of words, context and voice, on the same pairs."""
    folds = bench.folds(bench.recipe(OURS), settings=(SETTING,))
    bank, text = _bank(folds), folds.training_data.text
    assert text is not None
    splits = [each.split for each in folds.networks]
    about = folds.corpus.name, folds.protocol
    pairs = Judged.of(folds.recipe, *about, folds.training_data.utterances, splits, bank)
    rows = ours_by_subset(bench.console, pairs, bank, text, folds.networks)
    recipe = recipe_of_pairs(bench.recipe(PUBLISHED))
    utterances = [each for each in bench.data(recipe).utterances if each.label != NO_CLASS]
    splits = bench.splits(recipe, utterances)
    pairs = Judged.of(recipe, *about, utterances, splits, bank)
    width = bench.extractor.context_width
    return rows + published_by_subset(bench.console, pairs, splits, bank, width, bench.folder, bench.workers)


def voices(bench: Bench) -> list[Row]:
    """The voice alone, without an ensemble: from the encoder states, and from the log-Mel."""
    rows = []
    for modality in ("states", "mel"):
        base = bench.recipe(OURS)
        network = {**base.network, "model": "voice", "modalities": (modality,), "ensemble": False}
        folds = bench.folds(replace(base, name=f"voice ({modality})", network=network))
        rows += [folds.at(setting) for setting in base.judged]
    return rows


def words(bench: Bench) -> list[Row]:
    """The text alone on sentences as they were typed and as the recogniser writes them."""
    return word_rows(bench.console, bench.recipe(OURS), bench.extractor)


def across(bench: Bench) -> list[Row]:
    """Each corpus by networks that did not hear it, a probe of the same teachers, and readings of other readers."""
    recipe = bench.recipe(OURS)
    if not can_leave_corpora_out(recipe.teachers):
        bench.console.print("cross: the recipe has fewer than three corpora that can be left out", style="yellow")
        return []
    bench.console.rule(f"{recipe.name}, each corpus left out in turn")
    folder = bench.folder(recipe)  # a missing corpus is said before a model is loaded
    config = recipe.network_config(bench.extractor.context_width)
    return cross_rows(bench.console, recipe, config, bench.data(recipe), folder, bench.workers)


def _with_text(folds: _Folds) -> _Folds:
    """Networks that read voice and text, where the folds trained a voice alone."""
    if folds.recipe.own_words:
        return folds
    text = folds.training_data.text
    assert text is not None
    sentences = text_temperature(text, _bank(folds).development)
    joined = []
    for each in folds.networks:
        network = join(cast(VoiceNetwork, each.network), text, each.temperature, sentences)
        joined.append(replace(each, network=network, temperature=1.0))
    return replace(folds, networks=joined)


def _bank(folds: _Folds) -> SentenceBank:
    assert folds.training_data.bank is not None
    return folds.training_data.bank


MEASURED: dict[str, Callable[[Bench], list[Row]]] = {
    "cross": across,
    "rates": by_rate,
    "baselines": baselines,
    "four": four_classes,
    "pairs": pairs,
    "modalities": modalities,
    "voice": voices,
    "words": words,
}


@command.benchmark("emotion")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    torch.set_num_threads(THREADS)
    console = output()
    data = options.corpus, options.sentences, options.noise
    bench = Bench(console, *data, TextFeatureExtractor(), options.workers, options.folds)
    rows: list[Row] = []
    for name in options.only:
        measured = [each | {"table": name} for each in MEASURED[name](bench)]
        for made in tables(name, measured):
            console.print(made)
        rows += measured
        write_rows(options.json, rows)  # after each table, so that an hour's work is not lost
    plot(rows, options.json)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("emotion", __doc__, plot=True)
    parser.add_argument("--corpus", help="a manifest, or NAME=FOLDER (default: the recipe's, in AMSER_DATA)")
    parser.add_argument("--sentences", type=Path, metavar="DIR", help="GoEmotions (default: that of the recipe)")
    parser.add_argument("--noise", type=Path, metavar="DIR", help="recordings (default: those of the recipe)")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--workers", type=count, default=2, help="networks trained at a time (default: 2)")
    parser.add_argument("--folds", type=count, metavar="N", help="train and judge the first N folds alone")
    return parser


if __name__ == "__main__":
    main()
