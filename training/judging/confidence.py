"""What confidence is worth: how accurate the surest answers are, and how often answers are sure.

Risk-coverage curves as in Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

SURE = 0.7  # a probability above which an app may act on an answer


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Error of the surest answers, for every number of them.

    Attributes:
        coverage: (n,), share of the answers that are kept: 1/n to 1.
        risk: (n,), share of wrong ones among them.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    def accuracy_at(self, coverage: float) -> float:
        """Accuracy of the surest share of the answers, rounded up to a whole answer.

        Raises:
            ValueError: the share is not above 0 and at most 1.
        """
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage {coverage}: a share above 0 and at most 1 is needed")
        return 1 - float(self.risk[math.ceil(coverage * len(self.risk)) - 1])

    @property
    def area(self) -> float:
        """Area under the risk-coverage curve (AURC): mean risk over all coverages; 0 where nothing is wrong."""
        return float(self.risk.mean())


def risk_coverage(probabilities: NDArray[np.floating], labels: ArrayLike) -> RiskCoverage:
    """The curve of answers (n, classes) against labels (n,), the surest answer first.

    Answers of equal confidence each count with the mean error of all of them: their order means nothing.

    Raises:
        ValueError: there are no answers.
    """
    if not len(probabilities):
        raise ValueError("no answers: a risk-coverage curve needs one at least")
    wrong = (probabilities.argmax(1) != np.asarray(labels)).astype(np.float64)
    _, group, sizes = np.unique(-probabilities.max(1), return_inverse=True, return_counts=True)
    mean_error = np.bincount(group, wrong) / sizes
    kept = np.arange(1, len(wrong) + 1)
    return RiskCoverage(kept / len(wrong), np.repeat(mean_error, sizes).cumsum() / kept)


def confident_share(probabilities: NDArray[np.floating], class_index_excluded: int, above: float = SURE) -> float:
    """Share of utterances whose answer is not that class and has a probability above the threshold.

    For readings, with the neutral class excluded: how often an app would show an emotion that nobody meant.
    """
    emotional = probabilities.argmax(1) != class_index_excluded
    return float((emotional & (probabilities.max(1) > above)).mean())
