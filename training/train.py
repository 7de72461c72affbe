"""Train a network: `python -m training.train --config FILE [--corpus CORPUS] [--sentences DIR] [--noise DIR]
[--final]`.

Cross-validation first. With several corpora each is left out in turn: the others teach, it judges, and the calibration
comes from networks that miss a further corpus. With one, folds of speakers: fold k tests, speakers of the next fold
validate, the others train. With `--final`, a network is then trained on everything for the median number of epochs, and
written as a checkpoint that carries the cross-validated figures.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, median_high
from typing import Any, cast

import torch
from rich.console import Console

from amser.codecs import klt_tables
from models.emotion.amser_states import TextNetwork, VoiceNetwork
from models.emotion.checkpoint import load, save
from models.emotion.checkpoint_info import CheckpointInfo, describe
from models.emotion.config import FusionConfig
from models.weights import UnknownModel, cache_folder, fingerprint
from training.corpora.licences import joined, licences_of, named_licence
from training.corpora.manifest import Corpus, ManifestError
from training.data.dataset import LabelledUtterance
from training.data.extraction import THREADS
from training.data.folds import Split, can_leave_corpora_out, folds_within, leave_one_corpus_out, split
from training.data.screening import summary_of
from training.data.texts import TextFeatureExtractor
from training.fitting.cross_validation import TrainedNetwork, TrainingData, cross_validate, train
from training.fitting.curriculum import join, text_f1, text_temperature, train_text
from training.fitting.left_out import Calibration, calibrations_of, leave_corpora_out
from training.fitting.loading import (
    PARTS,
    OpenTeacher,
    SentenceBank,
    load_sentences,
    load_substitution,
    load_utterances,
    open_teachers,
    sentence_recogniser,
)
from training.fitting.progress import TrainingProgress
from training.fitting.recipe import Recipe
from training.outputs import RUNS, new_file
from training.reports import ALL_LEFT_OUT, AMONG_ALL, LEFT_OUT, report_folds, report_left_out
from training.source_digest import NETWORKS, SPEECH_FEATURES, TEXT_FEATURES, source_digest

CORPORA, FOLDS = "corpora", "folds"  # protocols
METRICS = ("ua", "wa", "macro_f1", "weighted_f1")  # of the checkpoint
WORDLESS = "zxx"  # the code of sounds without a language
DEFAULT_RECIPE = Path(__file__).parent / "configs" / "amser-states.yaml"
EXAMPLES = """
examples:
  python -m training.train --corpus corpora/ravdess.tsv --sentences goemotions/ --noise esc10/ --json folds.json
  python -m training.train --corpus iemocap=/data/IEMOCAP_full_release --config my.yaml --final --checkpoint my.st

