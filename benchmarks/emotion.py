"""How well emotions are recognised: our network and the published ones, on the same folds and features.

    python -m benchmarks.emotion --other nemo.tsv --json FILE

Tables by rate (as the papers' Tables I and II), by modality on pairs (as Table VI), by corpus, of seven and of four
classes, and of calibration. Trained networks are kept (`training.train`); `--only` measures some tables alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import softmax

from benchmarks.measuring import command
from benchmarks.measuring.console import output, table
from benchmarks.measuring.emotion_ablation import retrain_without
from benchmarks.measuring.report import write_rows
from benchmarks.plots.emotion import plot
from load_tests.commands import count
from models.emotion.batch import UtteranceFeatures
from training.corpora.catalogue import open_corpus
from training.corpora.manifest import Corpus
from training.data.dataset import LabelledSentence, sentence_alone
from training.data.extraction import THREADS, UNCOMPRESSED, CodecSetting
from training.data.folds import split
from training.data.pairs import paired
from training.data.screening import screen, summary_of
from training.data.texts import TextFeatureExtractor
from training.evaluate import among, compare, row
from training.fitting.cross_validation import TrainedNetwork, TrainingData, cross_validate
from training.fitting.loading import SentenceBank
from training.fitting.loop import predict
from training.fitting.probe import LinearProbe
from training.fitting.recipe import Recipe
from training.judging.calibration import expected_calibration_error
from training.train import load_training_data, networks_folder, pooled

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
OPERATING_POINT = "svd-f16:0.125"
FOUR = ("angry", "happy", "neutral", "sad")  # the classes of IEMOCAP's protocol
TINY = 1e-30  # no probability is below it
TABLES = ("rates", "baselines", "four", "pairs", "ablation", "voice", "cross")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """Corpora, encoders and options, and the networks of a recipe: what every table is made from."""

    console: Console
    corpus: Corpus
    other: Corpus | None
    sentences: Path | None
    noise: Path | None
    extractor: TextFeatureExtractor
    workers: int

    def recipe(self, name: str) -> Recipe:
        """The recipe of that name, on the data that the command line names."""
        return Recipe.read(CONFIGS / f"{name}.yaml").with_data(None, self.sentences, self.noise)

    def baseline(self, model: str) -> Recipe:
        """The published recipe for another network."""
        base = self.recipe(PUBLISHED)
        network = {**base.network, "model": model, **OWN_SIZES.get(model, {})}
        return replace(base, name=model, network=network, objective={"alpha": 0.0})

    def folds(
        self,
        recipe: Recipe,
        corpus: Corpus | None = None,
        settings: Sequence[str] = (),
        count: int | None = None,
    ) -> _Folds:
        """The networks of all folds, or of the first `count`, trained where they are not kept, with their data."""
        corpus = corpus or self.corpus
        self.console.rule(f"{recipe.name} on {corpus.name}")
        config = recipe.network_config(self.extractor.context_width)
        training_data = load_training_data(self.console, recipe, config, corpus, self.extractor, settings)
        networks = cross_validate(
            recipe,
            config,
            training_data,
            split(training_data.utterances)[:count],
            networks_folder(recipe, corpus, self.extractor),
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
    def truth(self) -> NDArray[np.int64]:
        return np.array([utterance.label for utterance in self.training_data.utterances])

    @property
    def speakers(self) -> list[str]:
        return [utterance.speaker for utterance in self.training_data.utterances]

    @property
    def protocol(self) -> str:
        return f"speaker-independent, {len(self.networks)} folds"

    def at(self, setting: str) -> Row:
        """Each utterance with its own words, by the network that was not trained on its speaker."""
        probabilities = pooled(self.networks, self.training_data.utterances, setting)
        raw = probabilities.copy()
        for each in self.networks:  # undo the temperature: the networks need not run twice
            members = list(each.split.test)
            raw[members] = softmax(each.temperature * np.log(np.maximum(probabilities[members], TINY)), axis=1)
        result = self.row(probabilities, self.truth, self.speakers, setting, self.protocol)
        return result | {"ece_uncalibrated": expected_calibration_error(raw, self.truth)}

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
    rows = probes(bench, bench.recipe(OURS), bench.corpus)
    for recipe in (bench.recipe(PUBLISHED), *map(bench.baseline, BASELINES)):
        folds = bench.folds(recipe, settings=PUBLISHED_RATES)
        rows += [folds.at(setting) for setting in PUBLISHED_RATES]
    return rows


def probes(bench: Bench, recipe: Recipe, corpus: Corpus) -> list[Row]:
    """Logistic regression on the states that our network reads, trained on all folds but one, which tests it."""
    config = recipe.network_config(bench.extractor.context_width)
    plain = replace(recipe, network={**recipe.network, "model": "voice"}, copies=0)
    training_data = load_training_data(bench.console, plain, config, corpus, bench.extractor)
    utterances = training_data.utterances
    truth = np.array([utterance.label for utterance in utterances])
    rows = []
    for setting in plain.judged:
        probabilities = np.zeros((len(utterances), len(recipe.classes)), np.float32)
        for each in split(utterances):
            known = [*each.training, *each.validation]
            probe = LinearProbe.fit(
                [utterances[index].features[setting] for index in known], truth[known], len(recipe.classes)
            )
            test = list(each.test)
            probabilities[test] = probe.predict([utterances[index].features[setting] for index in test])
        speakers = [utterance.speaker for utterance in utterances]
        judged = compare(CodecSetting.parse(setting), probabilities, truth, speakers)
        protocol = f"speaker-independent, {len(split(utterances))} folds, trained at this codec"
        rows.append(row(judged, "linear-probe", corpus.name, protocol, recipe.classes, ("states",)))
    return rows


def four_classes(bench: Bench) -> list[Row]:
    """Our network limited to the four classes of IEMOCAP's protocol, and linear probes trained on these four."""
    folds = bench.folds(bench.recipe(OURS))
    columns = [folds.recipe.classes.index(name) for name in FOUR]
    members = [index for index, label in enumerate(folds.truth) if label in columns]
    truth = np.array([columns.index(label) for label in folds.truth[members]])
    rows = []
    for setting in folds.recipe.judged:
        probabilities = pooled(folds.networks, folds.training_data.utterances, setting)[members]
        speakers = [folds.speakers[index] for index in members]
        chosen = among(probabilities, folds.recipe.classes, FOUR)
        judged = compare(CodecSetting.parse(setting), chosen, truth, speakers)
        protocol = f"{folds.protocol}, trained on seven classes"
        rows.append(row(judged, OURS, bench.corpus.name, protocol, FOUR, folds.networks[0].network.modalities))
    return [*rows, *probes(bench, replace(folds.recipe, classes=FOUR), bench.corpus)]


