"""The gated sum of voice and text: it learns whom to trust, and is the plain sum where there is nothing to learn."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax

from benchmarks.measuring.emotion.pairs import AGREE, CONFLICT, NEUTRAL_WORDS, Gate, Paired, _paired

CLASSES, NEUTRAL = 4, 2


def logs(truth: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    scores = random.standard_normal((len(truth), CLASSES))
    scores[np.arange(len(truth)), truth] += strength
    return np.asarray(log_softmax(scores, axis=1))


def test_a_gate_of_zeros_is_the_plain_sum() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(CLASSES, size=50)
    voice, text = logs(truth, 1, random), logs(truth, 1, random)
    np.testing.assert_allclose(Gate(np.zeros((2, 3)))(voice, text), log_softmax(voice + text, axis=1))


def test_a_gate_learns_to_trust_what_is_right() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(CLASSES, size=2000)
    voice, text = logs(truth, 3, random), logs(truth, 0, random)
    gate = Gate.fit([Paired(voice, text, truth, [])])
    hits = (gate(voice, text).argmax(1) == truth).mean()
    assert hits > ((voice + text).argmax(1) == truth).mean() + 0.05
    assert abs(hits - (voice.argmax(1) == truth).mean()) < 0.01


def test_pairs_take_sentences_of_the_kind_that_they_are_of() -> None:
    truth = np.array([0, 1, 2, 3] * 25)
    sentences = [np.full((3, CLASSES), float(label)) for label in range(CLASSES)]  # a text that names its class
    voice = np.zeros((len(truth), CLASSES))
    made = {
        kind: _paired(voice, truth, ["a"] * len(truth), sentences, kind, NEUTRAL).text[:, 0].astype(int)
        for kind in (AGREE, NEUTRAL_WORDS, CONFLICT)
    }
    assert made[AGREE].tolist() == truth.tolist()
    assert set(made[NEUTRAL_WORDS]) == {NEUTRAL}
    assert not (made[CONFLICT] == truth).any()
    assert set(made[CONFLICT]) == {0, 1, 3}
