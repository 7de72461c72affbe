"""A baseline: logistic regression on the recogniser's encoder states, averaged over time.

It trains in seconds and uses neither order nor words; a larger network has to be better than it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.emotion.batch import UtteranceFeatures

INVERSE_REGULARIZATION = 0.003  # strong, for there are more values than utterances
MAXIMUM_ITERATIONS = 300


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A fitted probe.

    Attributes:
        model: standardisation and regression, of scikit-learn.
        classes: how many columns its answers have.
    """

    model: Any
    classes: int

    @classmethod
    def fit(
        cls,
        utterances: Sequence[UtteranceFeatures],
        labels: Sequence[int] | NDArray[np.integer],
        classes: int | None = None,
        weights: NDArray[np.floating] | None = None,
    ) -> LinearProbe:
        """Fit to the encoder states of utterances.

        Args:
            utterances: at least one of each of two classes.
            labels: one integer from 0 an utterance.
            classes: how many classes there are; None counts up to the highest label.
            weights: (n,), how much each utterance counts, 1 on the average; None balances the classes.
        """
        balance = "balanced" if weights is None else None
        regression = LogisticRegression(C=INVERSE_REGULARIZATION, class_weight=balance, max_iter=MAXIMUM_ITERATIONS)
        model = make_pipeline(StandardScaler(), regression)
        counted = {} if weights is None else {"logisticregression__sample_weight": weights}
        model.fit(statistics_over_time(utterances), np.asarray(labels), **counted)
        return cls(model, int(np.max(labels)) + 1 if classes is None else classes)

    def predict(self, utterances: Sequence[UtteranceFeatures]) -> NDArray[np.float32]:
        """Probabilities (n, classes); a class that the training did not hold gets zero."""
        probabilities = np.zeros((len(utterances), self.classes), np.float32)
        probabilities[:, self.model.classes_] = self.model.predict_proba(statistics_over_time(utterances))
        return probabilities


def statistics_over_time(utterances: Sequence[UtteranceFeatures]) -> NDArray[np.float32]:
    """Mean and deviation of each utterance's encoder states: (n, 2 width), zeros for one without states."""
    statistics = []
    for utterance in utterances:
        states = utterance.encoder_states.astype(np.float32)  # float16 would lose the sums
        if not len(states):
            states = np.zeros((1, states.shape[1]), np.float32)
        statistics.append(np.concatenate((states.mean(0), states.std(0))))
    return np.stack(statistics)
