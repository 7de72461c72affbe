"""Fit a trained network to another text encoder or another Whisper: `python -m training.adapt --text-encoder MODEL …`.

A network belongs to the encoders that it was trained with. This command trains anew what depends on one of them
(`training.fitting.refitting`), from cached features, compares the result with what was there, and writes it as a
checkpoint that `serve_config.yaml` can name.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from models.emotion.amser_states import AmserStates
from models.emotion.checkpoint import load, save
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT, CheckpointError, CheckpointInfo, EncoderMismatch
from models.weights import UnknownModel, fingerprint
from training.corpora.catalogue import open_corpus
from training.corpora.licences import extended, joined, licences_of, named_licence
from training.corpora.manifest import Corpus, ManifestError
from training.data.extraction import THREADS
from training.data.screening import screen, summary_of
from training.data.texts import TEXT_ENCODER, TextFeatureExtractor
from training.fitting.recipe import Recipe
from training.fitting.refitting import (
    Refitted,
    RefittingData,
    figures_of_cross_validation,
    judge,
    losses,
    refit_text,
    refit_voice,
)
from training.outputs import RUNS, new_file
from training.train import DEFAULT_RECIPE

WRITTEN, WORSE, WRONG = 0, 1, 2  # exit codes
KNOWN_SPEAKERS, NEW_SPEAKERS = "speakers of the training", "new speakers"
CAPTIONS = {
    KNOWN_SPEAKERS: "what the exchange costs, not how accurate the network is with new speakers",
    NEW_SPEAKERS: "the old network in its cross-validation, over all folds; the new one with the speakers of one",
}
EXAMPLES = """
examples:
  python -m training.adapt --text-encoder all-mpnet-base-v2 --corpus corpora/ravdess.tsv --sentences goemotions/
  python -m training.adapt --text-encoder /models/roberta-base --corpus ravdess=/data/RAVDESS --sentences goemotions/
  python -m training.adapt --whisper whisper-tiny.en --corpus corpora/ravdess.tsv --sentences goemotions/

The speakers of the first fold test and calibrate the new network; speakers of the second validate it. With
--text-encoder they are not new: the voice, which stays, was trained on them. The table then says
what the exchange of the encoder costs, not how accurate the voice is with new speakers. With --whisper they are new to
the new voice; beside its figures stand those of the old network with new speakers, from its cross-validation.

exit codes: 0 the checkpoint is written, 1 it is not because it loses more than 5 points of UA, 2 an error.
"""


@dataclass(frozen=True, slots=True)
class Source:
    """What a network is trained from, and how.

    Attributes:
        corpus: voices.
        sentences: folder of GoEmotions' tables.
        noise: folder of recordings that augmentation adds; None for none.
        recipe: how to train; it names the recogniser.
        extractor: the encoders of texts.
    """

    corpus: Corpus
    sentences: Path
    noise: Path | None
    recipe: Recipe
    extractor: TextFeatureExtractor

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of each encoder, as checkpoints carry them."""
        return {"asr": fingerprint(self.recipe.recogniser)} | self.extractor.fingerprints

    def refitting_data(self) -> RefittingData:
        """The features."""
        return RefittingData.load(self.corpus, self.sentences, self.noise, self.recipe, self.extractor)


@dataclass(frozen=True, slots=True)
class Adapted:
    """A network for another encoder, what it and the old one reach, by name, and what calibrates it."""

    refitted: Refitted
    speakers: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    temperature: float


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(THREADS)
    try:
        return _adapt(options, Console())
    except (ManifestError, CheckpointError, UnknownModel, OSError, TypeError, ValueError) as error:
        print(f"training.adapt: {error}", file=sys.stderr)
        return WRONG