Features and the networks of finished folds are kept in Amser's cache folder: a run that was interrupted goes on where
it stopped, and a second run starts at once. Changed code computes them anew.
`python -m training.corpora` lists the corpora that are known by name.
"""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What cross-validation found.

    Attributes:
        rows: figures, as JSON.
        networks: those that were trained.
        calibration: of a network that learns from everything; None where a temperature alone is known.
    """

    rows: list[dict[str, Any]]
    networks: Sequence[TrainedNetwork]
    calibration: Calibration | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The figures that a checkpoint carries: `ua, CODEC` and so on, and `ua, CORPUS, CODEC` of left-out corpora."""
        metrics: dict[str, float] = {}
        for each in self.rows:
            if AMONG_ALL in each["protocol"]:
                continue
            if LEFT_OUT in each["protocol"] and each["corpus"] != ALL_LEFT_OUT:
                metrics[f"ua, {each['corpus']}, {_view_of(each)}"] = each["ua"]
            else:
                metrics |= {f"{name}, {_view_of(each)}": each[name] for name in METRICS}
        return metrics


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
        opened = open_teachers(recipe, options.root)
        for _, corpus in opened:
            if corpus.unusable:
                console.print(summary_of(corpus), style="yellow")
        config = recipe.network_config(extractor.context_width)
        training_data = load_training_data(console, recipe, config, opened, extractor)
        plan = plan_of(recipe, options.protocol, options.folds_of)
        splits = splits_of(plan, recipe, training_data.utterances)
        console.print(f"terms of the data: {training_data.licence}", markup=False)
    except (UnknownModel, ManifestError, OSError, TypeError, ValueError) as error:
        print(f"training.train: {error}", file=sys.stderr)
        return 2
    folder = networks_folder(recipe, opened, extractor)
    running = {"workers": options.workers, "console": console, "log_folder": options.log_folder}
    if plan == CORPORA:
        left_out = leave_corpora_out(recipe, config, training_data, folder, **running)
        rows = report_left_out(console, recipe, training_data.utterances, left_out)
        found = Assessment(rows, left_out.networks, left_out.final)
    else:
        folds = cross_validate(recipe, config, training_data, splits, folder, **running)
        (corpus,) = (corpus for _, corpus in opened if corpus.name == plan)
        found = Assessment(report_folds(console, recipe, corpus, training_data.utterances, folds), folds)
    if options.json:
        options.json.write_text(json.dumps(found.rows, indent=2) + "\n", encoding="utf-8")
    if options.final:
        final = train_final(console, recipe, config, training_data, found)
        info = describe_final(recipe, final, [corpus for _, corpus in opened], training_data, extractor, found)
        save(checkpoint, final.network, info)
        console.print(f"{checkpoint}: {checkpoint.stat().st_size / 1e6:.1f} MB; licence: {info.licence}", markup=False)
    return 0


def plan_of(recipe: Recipe, protocol: str | None, folds_of: str | None) -> str:
    """`CORPORA`, or the name of the corpus whose folds of speakers are used.

    Raises:
        ValueError: no corpus of the recipe has the name, or too few can be left out.
    """
    names = [each.name for each in recipe.teachers]
    if folds_of is not None and folds_of not in names:
        raise ValueError(f"--folds-of {folds_of}: the corpora are {', '.join(names)}")
    is_possible = can_leave_corpora_out(recipe.teachers)
    if protocol == CORPORA and not is_possible:
        raise ValueError("--protocol corpora: three corpora that can be left out are needed")
    by_corpora = protocol == CORPORA or (protocol is None and folds_of is None and is_possible)
    return CORPORA if by_corpora else folds_of or names[0]


def splits_of(plan: str, recipe: Recipe, utterances: Sequence[LabelledUtterance]) -> tuple[Split, ...]:
    """What a plan trains and tests first; raises ValueError where the corpus has no folds."""
    if plan == CORPORA:
        return leave_one_corpus_out(utterances, recipe.teachers)
    return folds_within(utterances, plan) if len(recipe.teachers) > 1 else split(utterances)


def load_training_data(
    console: Console,
    recipe: Recipe,
    config: FusionConfig,
    corpora: Corpus | Sequence[OpenTeacher],
    extractor: TextFeatureExtractor,
    settings: Sequence[str] = (),
) -> TrainingData:
    """What the recipe trains from, with the corpora at `settings` too; trains the text network where that is a stage.

    Raises:
        ManifestError: sentences are needed, but there are none.
    """
    noise = recipe.noise if recipe.copies else None
    licence = joined(licences_of(_corpora(corpora), recipe.sentences, noise, recipe.licences))
    utterances = load_utterances(corpora, recipe, extractor, recipe.noise, settings)
    if not recipe.in_stages:
        return TrainingData(utterances, load_substitution(recipe.sentences, recipe, extractor), licence=licence)
    if "neutral" not in recipe.classes:
        raise ManifestError(f"pairs need the class neutral, but the recipe has {', '.join(recipe.classes)}")
    if recipe.sentences is None:
        raise ManifestError("this recipe trains a text: name the folder of GoEmotions' tables with --sentences")
    bank = load_sentences(recipe.sentences, recipe, extractor)
    text = text_network(console, recipe, config, bank, extractor)
    console.print(f"text alone: macro F1 {text_f1(text, bank.test):.3f} on the test sentences of one class")
    return TrainingData(utterances, None, bank, text, licence)


def text_network(
    console: Console, recipe: Recipe, config: FusionConfig, bank: SentenceBank, extractor: TextFeatureExtractor
) -> TextNetwork:
    """The text network, trained on a bank that the recipe makes, or as it was kept in a file."""
    file = _text_file(recipe, config, extractor)
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
    content += [recipe.recognised, sentence_recogniser(recipe).key()] if recipe.recognised else []
    code = source_digest(*NETWORKS, *TEXT_FEATURES)
    return _kept("text", [*content, *_tables(recipe), code]).with_suffix(".safetensors")


def networks_folder(recipe: Recipe, corpora: Corpus | Sequence[OpenTeacher], extractor: TextFeatureExtractor) -> Path:
    """Where the networks of a recipe are kept: another folder for other settings, data, encoders or code."""
    content: dict[str, object] = {
        "recipe": recipe.settings(),
        "corpus": [
            [record.utterance, record.emotion, record.speaker, record.fold, record.dialogue]
            for corpus in _corpora(corpora)
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


def _corpora(corpora: Corpus | Sequence[OpenTeacher]) -> list[Corpus]:
    return [corpora] if isinstance(corpora, Corpus) else [corpus for _, corpus in corpora]


def _kept(name: str, content: object) -> Path:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return cache_folder() / "networks" / f"{name}-{digest[:16]}"


def _tables(recipe: Recipe) -> list[str | None]:
    return [] if recipe.sentences is None else [_digest(recipe.sentences / f"{part}.tsv") for part in PARTS]


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def train_final(
    console: Console, recipe: Recipe, config: FusionConfig, training_data: TrainingData, found: Assessment
) -> TrainedNetwork:
    """A network from everything, for as many epochs as the networks of cross-validation took in the median.

    Its temperature is that of the calibration, or else their median.
    """
    everything = Split(0, tuple(range(len(training_data.utterances))), (), ())
    judged = found.networks
    epochs = {stage: median_high(each.epochs[stage] for each in judged) for stage in judged[0].epochs}
    with TrainingProgress(max(epochs.values()), console) as progress:
        final = train(recipe, config, training_data, everything, progress.report, stop_after=epochs)
    calibration = found.calibration
    temperature = calibration.temperature if calibration else median(each.temperature for each in judged)
    if not recipe.in_stages or recipe.own_words:
        return TrainedNetwork(everything, final.network, temperature, 0.0, epochs)
    assert training_data.text is not None
    assert training_data.bank is not None
    text = training_data.text
    weighted = join(
        cast(VoiceNetwork, final.network), text, temperature, text_temperature(text, training_data.bank.development)
    )
    return TrainedNetwork(everything, weighted, 1.0, 0.0, epochs)


def describe_final(
    recipe: Recipe,
    final: TrainedNetwork,
    corpora: Sequence[Corpus],
    training_data: TrainingData,
    extractor: TextFeatureExtractor,
    found: Assessment,
) -> CheckpointInfo:
    """What the checkpoint of the final network says about it."""
    known = found.calibration
    calibrations = {} if known is None else calibrations_of(recipe, training_data, found.networks, known)
    languages = {record.language for corpus in corpora for record in corpus.records if record.language}
    return CheckpointInfo(
        name=recipe.name,
        config=final.network.config,
        encoders={"asr": fingerprint(recipe.recogniser)} | extractor.fingerprints,
        codecs=tuple(dict.fromkeys((*recipe.views, *recipe.copied_at))),
        corpora=tuple(corpus.name for corpus in corpora),
        metrics=found.metrics | {f"epochs, {stage}": number for stage, number in final.epochs.items()},
        created=_now(),
        licence=training_data.licence,
        temperature=final.temperature,
        temperatures={name: each.temperature for name, each in calibrations.items()},
        sure_from={name: each.sure_from for name, each in calibrations.items()},
        voice_languages=tuple(sorted(languages - {WORDLESS})) if calibrations else (),
        text_languages=recipe.text_languages,
    )


def _view_of(row: dict[str, Any]) -> str:
    """The codec setting of a row, as recipes write it."""
    setting = f"{row['rate']:g}" if row["rate"] is not None else row["step"]
    return str(row["codec"]) if setting is None else f"{row['codec']}:{setting}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description=(
            "Train a network on one corpus or several: cross-validation first, over corpora or folds of speakers, "
            "then, with --final, a network on all of it. Recordings that cannot be used are left out, counted, named."
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
        "--workers", type=int, default=2, metavar="N", help="networks trained at a time, one thread each (default: 2)"
    )
    parser.add_argument(
        "--protocol",
        choices=(CORPORA, FOLDS),
        help="how it is judged: each corpus left out in turn, or folds of the speakers of one corpus, with the others "
        "in training (default: corpora where three can be left out)",
    )
    parser.add_argument("--folds-of", metavar="NAME", help="the corpus with these folds (default: the recipe's first)")
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