def pairs(bench: Bench) -> list[Row]:
    """Voices with sentences of their class that GoEmotions keeps for testing, both together and each alone."""
    folds = bench.folds(bench.recipe(OURS))
    bank = _bank(folds)
    rows = []
    for setting in folds.recipe.judged:
        rows += _paired_rows(folds, bank, setting)
    single = [sentence for sentence in bank.test if len(sentence.labels) == 1]
    rows.append(_words_only(folds, single))
    return rows


def _paired_rows(folds: _Folds, bank: SentenceBank, setting: str) -> list[Row]:
    truth = folds.truth
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
    answers = {kind: np.zeros((len(truth), len(folds.recipe.classes)), np.float32) for kind in kinds}
    for fold in folds.networks:
        test = list(fold.split.test)
        made = paired([folds.training_data.utterances[index] for index in test], setting, bank.pairs["test"])
        for kind, choose in kinds.items():
            answers[kind][test] = fold.probabilities(choose(made))
    return [
        folds.row(answers[kind], truth, folds.speakers, setting, f"{kind}, {folds.protocol}", read[kind])
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


def ablation(bench: Bench) -> list[Row]:
    """Ours trained and judged on pairs without words, without context: the values of the rest are zeros."""
    rows = []
    folds = bench.folds(bench.recipe(OURS))
    for left_out in ("words", "context"):
        network_kept = tuple(name for name in ("states", "words", "context") if name != left_out)
        rows += _without(bench, folds, left_out, network_kept)
    return rows


def _without(bench: Bench, folds: _Folds, left_out: str, kept: tuple[str, ...]) -> list[Row]:
    networks, bank, text = retrain_without(bench.console, folds.recipe, folds.training_data, folds.networks, left_out)
    changed = replace(folds, networks=networks, training_data=replace(folds.training_data, text=text))
    rows = [each for each in _paired_rows(changed, bank, "none") if "voice alone" not in each["protocol"]]
    for each in rows:
        each["modalities"] = "+".join(kept if "words alone" not in each["protocol"] else kept[1:])
    return rows


def voices(bench: Bench) -> list[Row]:
    """The voice alone: from the encoder states, from the log-Mel, and from both."""
    rows = []
    for modalities in (("states",), ("mel",), ("states", "mel")):
        base = bench.recipe(OURS)
        network = {**base.network, "model": "voice", "modalities": modalities}
        augment = base.state_augmentation if modalities == ("states",) else None  # rows of both must stay side by side
        name = f"voice ({'+'.join(modalities)})"
        folds = bench.folds(replace(base, name=name, network=network, state_augmentation=augment))
        rows += [folds.at(setting) for setting in base.judged]
    return rows


def across(bench: Bench) -> list[Row]:
    """The network of each corpus's first fold, judged on all of the other corpus."""
    if bench.other is None:
        return []
    recipe = bench.recipe(OURS)
    here, there = bench.folds(recipe, count=1), bench.folds(recipe, bench.other, count=1)
    rows = []
    for trained, judged in ((here, there), (there, here)):
        known = {utterance.label for utterance in trained.training_data.utterances}
        members = [index for index, label in enumerate(judged.truth) if label in known]
        utterances = [judged.training_data.utterances[index] for index in members]
        for setting in recipe.judged:
            probabilities = trained.networks[0].probabilities([each.features[setting] for each in utterances])
            protocol = f"cross-corpus, the network of {trained.corpus.name}'s first fold"
            speakers = [each.speaker for each in utterances]
            rows.append(judged.row(probabilities, judged.truth[members], speakers, setting, protocol))
    return rows


def _bank(folds: _Folds) -> SentenceBank:
    assert folds.training_data.bank is not None
    return folds.training_data.bank


MEASURED: dict[str, Callable[[Bench], list[Row]]] = {
    "rates": by_rate,
    "baselines": baselines,
    "four": four_classes,
    "pairs": pairs,
    "ablation": ablation,
    "voice": voices,
    "cross": across,
}


def tables(name: str, rows: Sequence[Row]) -> Iterator[Table]:
    """The rows as they are printed: a table for each corpus, protocol, set of inputs and set of utterances."""
    columns = ("model", "codec", "UA, 95 % by speaker", "macro\nF1", "ECE", "NLL", "surest\nhalf")
    kinds = [
        (*(each[key] for key in ("corpus", "protocol", "modalities", "n")), each.get("n_speakers")) for each in rows
    ]
    for kind in dict.fromkeys(kinds):
        corpus, protocol, modalities, n, speakers = kind
        judged = f"{n} utterances" + (f" of {speakers} speakers" if speakers else "")
        made = table(f"{name}: {corpus}, {protocol}, from {modalities.replace('+', ' + ')}; {judged}", columns, words=2)
        for each in (one for one, of in zip(rows, kinds, strict=True) if of == kind):
            codec = each["codec"] if each["rate"] is None else f"{each['codec']} {each['rate']:.2%}"
            ua = f"{each['ua']:.3f} [{_shown(each['ua_low'])}, {_shown(each['ua_high'])}]"
            figures = (_shown(each.get(figure)) for figure in ("macro_f1", "ece", "nll", "surest_half"))
            made.add_row(each["model"], codec, ua, *figures)
        yield made


def _shown(figure: float | None) -> str:
    """Three digits; a dash where a row has no such figure, and for the interval of a single speaker."""
    return "-" if figure is None else f"{figure:.3f}"


@command.benchmark("emotion")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = command.parse(_parser(), arguments)
    torch.set_num_threads(THREADS)
    console = output()
    bench = Bench(
        console,
        _open(console, options.corpus or str(Recipe.read(CONFIGS / f"{OURS}.yaml").corpus)),
        _open(console, options.other) if options.other else None,
        options.sentences,
        options.noise,
        TextFeatureExtractor(),
        options.workers,
    )
    rows: list[Row] = []
    for name in options.only:
        measured = [each | {"table": name} for each in MEASURED[name](bench)]
        for made in tables(name, measured):
            console.print(made)
        rows += measured
        write_rows(options.json, rows)  # after each table, so that an hour's work is not lost
    plot(rows, options.json)


def _open(console: Console, source: str) -> Corpus:
    corpus = screen(open_corpus(source))
    if corpus.unusable:
        console.print(summary_of(corpus), style="yellow")
    return corpus


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("emotion", __doc__, plot=True)
    parser.add_argument(
        "--corpus", help="a manifest, or NAME=FOLDER (default: that of the recipe, emotion/ravdess.tsv of AMSER_DATA)"
    )
    parser.add_argument("--other", metavar="CORPUS", help="for the cross-corpus table (default: none)")
    parser.add_argument("--sentences", type=Path, metavar="DIR", help="GoEmotions (default: that of the recipe)")
    parser.add_argument("--noise", type=Path, metavar="DIR", help="recordings (default: those of the recipe)")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, metavar="TABLE", help=", ".join(TABLES))
    parser.add_argument("--workers", type=count, default=2, help="folds trained at a time (default: 2)")
    return parser


if __name__ == "__main__":
    main()