def _adapt(options: argparse.Namespace, console: Console) -> int:
    named = dict(options.licence)
    recipe = Recipe.read(options.config).with_data(options.corpus, options.sentences, options.noise, named)
    if recipe.sentences is None:
        raise ManifestError("a text network is to be trained: name the folder of GoEmotions' tables with --sentences")
    if recipe.corpus is None:
        raise ManifestError("both networks are compared with the speakers of one corpus: name it with --corpus")
    extractor = TextFeatureExtractor(options.old_text_encoder, recipe.word_vectors)
    corpus = screen(open_corpus(str(recipe.corpus), options.root))
    if corpus.unusable:
        console.print(summary_of(corpus), style="yellow")
    old = Source(corpus, recipe.sentences, recipe.noise, recipe, extractor)
    network, info = load_network(options.checkpoint, old)
    if options.whisper:
        replaced, added = recipe.recogniser, options.whisper
        new = replace(old, recipe=replace(recipe, recogniser=added))
    else:
        new = replace(old, extractor=open_extractor(options.text_encoder, recipe.word_vectors))
        replaced, added = extractor.text_encoder.name, new.extractor.text_encoder.name
    if new.fingerprints == info.encoders:
        raise CheckpointError(f"{options.checkpoint} was trained with {added} already")
    name = f"{info.name}+{added}"
    output = new_file(options.output or RUNS / f"{name}.safetensors".replace("/", "-"), options.force)

    exchange = exchange_recogniser if options.whisper else exchange_text_encoder
    adapted = exchange(network, info, old, new, console)
    console.print(_table(adapted, replaced, added))
    reasons = losses(adapted.before, adapted.after)
    for reason in reasons:
        print(f"training.adapt: {reason}", file=sys.stderr)
    if reasons and not options.force:
        print("training.adapt: no checkpoint is written; --force writes it all the same", file=sys.stderr)
        return WORSE
    save(output, adapted.refitted.network, describe(adapted, info, name, new))
    console.print(
        f"{output}: {output.stat().st_size / 1e6:.1f} MB; in the `args` of serve_config.yaml:", soft_wrap=True
    )
    for line in settings_lines(new, options.text_encoder or options.old_text_encoder, output):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return WRITTEN


def open_extractor(text_encoder: str, word_vectors: str | None = None) -> TextFeatureExtractor:
    """An extractor whose encoder has been loaded, so that a missing encoder is an error at once."""
    extractor = TextFeatureExtractor(text_encoder, word_vectors)
    try:
        extractor.extract([""])
    except OSError as error:
        raise FileNotFoundError(f"{text_encoder} is not a text encoder on this machine: {error}") from error
    return extractor


def load_network(path: Path, source: Source) -> tuple[AmserStates, CheckpointInfo]:
    """A checkpoint that can be adapted: the right network, trained with the source's encoders, classes and corpus.

    Raises:
        CheckpointError, FileNotFoundError: it is not.
    """
    network, info = load(path)
    if not isinstance(network, AmserStates):
        raise CheckpointError(f"{path} holds {info.config.model}; what can be adapted is amser-states alone")
    remedies = {
        "asr": f"its voice learnt from another recogniser than {source.recipe.recogniser}; name it in the recipe",
        "words": "its text learnt from other word vectors, and these cannot be exchanged",
        "context": "its text learnt from another encoder; name that one with --old-text-encoder",
    }
    for role, present in source.fingerprints.items():
        if info.encoders.get(role) != present:
            raise EncoderMismatch(f"{path}: {remedies[role]}")
    if info.config.classes != source.recipe.classes:
        raise CheckpointError(f"{path} tells {', '.join(info.config.classes)} apart; the recipe has other classes")
    if source.corpus.name not in info.corpora:
        raise CheckpointError(f"{path} learnt from {', '.join(info.corpora)}, but the corpus is {source.corpus.name}")
    return network, info


def exchange_text_encoder(
    network: AmserStates, info: CheckpointInfo, old: Source, new: Source, console: Console
) -> Adapted:
    """The same voice with a text for the new encoder, beside the old ones with the same speakers.

    They are speakers that the voice learnt from, which makes both look surer than they may be. So only the ratio of
    their temperatures is used: it scales the checkpoint's own, which comes from speakers that were new to it.
    """
    before = judge(network, replace(old, recipe=replace(old.recipe, copies=0)).refitting_data())
    refitting_data = new.refitting_data()
    refitted = refit_text(network, new.extractor.context_width, refitting_data, console)
    after = judge(refitted.network, refitting_data)
    temperature = info.temperature_for("voice+text") * after.temperature / before.temperature
    return Adapted(refitted, KNOWN_SPEAKERS, before.figures, after.figures, temperature)


