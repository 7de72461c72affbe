"""Labelled features as training sees them: a random codec rate, a random text, an augmented Mel, batches by length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.augmentation import MelAugmentation
from fusion.batch import FRAMES_PER_SECOND, MAXIMUM_SECONDS, UtteranceFeatures

BATCHES_SORTED_TOGETHER = 6  # utterances of so many batches are sorted by length: little padding, still random


@dataclass(frozen=True, slots=True)
class LabelledUtterance:
    """One utterance of a corpus with its features at each codec setting.

    Attributes:
        label: number of its class.
        speaker: who speaks.
        fold: group of speakers; None where the corpus has no folds.
        features: by codec setting, `none` among them.
    """

    label: int
    speaker: str
    fold: int | None
    features: Mapping[str, UtteranceFeatures]


@dataclass(frozen=True, slots=True)
class TextFeaturePair:
    """The features of one sentence: words (n, 300) and context (m, width), as in `UtteranceFeatures`."""

    words: NDArray[np.floating]
    context: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class TextSubstitution:
    """Takes a corpus's own text away at random.

    A corpus of a few fixed sentences would teach the network that any other text is noise it has never seen. Sentences
    labelled neutral, from another corpus, and silence make it ignore what says nothing.

    Attributes:
        no_text: what the text stages make of an empty text, so that training sees it as it is served.
        sentences: what to put in place of the text.
        replace: probability of another sentence.
        omit: probability of no text at all.
    """

    no_text: TextFeaturePair
    sentences: Sequence[TextFeaturePair] = ()
    replace: float = 0.5
    omit: float = 0.05

    def __call__(self, utterance: UtteranceFeatures, random: np.random.Generator) -> UtteranceFeatures:
        """The utterance with its own text, another, or none."""
        draw = random.random()
        words, context = utterance.words, utterance.context
        if draw < self.omit:
            words, context = self.no_text.words, self.no_text.context
        elif draw < self.omit + self.replace and self.sentences:
            sentence = self.sentences[int(random.integers(len(self.sentences)))]
            words, context = sentence.words, sentence.context
        return UtteranceFeatures(utterance.log_mel, words, context, utterance.encoder_states)


@dataclass(frozen=True, slots=True)
class TrainingSampler:
    """Draws what the network sees of an utterance in one epoch.

    Attributes:
        codecs: settings to choose from, one an utterance and epoch.
        augment: changes to the Mel; None for none.
        substitute: changes to the text; None for none.
    """

    codecs: Sequence[str]
    augment: MelAugmentation | None
    substitute: TextSubstitution | None

    def draw(self, utterance: LabelledUtterance, random: np.random.Generator) -> UtteranceFeatures:
        """One view of the utterance."""
        features = utterance.features[self.codecs[int(random.integers(len(self.codecs)))]]
        if self.substitute is not None:
            features = self.substitute(features, random)
        if self.augment is None:
            return features
        mel = self.augment(features.log_mel, random)[:, : int(MAXIMUM_SECONDS * FRAMES_PER_SECOND)]
        return UtteranceFeatures(mel, features.words, features.context, features.encoder_states)


def shuffled_batches(frames: Sequence[int], size: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches of indices, random in order, alike in length.

    Args:
        frames: length of each utterance.
        size: utterances in a batch; a remainder of one joins the batch before it, because BatchNorm and contrastive
            losses need company.
        random: where the order comes from.
    """
    order = random.permutation(len(frames))
    lengths = np.asarray(frames)
    batches: list[NDArray[np.int64]] = []
    for begin in range(0, len(order), size * BATCHES_SORTED_TOGETHER):
        chunk = order[begin : begin + size * BATCHES_SORTED_TOGETHER]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches.extend(chunk[start : start + size] for start in range(0, len(chunk), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    for position in random.permutation(len(batches)):
        yield batches[int(position)]
