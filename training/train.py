"""Train a network: `python -m training.train --config FILE [--corpus CORPUS] [--sentences DIR] [--noise DIR]
[--final]`.

Speaker-independent cross-validation first: fold k tests, speakers of the next fold validate, the others train. With
`--final`, a network is then trained on everything for the median number of epochs, and written as a checkpoint that
carries the cross-validated figures.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, median_high
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from amser.codecs import klt_tables
from models.emotion.amser_states import TextNetwork
from models.emotion.checkpoint import CheckpointInfo, describe, load, save
from models.emotion.config import FusionConfig
from models.weights import UnknownModel, cache_folder, fingerprint
from training.corpora.catalogue import open_corpus
from training.corpora.licences import joined, licences_of, named_licence
from training.corpora.manifest import Corpus, ManifestError
from training.data.dataset import LabelledUtterance
from training.data.extraction import THREADS, CodecSetting
from training.data.folds import Split, split
from training.data.screening import screen, summary_of
from training.data.texts import TextFeatureExtractor
from training.evaluate import compare, confusion_table, figures, row, scores_table
from training.fitting.cross_validation import TrainedNetwork, TrainingData, cross_validate, train
from training.fitting.curriculum import text_f1, train_text
from training.fitting.loading import (
    PARTS,
    SentenceBank,
    load_sentences,
    load_substitution,
    load_utterances,
)
from training.fitting.progress import TrainingProgress
from training.fitting.recipe import Recipe
from training.outputs import RUNS, new_file
from training.source_digest import NETWORKS, SPEECH_FEATURES, TEXT_FEATURES, source_digest

DEFAULT_RECIPE = Path(__file__).parent / "configs" / "amser-states.yaml"
EXAMPLES = """
examples:
  python -m training.train --corpus corpora/ravdess.tsv --sentences goemotions/ --noise esc10/ --json folds.json
  python -m training.train --corpus iemocap=/data/IEMOCAP_full_release --config my.yaml --final --checkpoint my.st

Features and the networks of finished folds are kept in Amser's cache folder: a run that was interrupted goes on where
it stopped, and a second run starts at once. Changed code computes them anew.
`python -m training.corpora` lists the corpora that are known by name.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    console = Console()
    torch.set_num_threads(THREADS)
    try:
        named = dict(options.licence)
        recipe = Recipe.read(options.config).with_data(options.corpus, options.sentences, options.noise, named)
        checkpoint = options.checkpoint or RUNS / f"{recipe.name}.safetensors"
        if options.final:
            new_file(checkpoint, options.force)
        text_models = (options.text_encoder or recipe.text_encoder, options.word_vectors or recipe.word_vectors)
        extractor = TextFeatureExtractor(*text_models)
        corpus = screen(open_corpus(str(recipe.corpus), options.root))
        if corpus.unusable:
            console.print(summary_of(corpus), style="yellow")
        config = recipe.network_config(extractor.context_width)
        training_data = load_training_data(console, recipe, config, corpus, extractor)
        splits = split(training_data.utterances)
        console.print(f"terms of the data: {training_data.licence}", markup=False)
    except (UnknownModel, ManifestError, OSError, TypeError, ValueError) as error:
        print(f"training.train: {error}", file=sys.stderr)
        return 2
    folds = cross_validate(
        recipe,
        config,
        training_data,
        splits,
        networks_folder(recipe, corpus, extractor),
        workers=options.workers,
        console=console,
        log_folder=options.log_folder,
    )
    rows = report_folds(console, recipe, corpus, training_data.utterances, folds)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if options.final:
        final = train_final(console, recipe, config, training_data, folds)
        metrics = {
            f"{name}, {setting}": each[name]
            for setting, each in zip(recipe.judged, rows, strict=True)
            for name in ("ua", "wa", "macro_f1", "weighted_f1")
        }
        info = describe_final(recipe, final, corpus, training_data.licence, extractor, metrics)
        save(checkpoint, final.network, info)
        console.print(f"{checkpoint}: {checkpoint.stat().st_size / 1e6:.1f} MB; licence: {info.licence}", markup=False)
    return 0


