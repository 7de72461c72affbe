"""How often each utterance of several corpora is drawn in an epoch, and which classes it may be taught.

Corpora differ in size and in the classes that they label. Drawing by corpus and class keeps a large corpus or a
frequent class from deciding everything, and a class that a corpus lacks is masked in the loss, not taught as absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import LabelledUtterance, shuffled_batches


@dataclass(frozen=True, slots=True)
class Draws:
    """Balanced draws of n utterances.

    Attributes:
        probabilities: float (n,), of each utterance in a draw; they sum to 1.
        possible: bool (n, classes), the classes that the corpus of each utterance labels.
    """

    probabilities: NDArray[np.float64]
    possible: NDArray[np.bool_]

    @classmethod
    def balanced(cls, utterances: Sequence[LabelledUtterance], classes: int, weights: Mapping[str, float]) -> Draws:
        """Draws in which an utterance has weight(corpus) √(size of corpus) / classes of it / utterances of its class.

        Args:
            utterances: what is drawn from, at least one.
            classes: how many the network has.
            weights: by the name of a corpus; 1 for one that is not there.
        """
        sizes = Counter(each.corpus for each in utterances)
        in_class = Counter((each.corpus, each.label) for each in utterances)
        labels_of = Counter(corpus for corpus, _ in in_class)
        shares = np.array(
            [
                weights.get(each.corpus, 1.0)
                * sqrt(sizes[each.corpus])
                / labels_of[each.corpus]
                / in_class[each.corpus, each.label]
                for each in utterances
            ]
        )
        return cls(shares / shares.sum(), possible_classes(utterances, classes))

    def batches(
        self, lengths: Sequence[int], size: int, steps: int, random: np.random.Generator
    ) -> Iterator[NDArray[np.int64]]:
        """Batches of indices into the utterances, drawn with replacement, alike in length.

        Args:
            lengths: (n,), of each utterance.
            size: utterances in a batch.
            steps: number of batches.
            random: where the draws come from.
        """
        drawn = random.choice(len(self.probabilities), size * steps, p=self.probabilities)
        for positions in shuffled_batches(np.asarray(lengths)[drawn].tolist(), size, random):
            yield drawn[positions]


def possible_classes(utterances: Sequence[LabelledUtterance], classes: int) -> NDArray[np.bool_]:
    """Bool (n, classes): the classes that each utterance's corpus labels; all where it does not say."""
    possible = np.ones((len(utterances), classes), bool)
    for row, each in zip(possible, utterances, strict=True):
        if each.possible:
            row[:] = False
            row[list(each.possible)] = True
    return possible
