"""Voice and text together, for corpora that the voice did not hear: does anything learnt beat the sum of both?

The voice of a left-out corpus is paired with GoEmotions sentences that no training has seen: of its class, neutral
ones, and of another class. A gated sum, whose weights depend on how sure each modality is, is fitted on pairs of the
other left-out corpora, each by the network that had not heard it (cross-fitted), so it cannot learn to trust a voice
that knows its utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from models.emotion.amser_states import TextNetwork
from training.data.dataset import NO_CLASS, LabelledUtterance, sentence_alone
from training.data.extraction import UNCOMPRESSED
from training.data.texts import TextFeaturePair
from training.evaluate import compare, row
from training.fitting.cross_validation import TrainedNetwork
from training.fitting.curriculum import text_temperature
from training.fitting.loading import SentenceBank
from training.fitting.loop import logits_of
from training.fitting.recipe import Recipe

AGREE, NEUTRAL_WORDS, CONFLICT = "pairs that agree", "neutral words", "pairs that conflict"
KINDS: Final = (AGREE, NEUTRAL_WORDS, CONFLICT)
SENTENCES_FOR_GATE, SENTENCES_TO_JUDGE = "dev", "test"
Logs = NDArray[np.float64]  # log-probabilities (n, classes)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Paired:
    """What voice and text say of n pairs: calibrated log-probabilities (n, classes); the class (n,) is the voice's."""

    voice: Logs
    text: Logs
    truth: NDArray[np.int64]
    speakers: list[str]


@dataclass(frozen=True, slots=True)
class Gate:
    """A sum of log-probabilities with weights exp(a + b H_voice + c H_text) for each modality, H their entropies.

    Attributes:
        weights: (2, 3), a, b and c of voice and of text; zeros are the plain sum.
    """

    weights: NDArray[np.float64]

    @classmethod
    def fit(cls, pairs: Sequence[Paired]) -> Gate:
        """The weights that make the truth most likely, each group of pairs counting alike."""

        def loss(flat: NDArray[np.float64]) -> float:
            gate = cls(flat.reshape(2, 3))
            return float(np.mean([_likelihood_loss(gate(each.voice, each.text), each.truth) for each in pairs]))

        return cls(minimize(loss, np.zeros(6), method="L-BFGS-B", bounds=[(-3, 3)] * 6).x.reshape(2, 3))

    def __call__(self, voice: Logs, text: Logs) -> Logs:
        """Log-probabilities of both together."""
        entropies = np.stack([-(np.exp(each) * each).sum(1) for each in (voice, text)])
        weights = np.exp(self.weights @ np.vstack((np.ones(len(voice)), entropies)))  # (2, n)
        return np.asarray(log_softmax(weights[0][:, None] * voice + weights[1][:, None] * text, axis=1))


def pair_rows(
    recipe: Recipe,
    utterances: Sequence[LabelledUtterance],
    networks: Sequence[TrainedNetwork],
    bank: SentenceBank,
    text: TextNetwork,
) -> list[Row]:
    """Rows of voice, text, their plain sum and the gated sum, for each left-out corpus and kind of pair.

    Of pairs that conflict the truth is the class of the voice, so that words alone are never right.

    Args:
        recipe: has the classes.
        utterances: of all corpora.
        networks: voices with their temperature, each with the corpus that it did not hear as its test part.
        bank: sentences that the text did not learn from.
        text: the text network.
    """
    temperature = text_temperature(text, bank.development)
    sentences = {
        part: [_text_logs(text, group, temperature) for group in bank.pairs[part]]
        for part in (SENTENCES_FOR_GATE, SENTENCES_TO_JUDGE)
    }
    neutral = recipe.classes.index("neutral")
    voices = {each.split.name: _voice(each, utterances, recipe.views[0]) for each in networks}
    made = {
        (name, part, kind): _paired(*voice, sentences[part], kind, neutral)
        for name, voice in voices.items()
        for part in sentences
        for kind in KINDS
    }
    rows = []
    for name in voices:
        others = [other for other in voices if other != name]
        gate = Gate.fit([made[other, SENTENCES_FOR_GATE, kind] for other in others for kind in (AGREE, NEUTRAL_WORDS)])
        for kind in KINDS:
            pairs = made[name, SENTENCES_TO_JUDGE, kind]
            systems = {
                "voice": pairs.voice,
                "text": pairs.text,
                "log-sum": np.asarray(log_softmax(pairs.voice + pairs.text, axis=1)),
                "gated sum": gate(pairs.voice, pairs.text),
            }
            for system, logs in systems.items():
                probabilities = np.exp(logs).astype(np.float32)
                judged = compare(UNCOMPRESSED, probabilities, pairs.truth, pairs.speakers)
                rows.append(
                    row(judged, system, name, f"left out, {kind}", recipe.classes, ("states", "words", "context"))
                )
    return rows


def _voice(
    network: TrainedNetwork, utterances: Sequence[LabelledUtterance], view: str
) -> tuple[Logs, NDArray[np.int64], list[str]]:
    known = [utterances[index] for index in network.split.test if utterances[index].label != NO_CLASS]
    probabilities = network.probabilities([each.features[view] for each in known]).astype(np.float64)
    logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return logs, np.array([each.label for each in known]), [each.speaker for each in known]


def _text_logs(text: TextNetwork, sentences: Sequence[TextFeaturePair], temperature: float) -> Logs:
    logits = logits_of(text, [sentence_alone(each) for each in sentences], 128)
    return np.asarray(log_softmax(logits.astype(np.float64) / temperature, axis=1))


def _paired(
    voice: Logs, truth: NDArray[np.int64], speakers: list[str], sentences: Sequence[Logs], kind: str, neutral: int
) -> Paired:
    random = np.random.default_rng(KINDS.index(kind))
    text = np.empty_like(voice)
    for position, label in enumerate(truth):
        group = {AGREE: int(label), NEUTRAL_WORDS: neutral}.get(kind)
        if group is None:
            group = int(random.choice([other for other in range(len(sentences)) if other not in (label, neutral)]))
        text[position] = sentences[group][int(random.integers(len(sentences[group])))]
    return Paired(voice, text, truth, speakers)


def _likelihood_loss(logs: Logs, truth: NDArray[np.int64]) -> float:
    return -float(logs[np.arange(len(truth)), truth].mean())