def load_training_data(
    console: Console,
    recipe: Recipe,
    config: FusionConfig,
    corpus: Corpus,
    extractor: TextFeatureExtractor,
    settings: Sequence[str] = (),
) -> TrainingData:
    """What the recipe trains from, with the corpus at `settings` too; trains the text network where that is a stage.

    Raises:
        ManifestError: sentences are needed, but there are none.
    """
    licence = joined(licences_of(corpus, recipe.sentences, recipe.noise if recipe.copies else None, recipe.licences))
    utterances = load_utterances(corpus, recipe, extractor, recipe.noise, settings)
    if not recipe.in_stages:
        return TrainingData(utterances, load_substitution(recipe.sentences, recipe, extractor), licence=licence)
    if "neutral" not in recipe.classes:
        raise ManifestError(f"pairs need the class neutral, but the recipe has {', '.join(recipe.classes)}")
    if recipe.sentences is None:
        raise ManifestError("this recipe trains a text: name the folder of GoEmotions' tables with --sentences")
    bank = load_sentences(recipe.sentences, recipe, extractor)
    text = _text(console, recipe, config, bank, _text_file(recipe, config, extractor))
    console.print(f"text alone: macro F1 {text_f1(text, bank.test):.3f} on the test sentences of one class")
    return TrainingData(utterances, None, bank, text, licence)


def _text(console: Console, recipe: Recipe, config: FusionConfig, bank: SentenceBank, file: Path) -> TextNetwork:
    """The trained text network, kept in a file."""
    if file.is_file():
        console.print(f"text: network kept since {describe(file).created} in {file}; delete it to train it anew")
    else:
        with TrainingProgress(recipe.stage("text_training").epochs, console) as progress:
            state = file.with_suffix(".state")
            network = train_text(recipe, config, bank, progress.report, state_file=state).network
        info = CheckpointInfo(
            name=f"{recipe.name}, text",
            config=network.config,
            encoders={},
            codecs=(),
            corpora=(),
            created=_now(),
            licence=joined(licences_of(None, recipe.sentences, None, recipe.licences)),
        )
        save(file, network, info)
    return cast(TextNetwork, load(file)[0])


def _text_file(recipe: Recipe, config: FusionConfig, extractor: TextFeatureExtractor) -> Path:
    """Where a text network is kept that this recipe and this code train: networks with other voices may share it."""
    content = [recipe.text_training, recipe.text_most, recipe.objective, asdict(config), extractor.fingerprints]
    code = source_digest(*NETWORKS, *TEXT_FEATURES)
    return _kept("text", [*content, *_tables(recipe), code]).with_suffix(".safetensors")


def networks_folder(recipe: Recipe, corpus: Corpus, extractor: TextFeatureExtractor) -> Path:
    """Where the networks of a recipe's folds are kept: another folder for other settings, data, encoders or code."""
    content: dict[str, object] = {
        "recipe": recipe.settings(),
        "corpus": [
            [record.utterance, record.emotion, record.speaker, record.fold, record.dialogue]
            for record in corpus.records
        ],
        "recogniser": fingerprint(recipe.recogniser),
        "text": extractor.fingerprints,
        "sentences": _tables(recipe),
        "code": source_digest(*NETWORKS, *SPEECH_FEATURES, *TEXT_FEATURES),
        "augmentation": recipe.waveform_augmenter(recipe.noise).key() if recipe.copies else None,
    }
    if any(setting.startswith("klt") for setting in (*recipe.views, *recipe.copied_at)):
        content["klt"] = klt_tables.digest()
    return _kept(recipe.name, content)


def _kept(name: str, content: object) -> Path:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return cache_folder() / "networks" / f"{name}-{digest[:16]}"


def _tables(recipe: Recipe) -> list[str | None]:
    return [] if recipe.sentences is None else [_digest(recipe.sentences / f"{part}.tsv") for part in PARTS]


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def train_final(
    console: Console, recipe: Recipe, config: FusionConfig, training_data: TrainingData, folds: Sequence[TrainedNetwork]
) -> TrainedNetwork:
    """A network from everything, for as many epochs and with the temperature that the folds had in the median."""
    everything = Split(0, tuple(range(len(training_data.utterances))), (), ())
    epochs = {stage: median_high(each.epochs[stage] for each in folds) for stage in folds[0].epochs}
    with TrainingProgress(max(epochs.values()), console) as progress:
        final = train(recipe, config, training_data, everything, progress.report, stop_after=epochs)
    return TrainedNetwork(everything, final.network, median(each.temperature for each in folds), 0.0, epochs)