def exchange_recogniser(
    network: AmserStates, info: CheckpointInfo, old: Source, new: Source, console: Console
) -> Adapted:
    """The same text with a voice for the new recogniser, beside what the old ones once reached."""
    refitting_data = new.refitting_data()
    refitted = refit_voice(network, refitting_data, console)
    after = judge(refitted.network, refitting_data)
    before = figures_of_cross_validation(info, old.recipe.views)
    return Adapted(refitted, NEW_SPEAKERS, before, after.figures, after.temperature)


def describe(adapted: Adapted, info: CheckpointInfo, name: str, source: Source) -> CheckpointInfo:
    """What the new checkpoint says about it: as `info` of the old one, with the terms of what it learnt from since."""
    recipe = source.recipe
    since = licences_of(None, source.sentences, source.noise if recipe.copies else None, recipe.licences)
    before = info.licence or joined(dict.fromkeys(info.corpora, ""))
    figures = {f"{figure}, {adapted.speakers}": value for figure, value in adapted.after.items()}
    return replace(
        info,
        name=name,
        config=adapted.refitted.network.config,
        encoders=source.fingerprints,
        metrics=figures | {f"epochs, {stage}": float(number) for stage, number in adapted.refitted.epochs.items()},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        licence=extended(before, since),
        temperature=adapted.temperature,
        temperatures={"voice": info.temperature_for("voice"), "text": 1.0},
    )


def settings_lines(source: Source, text_encoder: str, checkpoint: Path) -> list[str]:
    """The lines of serve_config.yaml that name the encoders and the checkpoint, see `deployments.settings`."""
    folder = Path(text_encoder).expanduser()
    model = folder.resolve() if source.extractor.text_encoder.location == folder else text_encoder
    return [
        "recognizer:",
        f"  weights: {source.recipe.recogniser}",
        "text_encoder:",
        f"  model: {model}",
        f"fusion_checkpoint: {checkpoint.resolve()}",
    ]


def _table(adapted: Adapted, replaced: str, added: str) -> Table:
    title, caption = f"one fold held out, {adapted.speakers}", CAPTIONS[adapted.speakers]
    table = Table("", replaced, added, "points", title=title, caption=caption)
    for name, after in adapted.after.items():
        before = adapted.before.get(name)
        old, points = ("–", "") if before is None else (f"{before:.3f}", f"{100 * (after - before):+.1f}")
        table.add_row(name, old, f"{after:.3f}", points)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.adapt",
        description=(
            "Fit a trained network to another text encoder or another Whisper: what depends on it is trained anew, "
            "from cached features, compared with what was there, and written as a checkpoint."
        ),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument("--text-encoder", metavar="MODEL", help="name of the weight catalogue, folder, or id (cached)")
    encoder.add_argument("--whisper", metavar="MODEL", help="a Whisper of the weight catalogue")
    parser.add_argument(
        "--corpus",
        help="what the checkpoint learnt from: a manifest with folds, or NAME=FOLDER (default: the recipe's)",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder that a manifest's paths are relative to")
    parser.add_argument(
        "--sentences",
        type=Path,
        metavar="DIR",
        help="GoEmotions: {train,dev,test}.tsv, labels.txt (default: the recipe's)",
    )
    parser.add_argument(
        "--noise",
        type=Path,
        metavar="DIR",
        help="recordings that augmentation adds; those of the training, and its cached features serve",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=DEFAULT_CHECKPOINT,
        metavar="FROM",
        help="the trained network (default: the checkpoint that comes with Amser)",
    )
    parser.add_argument(
        "--old-text-encoder", default=TEXT_ENCODER, metavar="MODEL", help=f"that of FROM (default: {TEXT_ENCODER})"
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_RECIPE, metavar="RECIPE", help="how to train (default: what Amser ships)"
    )
    parser.add_argument(
        "--licence",
        type=named_licence,
        action="append",
        default=[],
        metavar="NAME=TERMS",
        help="terms of the noise folder of that name, for the checkpoint",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"where to write (default: {RUNS}/, named after the encoder)"
    )
    parser.add_argument(
        "--force", action="store_true", help="write the checkpoint even where it loses too much or FILE exists"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
