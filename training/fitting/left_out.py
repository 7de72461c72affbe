"""Leave one corpus out: a network for each corpus that did not teach it, calibrated without that corpus.

The temperature of a left-out corpus, and the confidence from which its answers may be acted upon, must not come from
it. They are fitted to the answers of the other networks, each about the corpus that it did not hear itself. Those
networks did learn from the left-out corpus, but no answer about it is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.special import softmax

from models.emotion.amser_states import TextNetwork, VoiceNetwork
from models.emotion.checkpoint_info import Evidence
from models.emotion.config import FusionConfig
from training.data.dataset import NO_CLASS, LabelledUtterance, sentence_alone
from training.data.folds import leave_one_corpus_out
from training.data.pairs import paired
from training.fitting.cross_validation import TrainedNetwork, TrainingData, cross_validate
from training.fitting.curriculum import join
from training.fitting.loading import SentenceBank
from training.fitting.loop import logits_of
from training.fitting.recipe import Recipe
from training.judging.calibration import fit_temperature, sure_threshold

SURE_ACCURACY = 0.7  # share of right answers among those that count as sure
NOTHING = ""  # the name of what the final network leaves out


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was fitted to the answers of networks about corpora that they had not heard.

    Attributes:
        temperature: what logits are divided by.
        sure_from: lowest confidence from which `SURE_ACCURACY` of the answers are right; 1 where none is.
    """

    temperature: float
    sure_from: float


@dataclass(frozen=True, slots=True)
class CorporaLeftOut:
    """The networks of the protocol.

    Attributes:
        networks: one a left-out corpus, which is its test part, in the order of the recipe; with the temperature of its
            calibration.
        calibrations: by the name of the left-out corpus.
        final: of a network that leaves nothing out.
    """

    networks: tuple[TrainedNetwork, ...]
    calibrations: Mapping[str, Calibration]
    final: Calibration


def leave_corpora_out(
    recipe: Recipe,
    config: FusionConfig,
    training_data: TrainingData,
    folder: Path,
    *,
    workers: int = 1,
    console: Console | None = None,
    log_folder: Path | None = None,
) -> CorporaLeftOut:
    """Train and calibrate; networks and calibrations in `folder` are kept. Arguments as for `cross_validate`.

    Raises:
        ValueError: the recipe has fewer than three corpora that can be left out.
    """
    splits = leave_one_corpus_out(training_data.utterances, recipe.teachers)
    trained = cross_validate(
        recipe, config, training_data, splits, folder, workers=workers, console=console, log_folder=log_folder
    )
    networks = {each.split.name: each for each in trained}
    names = list(networks)
    file = folder / "calibrations.json"
    if not file.is_file():
        _keep(file, _calibrate_all(recipe, training_data.utterances, networks, console))
    kept = {name: Calibration(**values) for name, values in json.loads(file.read_text(encoding="utf-8")).items()}
    return CorporaLeftOut(
        tuple(replace(networks[name], temperature=kept[name].temperature) for name in names),
        {name: kept[name] for name in names},
        kept[NOTHING],
    )


def _keep(file: Path, calibrations: Mapping[str, Calibration]) -> None:
    partial = file.with_suffix(".partial")
    content = {name: asdict(each) for name, each in calibrations.items()}
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)


def _calibrate_all(
    recipe: Recipe,
    utterances: Sequence[LabelledUtterance],
    networks: Mapping[str, TrainedNetwork],
    console: Console | None,
) -> dict[str, Calibration]:
    """A calibration for each left-out corpus, and one for a network that leaves nothing out."""
    answers = {
        name: answers_of(recipe, network, [utterances[index] for index in network.split.test])
        for name, network in track(
            networks.items(), "answers about left-out corpora", console=console or Console(quiet=True), transient=True
        )
    }
    return {
        left_out: calibrate([answers[name] for name in networks if name != left_out])
        for left_out in (*networks, NOTHING)
    }


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network says of a corpus that it did not hear: logits (n, classes) and labels (n,)."""

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]


def answers_of(recipe: Recipe, trained: TrainedNetwork, utterances: Sequence[LabelledUtterance]) -> Answers:
    """The answers in all views of the recipe, about utterances with a class."""
    judged = [each for each in utterances if each.label != NO_CLASS]
    features = [each.features[view] for view in recipe.views for each in judged]
    return Answers(logits_of(trained.network, features), np.array([each.label for each in judged] * len(recipe.views)))


def calibrate(answers: Sequence[Answers]) -> Calibration:
    """Fit temperature and threshold to answers about several corpora; each corpus counts alike, whatever its size."""
    weights = np.concatenate([np.full(len(each.labels), 1 / len(each.labels)) for each in answers])
    logits = np.concatenate([each.logits for each in answers])
    labels = np.concatenate([each.labels for each in answers])
    return _fit(logits, labels.tolist(), weights.tolist())


def calibrations_of(
    recipe: Recipe, training_data: TrainingData, networks: Sequence[TrainedNetwork], voice: Calibration
) -> dict[Evidence, Calibration]:
    """What the answers of the final network are calibrated by, for each evidence.

    Where a text joins the voice, the network divides both by their temperatures, and only that of their sum remains.

    Args:
        recipe: says whether a text joins.
        training_data: of all networks.
        networks: each with a corpus that it did not hear as its test part.
        voice: the calibration of a network that leaves nothing out.
    """
    if not recipe.in_stages or recipe.own_words:
        return {"voice": voice}
    assert training_data.text is not None
    assert training_data.bank is not None
    text = calibrate_text(training_data.text, training_data.bank)
    both = calibrate_pairs(recipe, networks, training_data, text.temperature)
    # Made pairs agree, which real voices and words often do not: together they are no surer than the voice alone.
    both = replace(both, sure_from=max(both.sure_from, voice.sure_from, text.sure_from))
    return {"voice": replace(voice, temperature=1.0), "text": replace(text, temperature=1.0), "voice+text": both}


def calibrate_text(text: TextNetwork, bank: SentenceBank) -> Calibration:
    """Fit temperature and threshold to what the text network answers about the development sentences of one class."""
    single = [each for each in bank.development if len(each.labels) == 1]
    logits = logits_of(text, [sentence_alone(each.features) for each in single], 128)
    return _fit(logits, [each.labels[0] for each in single])


def calibrate_pairs(
    recipe: Recipe, networks: Sequence[TrainedNetwork], training_data: TrainingData, text_temperature: float
) -> Calibration:
    """Fit temperature and threshold to voices of left-out corpora with development sentences of their class.

    Args:
        recipe: says in which view the voices are heard.
        networks: voice networks, each with a corpus that it did not hear as its test part.
        training_data: with a text network and sentences.
        text_temperature: of the text network.
    """
    text, bank = training_data.text, training_data.bank
    assert text is not None
    assert bank is not None
    logits, labels, weights = [], [], []
    for each in networks:
        network = join(cast(VoiceNetwork, each.network), text, each.temperature, text_temperature)
        judged = [training_data.utterances[index] for index in each.split.test]
        pairs = paired(judged, recipe.views[0], bank.pairs["dev"])
        logits.append(logits_of(network, pairs.features))
        labels += pairs.labels
        weights += [1 / len(pairs.labels)] * len(pairs.labels)
    return _fit(np.concatenate(logits), labels, weights)


def _fit(logits: NDArray[np.float32], labels: Sequence[int], weights: Sequence[float] | None = None) -> Calibration:
    temperature = fit_temperature(logits, labels, weights)
    probabilities = softmax(logits / temperature, axis=1)
    return Calibration(temperature, sure_threshold(probabilities, labels, SURE_ACCURACY, weights))
