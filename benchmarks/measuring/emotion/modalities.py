"""Seven subsets of the modalities, as in the papers' Tables VI and VII: our network and Amser+, on the same pairs.

The sentences of the corpus say nothing of the emotion, so its voices are paired with sentences of their class:
Amser+ learns from pairs with GoEmotions' training part and chooses its epoch on pairs with the development part, our
voice and text are trained apart, and all are judged on pairs with the test part. A modality outside a subset is
absent from training and judging: no network of that row has a layer for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from scipy.special import log_softmax, softmax
from torch import nn

from models.emotion.attention import SA
from models.emotion.batch import FusionBatch, UtteranceFeatures
from models.emotion.branches import ContextBranch, WordBranch
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork, FusionOutput, JointNetwork
from training.data.dataset import NO_CLASS, LabelledUtterance, SentenceSampler, SentencesOfClass
from training.data.extraction import CodecSetting
from training.data.folds import Split
from training.data.pairs import limited_to, paired, paired_utterances, sentence_limited_to
from training.evaluate import compare, row
from training.fitting.cross_validation import TrainedNetwork, TrainingData, cross_validate
from training.fitting.curriculum import text_f1, text_temperature
from training.fitting.loading import SentenceBank
from training.fitting.loop import Training, logits_of
from training.fitting.progress import TrainingProgress
from training.fitting.recipe import Recipe

SETTING: Final = "svd-f16:0.125"  # the papers' tables are measured at this rate
WORDS, CONTEXT, VOICE = "E", "R", "M"  # as the papers name them: embedding, RoBERTa, Mel
SUBSETS: Final = ("E", "R", "M", "E+R", "E+M", "R+M", "E+R+M")
IEMOCAP: Final = (59.40, 55.29, 55.18, 59.26, 68.21, 64.23, 72.85)  # the papers' accuracy of each, %
TEXT: Final = {WORDS: "words", CONTEXT: "context"}
TINY = 1e-30  # no probability is below it
Row = dict[str, Any]
Logs = NDArray[np.float64]  # log-probabilities (n, classes)


@dataclass(frozen=True, slots=True)
class Judged:
    """The pairs that all networks of the table answer: those of the utterances that a fold tests.

    Attributes:
        recipe: has the classes, and the name of the model.
        corpus: its name.
        protocol: how the corpus is divided.
        features: of each utterance with its sentence, by the utterance's number; at `SETTING`.
        utterances: all of the corpora.
        tested: numbers of the utterances, in the order of all answers.
    """

    recipe: Recipe
    corpus: str
    protocol: str
    features: Mapping[int, UtteranceFeatures]
    utterances: Sequence[LabelledUtterance]
    tested: Sequence[int]

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        corpus: str,
        protocol: str,
        utterances: Sequence[LabelledUtterance],
        splits: Sequence[Split],
        bank: SentenceBank,
    ) -> Judged:
        """Pairs of a corpus: they are the same for all recipes, and however many of the folds are judged."""
        members = [number for number, each in enumerate(utterances) if each.corpus == corpus and each.label != NO_CLASS]
        pairs = paired([utterances[number] for number in members], SETTING, bank.pairs["test"])
        features = dict(zip(members, pairs.features, strict=True))
        tested = sorted(number for each in splits for number in each.test if number in features)
        return cls(recipe, corpus, protocol, features, utterances, tested)

    def row(self, subset: str, read: Sequence[str], logs: Logs) -> Row:
        """The row of a subset, by log-probabilities that need not be normalised."""
        truth = np.array([self.utterances[number].label for number in self.tested])
        speakers = [self.utterances[number].speaker for number in self.tested]
        probabilities = softmax(logs, axis=1).astype(np.float32)
        judged = compare(CodecSetting.parse(SETTING), probabilities, truth, speakers)
        made = row(judged, self.recipe.name, self.corpus, self.protocol, self.recipe.classes, read)
        intervals = {
            f"{name}_{bound}": getattr(getattr(judged.scores, name), bound)
            for name in ("wa", "macro_f1", "weighted_f1")
            for bound in ("low", "high")
            if made["ua_low"] is not None
        }
        return made | intervals | {"subset": subset, "papers_iemocap_wa": _papers(subset)}


def ours_by_subset(
    console: Console, judged: Judged, bank: SentenceBank, text: FusionNetwork, voices: Sequence[TrainedNetwork]
) -> list[Row]:
    """Rows of our network: the voice, texts of words, of context and of both, and their sums.

    Args:
        console: where progress is shown.
        judged: the pairs.
        bank: sentences that the texts of one modality are trained on, as that of both was.
        text: of words and context.
        voices: of the folds, calibrated on their validation part.
    """
    config = text.config
    texts: dict[str, FusionNetwork] = {f"{WORDS}+{CONTEXT}": text} | {
        letter: train_one_text(console, judged.recipe, config, bank, name) for letter, name in TEXT.items()
    }
    features = [judged.features[number] for number in judged.tested]
    logs = {name: _text_logs(each, features, text_temperature(each, bank.development)) for name, each in texts.items()}
    logs[VOICE] = _logs_of_folds(judged, voices, ("states",))
    rows = []
    for subset in SUBSETS:
        of_text = subset.removesuffix(VOICE).removesuffix("+")
        parts = [name for name in (of_text, VOICE if VOICE in subset else "") if name]
        read = [name for letter, name in (*TEXT.items(), (VOICE, "states")) if letter in subset]
        rows.append(judged.row(subset, read, np.sum([logs[part] for part in parts], axis=0)))
    return rows


class TextOfOne(JointNetwork):
    """Our text network (`models.emotion.amser_states.TextNetwork`) with the branch of `words` or `context` alone."""

    def __init__(self, config: FusionConfig, modality: str) -> None:
        super().__init__(config)
        self.modalities = (modality,)
        self.branch = WordBranch(config) if modality == "words" else ContextBranch(config)
        self.norm = nn.Identity() if modality == "words" else nn.LayerNorm(config.hidden)
        self.joint = SA(config.hidden, config.heads, config.feed_forward, config.dropout)
        self.add_joint_head(config.heads)

    def forward(self, batch: FusionBatch) -> FusionOutput:
        is_words = isinstance(self.branch, WordBranch)
        read = (batch.words, batch.word_lengths) if is_words else (batch.context, batch.context_lengths)
        rows, mask = self.branch(*read)
        return self.answer_joint(self.joint(self.norm(rows), mask), mask)


def train_one_text(
    console: Console, recipe: Recipe, config: FusionConfig, bank: SentenceBank, modality: str
) -> TextOfOne:
    """A text of one modality, trained as `training.fitting.curriculum.train_text` trains that of both."""
    how = recipe.stage("text_training")
    torch.manual_seed(how.seed)
    with TrainingProgress(how.epochs, console) as progress:
        run = Training(
            TextOfOne(replace(config, model="text"), modality),
            how,
            replace(recipe.contrast(), alpha=0.0, label_smoothing=0.0),
            SentenceSampler(bank.training),
            lambda network: text_f1(network, bank.development),
        )
        fitted = run.run(lambda epoch: progress.report(f"text, {modality} alone", epoch))
    return cast(TextOfOne, fitted.network)


def _text_logs(text: FusionNetwork, features: Sequence[UtteranceFeatures], temperature: float) -> Logs:
    logits = logits_of(text, [limited_to(each, text.modalities) for each in features], 128)
    return np.asarray(log_softmax(logits.astype(np.float64) / temperature, axis=1))


def _logs_of_folds(judged: Judged, folds: Sequence[TrainedNetwork], modalities: Sequence[str]) -> Logs:
    """Each pair, or what of it is of some modalities, by the network that does not know its speaker."""
    position = {number: place for place, number in enumerate(judged.tested)}
    logs = np.zeros((len(judged.tested), len(judged.recipe.classes)))
    for fold in folds:
        test = [number for number in fold.split.test if number in position]
        features = [limited_to(judged.features[number], modalities) for number in test]
        probabilities = fold.probabilities(features).astype(np.float64)
        logs[[position[number] for number in test]] = np.log(np.maximum(probabilities, TINY))
    return logs


def recipe_of_pairs(recipe: Recipe) -> Recipe:
    """A published recipe without what pairs do not need: own words, other texts, augmented copies (an hour of CPU)."""
    return replace(recipe, own_words=False, copies=0, substitute_sentences=0, replace_text=0, omit_text=0)


def published_by_subset(
    console: Console,
    judged: Judged,
    splits: Sequence[Split],
    bank: SentenceBank,
    context_width: int,
    folder_of: Callable[[Recipe], Path],
    workers: int,
    subsets: Sequence[str] = SUBSETS,
) -> list[Row]:
    """Rows of a published network that can be built for some of its modalities; networks are kept.

    Args:
        console: where progress is shown.
        judged: the pairs, and the recipe, see `recipe_of_pairs`.
        splits: of the utterances, all of which have a class.
        bank: sentences to pair them with.
        context_width: of the text encoder.
        folder_of: where the networks of a recipe are kept.
        workers: networks trained at a time.
        subsets: some of `SUBSETS`.
    """
    rows = []
    for subset in subsets:
        read = tuple(name for letter, name in (*TEXT.items(), (VOICE, "mel")) if letter in subset)
        recipe = replace(
            judged.recipe,
            name=f"{judged.recipe.name}-pairs-{subset}",
            network={**judged.recipe.network, "modalities": read},
            mel_augmentation=judged.recipe.mel_augmentation if "mel" in read else None,
        )
        console.rule(recipe.name)
        data, shifted = data_of_pairs(recipe.views, judged.utterances, splits, bank, read)
        config = recipe.network_config(context_width)
        networks = cross_validate(recipe, config, data, shifted, folder_of(recipe), workers=workers, console=console)
        rows.append(judged.row(subset, read, _logs_of_folds(judged, networks, read)))
    return rows


def data_of_pairs(
    views: Sequence[str],
    utterances: Sequence[LabelledUtterance],
    splits: Sequence[Split],
    bank: SentenceBank,
    modalities: Sequence[str],
) -> tuple[TrainingData, list[Split]]:
    """What a network of some modalities learns from, and the splits of it; n utterances become 2 n.

    The first n are voices, which training draws with another sentence of the training part each time; the others are
    the same voices, each with a sentence of the development part, and validate.
    """
    developing = paired_utterances(utterances, views, bank.pairs["dev"])
    limited = [
        replace(each, features={view: limited_to(each.features[view], modalities) for view in views})
        for each in (*utterances, *developing)
    ]
    teaching = [[sentence_limited_to(each, modalities) for each in group] for group in bank.pairs["train"]]
    count = len(utterances)
    shifted = [
        Split(each.fold, each.training, tuple(count + number for number in each.validation), each.test, each.name)
        for each in splits
    ]
    has_text = any(name in modalities for name in TEXT.values())
    return TrainingData(limited, SentencesOfClass(teaching) if has_text else None), shifted


def _papers(subset: str) -> float:
    return IEMOCAP[SUBSETS.index(subset)] / 100
