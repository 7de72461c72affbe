"""A trained network for other encoders: parts that depend on them are trained anew, the rest stays, both are judged.

Voice and text were trained apart (`training.fitting.curriculum`). Another text encoder needs another text: the voice
stays as it is, bit for bit. Another Whisper needs another voice, and the text stays. `training.adapt` is the command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import cast

from rich.console import Console

from models.emotion.amser_states import AmserStates, TextNetwork, VoiceNetwork
from models.emotion.batch import UtteranceFeatures
from models.emotion.checkpoint_info import CheckpointInfo
from training.corpora.manifest import Corpus
from training.data.dataset import LabelledUtterance
from training.data.folds import split
from training.data.pairs import paired
from training.data.texts import TextFeatureExtractor
from training.fitting.cross_validation import temperature_of
from training.fitting.curriculum import (
    join,
    text_f1,
    text_temperature,
    train_at_once,
    train_text,
    voice_temperature,
)
from training.fitting.loading import SentenceBank, load_sentences, load_utterances
from training.fitting.loop import predict
from training.fitting.progress import TrainingProgress
from training.fitting.recipe import Recipe
from training.judging.metrics import unweighted_accuracy

GREATEST_LOSS = 0.05  # of unweighted accuracy; a network that loses more should not replace the old one
WHISPER_HEAD_WIDTH = 64  # of every attention head, in every size of Whisper

TEXT_ALONE = "text alone, macro F1"
OWN_WORDS, PAIRS = "own words, UA", "pairs, UA"
VOICE_ALONE, WORDS_ALONE = "voice alone, UA", "words alone, UA"


@dataclass(frozen=True, slots=True)
class RefittingData:
    """What a network is trained from and judged on: features of its encoders.

    Attributes:
        recipe: how to train; it names the recogniser.
        training: utterances to train on.
        validation: utterances of other speakers, to choose the epoch.
        held_out: utterances of the speakers of the first fold, to judge and calibrate by.
        bank: sentences.
    """

    recipe: Recipe
    training: Sequence[LabelledUtterance]
    validation: Sequence[LabelledUtterance]
    held_out: Sequence[LabelledUtterance]
    bank: SentenceBank

    @classmethod
    def load(
        cls, corpus: Corpus, sentences: Path, noise: Path | None, recipe: Recipe, extractor: TextFeatureExtractor
    ) -> RefittingData:
        """Read the features of a corpus with folds and of GoEmotions, or make those that are not in the cache."""
        utterances = load_utterances(corpus, recipe, extractor, noise)
        first = split(utterances)[0]
        training, validation, held_out = (
            [utterances[index] for index in group] for group in (first.training, first.validation, first.test)
        )
        return cls(recipe, training, validation, held_out, load_sentences(sentences, recipe, extractor))


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures of a network with the held-out speakers, by name, and the temperature that suits it there."""

    figures: Mapping[str, float]
    temperature: float


@dataclass(frozen=True, slots=True)
class Refitted:
    """A network for other encoders, and how many epochs each of its stages took."""

    network: AmserStates
    epochs: dict[str, int]


def refit_text(network: AmserStates, context_width: int, refitting_data: RefittingData, console: Console) -> Refitted:
    """The same voice with a new text, for token states of that width."""
    recipe = refitting_data.recipe
    config = replace(network.config, context_width=context_width)
    with TrainingProgress(recipe.stage("text_training").epochs, console) as progress:
        text = train_text(recipe, config, refitting_data.bank, progress.report)
    joined = join(
        network.voice,
        cast(TextNetwork, text.network),
        1 / float(network.voice_weight),
        text_temperature(cast(TextNetwork, text.network), refitting_data.bank.development),
    )
    return Refitted(joined, {"text_training": text.best_epoch})


def refit_voice(network: AmserStates, refitting_data: RefittingData, console: Console) -> Refitted:
    """The same text with a new voice, whose layers are initialised from the recipe's Whisper."""
    recipe = refitting_data.recipe
    width = refitting_data.training[0].features[recipe.views[0]].encoder_states.shape[1]
    heads = width // network.config.state_sources // WHISPER_HEAD_WIDTH
    config = replace(network.config, model="voice", state_width=width, state_heads=heads)
    with TrainingProgress(recipe.stage("training").epochs, console) as progress:
        fitted = train_at_once(
            recipe, config, refitting_data.training, refitting_data.validation, None, progress.report
        )
    voice = cast(VoiceNetwork, fitted.network)
    temperature = voice_temperature(voice, refitting_data.validation, recipe.views)
    return Refitted(
        join(voice, network.text, temperature, 1 / float(network.text_weight)), {"training": fitted.best_epoch}
    )


def judge(network: AmserStates, refitting_data: RefittingData) -> Judgement:
    """The figures of a network with the held-out speakers: with their own words, and with sentences of the test set."""
    recipe, held_out, bank = refitting_data.recipe, refitting_data.held_out, refitting_data.bank
    pairs = paired(held_out, recipe.views[-1], bank.pairs["test"])
    own_words = [each.features[view] for view in recipe.views for each in held_out]
    own_labels = [each.label for _ in recipe.views for each in held_out]

    def accuracy(utterances: Sequence[UtteranceFeatures], labels: Sequence[int]) -> float:
        return unweighted_accuracy(labels, predict(network, utterances).argmax(1))

    figures = {
        TEXT_ALONE: text_f1(network.text, bank.test),
        OWN_WORDS: accuracy(own_words, own_labels),
        PAIRS: accuracy(pairs.features, pairs.labels),
        VOICE_ALONE: accuracy(pairs.voices, pairs.labels),
        WORDS_ALONE: accuracy(pairs.sentences, pairs.labels),
    }
    return Judgement(figures, temperature_of(recipe, network, held_out, bank))


def figures_of_cross_validation(info: CheckpointInfo, views: Sequence[str]) -> dict[str, float]:
    """The figures of a checkpoint's network with speakers new to it, over the views; empty if it holds none.

    `training.train` writes such figures, one for each codec setting.
    """
    names = [f"ua, {view}" for view in views]
    return {OWN_WORDS: mean(info.metrics[name] for name in names)} if info.metrics.keys() >= set(names) else {}


def losses(old: Mapping[str, float], new: Mapping[str, float]) -> list[str]:
    """Why a network should not replace another one; empty where it may."""
    if not old:
        return ["the checkpoint holds no figures with new speakers: there is nothing to compare with"]
    return [
        f"{name} falls by {100 * (old[name] - new[name]):.1f} points; {100 * GREATEST_LOSS:.0f} are the most"
        for name in (OWN_WORDS, PAIRS)
        if name in old and old[name] - new[name] > GREATEST_LOSS
    ]
