"""What the text network makes of a recogniser's words, for `benchmarks.emotion --only words`.

Sentences that GoEmotions keeps for testing are judged as they were typed and as the recogniser writes them when they
are spoken (`training.data.recognised`), by networks that learnt from typed sentences alone, from recognised ones too,
and, with the first seed, from typed sentences of which the same ones come twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jiwer
import numpy as np
from rich.console import Console
from whisper.normalizers import EnglishTextNormalizer

from benchmarks.measuring.command import CannotBegin
from models.emotion.amser_states import TextNetwork
from training.corpora.goemotions import NAME, Sentence, evenly
from training.data.dataset import LabelledSentence, sentence_alone
from training.data.extraction import UNCOMPRESSED
from training.data.recognised import CODEC, is_changed, spoken_form
from training.data.texts import TextFeatureExtractor
from training.evaluate import compare, row
from training.fitting.curriculum import text_temperature, train_text
from training.fitting.loading import (
    SentenceBank,
    as_recognised,
    load_sentences,
    sentence_recogniser,
    sentences_of,
)
from training.fitting.loop import predict
from training.fitting.progress import TrainingProgress
from training.fitting.recipe import Recipe
from training.train import text_network

TEACHING = 2000  # recognised sentences that teach, where the recipe has none
JUDGED = 700  # sentences that are judged typed and recognised, evenly of all classes
SEEDS = (0, 1)  # of the trainings: two of one kind show how much is chance
FIRST = 0
TYPED, BOTH, TWICE = "typed", "typed and recognised", "typed, some twice"
Row = dict[str, Any]
_Network = tuple[str, TextNetwork, SentenceBank]  # its kind, and the sentences that it learnt from


@dataclass(frozen=True, slots=True)
class _Judged:
    """Sentences that networks are judged on; those that were spoken have the rate of wrong words."""

    protocol: str
    sentences: Sequence[LabelledSentence]
    word_error_rate: float | None = None


def word_rows(console: Console, recipe: Recipe, extractor: TextFeatureExtractor) -> list[Row]:
    """A row for each network, seed and set of sentences.

    Args:
        console: where progress is shown.
        recipe: of a text network and its sentences.
        extractor: of the texts.

    Raises:
        CannotBegin: the recipe names no sentences.
        ManifestError: the synthetic voice is not installed.
    """
    if recipe.sentences is None:
        raise CannotBegin("the recipe names no sentences; --sentences does")
    banks = {
        kind: load_sentences(recipe.sentences, replace(recipe, recognised=number), extractor)
        for kind, number in ((TYPED, 0), (BOTH, recipe.recognised or TEACHING))
    }
    judged = _sets(recipe, banks[TYPED], extractor)
    for each in judged:
        if each.word_error_rate is not None:
            console.print(f"{each.protocol}: {each.word_error_rate:.1%} of the words are wrong")
    rows = []
    for seed in SEEDS:
        seeded = replace(recipe, text_training={**recipe.text_training, "seed": seed})
        networks = _networks(console, seeded, banks, extractor)
        if seed == FIRST:
            networks.append(_taught_twice(console, seeded, banks[TYPED], extractor))
        for kind, network, bank in networks:
            temperature = text_temperature(network, bank.development)
            rows += [_row(recipe, f"{kind}, seed {seed}", network, temperature, each) for each in judged]
    return rows


def _sets(recipe: Recipe, bank: SentenceBank, extractor: TextFeatureExtractor) -> list[_Judged]:
    """All typed sentences of one class; some typed, as recognised, and of these those with clear and with bad sound."""
    assert recipe.sentences is not None
    chosen = evenly(sentences_of(recipe.sentences, "test", recipe), JUDGED)
    features = extractor.extract([each.text for each in chosen])
    sets = [
        _Judged("all of its test part, typed", [each for each in bank.test if len(each.labels) == 1]),
        _Judged("some of it, typed", [LabelledSentence(features[each.text], each.labels) for each in chosen]),
    ]
    changed = [each for each in chosen if is_changed(each.text)]
    clear = [each for each in chosen if not is_changed(each.text)]
    heard = {"": chosen, ", clear sound": clear, ", rooms, noise and lines": changed}
    for sound, some in heard.items():
        rate = _word_error_rate(recipe, some)
        sets.append(_Judged(f"some of it, recognised{sound}", as_recognised(some, recipe, extractor), rate))
    return sets


def _word_error_rate(recipe: Recipe, sentences: Sequence[Sentence]) -> float:
    """Of what was recognised, against what was said."""
    texts = sentence_recogniser(recipe).recognised([each.text for each in sentences])
    normalize = EnglishTextNormalizer()
    said = {written: normalize(spoken_form(written)) for written in texts}
    spoken = [written for written, words in said.items() if words]
    return float(jiwer.wer([said[each] for each in spoken], [normalize(texts[each]) for each in spoken]))


def _networks(
    console: Console, recipe: Recipe, banks: dict[str, SentenceBank], extractor: TextFeatureExtractor
) -> list[_Network]:
    config = recipe.network_config(extractor.context_width)
    numbers = {TYPED: 0, BOTH: recipe.recognised or TEACHING}
    return [
        (kind, text_network(console, replace(recipe, recognised=number), config, banks[kind], extractor), banks[kind])
        for kind, number in numbers.items()
    ]


def _taught_twice(console: Console, recipe: Recipe, bank: SentenceBank, extractor: TextFeatureExtractor) -> _Network:
    """Whether it is what the recogniser writes that teaches, or only more sentences of the rare classes."""
    assert recipe.sentences is not None
    chosen = evenly(sentences_of(recipe.sentences, "train", recipe), recipe.recognised or TEACHING)
    features = extractor.extract([each.text for each in chosen])
    again = [LabelledSentence(features[each.text], each.labels) for each in chosen]
    twice = replace(bank, training=[*bank.training, *again])
    config = recipe.network_config(extractor.context_width)
    with TrainingProgress(recipe.stage("text_training").epochs, console) as progress:
        network = train_text(recipe, config, twice, progress.report).network
    return TWICE, cast(TextNetwork, network), twice


def _row(recipe: Recipe, model: str, network: TextNetwork, temperature: float, judged: _Judged) -> Row:
    probabilities = predict(network, [sentence_alone(each.features) for each in judged.sentences], temperature)
    truth = np.array([each.labels[0] for each in judged.sentences])
    writers = [str(number) for number in range(len(truth))]  # not known: each sentence counts as someone else's
    setting = UNCOMPRESSED if judged.word_error_rate is None else CODEC
    compared = compare(setting, probabilities, truth, writers)
    made = row(compared, model, NAME, judged.protocol, recipe.classes, ("words", "context"))
    return made | {"word_error_rate": judged.word_error_rate, "recogniser": recipe.recogniser}