def describe_final(
    recipe: Recipe,
    final: TrainedNetwork,
    corpus: Corpus,
    licence: str,
    extractor: TextFeatureExtractor,
    metrics: dict[str, float],
) -> CheckpointInfo:
    """What the checkpoint of the final network says about it."""
    return CheckpointInfo(
        name=recipe.name,
        config=final.network.config,
        encoders={"asr": fingerprint(recipe.recogniser)} | extractor.fingerprints,
        codecs=tuple(dict.fromkeys((*recipe.views, *recipe.copied_at))),
        corpora=(corpus.name,),
        metrics=metrics | {f"epochs, {stage}": number for stage, number in final.epochs.items()},
        created=_now(),
        licence=licence,
        temperature=final.temperature,
        text_languages=recipe.text_languages,
    )


def _epochs(network: TrainedNetwork) -> str:
    return ", ".join(f"{stage.replace('_', ' ')} {number}" for stage, number in network.epochs.items()) + " epochs"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def pooled(folds: Sequence[TrainedNetwork], utterances: Sequence[LabelledUtterance], view: str) -> NDArray[np.float32]:
    """Probabilities of all test parts in the corpus's order: every utterance was in one of them."""
    together = np.zeros((len(utterances), len(folds[0].network.config.classes)), np.float32)
    for fold in folds:
        members = list(fold.split.test)
        together[members] = fold.probabilities([utterances[index].features[view] for index in members])
    return together


def report_folds(
    console: Console,
    recipe: Recipe,
    corpus: Corpus,
    utterances: Sequence[LabelledUtterance],
    folds: Sequence[TrainedNetwork],
) -> list[dict[str, Any]]:
    """Print the figures of each fold and of all together; returns a JSON row for each judged codec setting."""
    rows = []
    truth = np.array([utterance.label for utterance in utterances])
    speakers = np.array([utterance.speaker for utterance in utterances])
    for view in recipe.judged:
        setting, probabilities = CodecSetting.parse(view), pooled(folds, utterances, view)
        named = [
            (
                f"fold {fold.split.fold}, {_epochs(fold)}",
                compare(setting, probabilities[members], truth[members], speakers[members].tolist()),
            )
            for fold, members in ((fold, list(fold.split.test)) for fold in folds)
        ]
        judged = compare(setting, probabilities, truth, speakers.tolist())
        console.print(scores_table(f"{corpus.name} at {view}", [*named, ("all folds", judged)]))
        console.print(confusion_table(judged.matrix, recipe.classes))
        protocol = f"speaker-independent, {len(folds)} folds"
        content = row(judged, recipe.name, corpus.name, protocol, recipe.classes, folds[0].network.modalities)
        left_out = {fault: len(names) for fault, names in corpus.unusable.items()}
        folds_of_row = [figures(each) for _, each in named]
        rows.append(content | {"text": recipe.text, "folds": folds_of_row, "left_out": left_out})
    if corpus.unusable:
        console.print(summary_of(corpus), style="yellow")
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description=(
            "Train a network on a corpus: cross-validation over its folds of speakers first, then, with --final, a "
            "network on all of it. Recordings that cannot be used are left out, counted and named."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--corpus",
        "--manifest",
        metavar="CORPUS",
        help="a manifest (TSV with path, emotion, speaker, fold and, better, language), or NAME=FOLDER (default: the "
        "recipe's)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder that a manifest's paths are relative to (default: the nearest one above it that has the files)",
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_RECIPE, metavar="FILE", help="the recipe (default: what Amser ships)"
    )
    parser.add_argument(
        "--sentences",
        type=Path,
        metavar="DIR",
        help="GoEmotions: a folder with train.tsv, dev.tsv, test.tsv and labels.txt (default: the recipe's)",
    )
    parser.add_argument(
        "--noise", type=Path, metavar="DIR", help="recordings that augmentation adds (default: the recipe's)"
    )
    parser.add_argument("--text-encoder", metavar="MODEL", help="name, folder or id (default: the recipe's)")
    parser.add_argument("--word-vectors", metavar="MODEL", help="name, or folder of spaCy's (default: the recipe's)")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="folds trained at a time, one thread each (default: 2)"
    )
    parser.add_argument("--log-folder", type=Path, metavar="DIR", help="write TensorBoard logs there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a row of pooled figures a codec setting there")
    parser.add_argument(
        "--licence",
        type=named_licence,
        action="append",
        default=[],
        metavar="NAME=TERMS",
        help="terms of the manifest or noise folder of that name, for the checkpoint; may be given several times",
    )
    parser.add_argument("--final", action="store_true", help="then train on everything and write the checkpoint")
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help=f"where --final writes (default: {RUNS}/NAME.safetensors, with the recipe's name)",
    )
    parser.add_argument("--force", action="store_true", help="replace a checkpoint that exists")
    return parser


if __name__ == "__main__":
    sys.exit(main())
