"""What training sees: an utterance at a random codec rate, a sentence, or a voice and a sentence made into a pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from models.emotion.batch import (
    FRAMES_PER_SECOND,
    MAXIMUM_SECONDS,
    UtteranceFeatures,
)
from training.data.augmentation import MelAugmentation, StateAugmentation
from training.data.texts import TextFeaturePair

BATCHES_SORTED_TOGETHER = 6  # utterances of so many batches are sorted by length: little padding, still random
NO_CLASS = -1  # the label of a sound without an emotion, which is taught equal probabilities
NO_SPEECH = np.zeros((80, 1), np.float16)  # the log-Mel of a sentence without a voice; no network reads it


class Example(NamedTuple):
    """One view of an utterance or sentence, and the number of its class."""

    features: UtteranceFeatures
    label: int


class Sampler(Protocol):
    """Draws examples; `labels` and `lengths` are those that an index usually has."""

    @property
    def labels(self) -> NDArray[np.int64]: ...

    @property
    def lengths(self) -> Sequence[int]: ...

    def draw(self, index: int, random: np.random.Generator) -> Example:
        """One view of what stands at the index."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledUtterance:
    """One utterance of a corpus with its features, at several codec settings and in augmented copies.

    Attributes:
        label: number of its class; `NO_CLASS` for a sound without an emotion.
        speaker: name of the speaker.
        fold: number of its fold; None where the corpus has no folds.
        features: by codec setting, and by the name of an augmented copy.
        dialogue: see `Record.dialogue`.
        corpus: name of its corpus.
        possible: numbers of the classes that its corpus labels, in their order; () for all. An utterance says nothing
            about a class that its corpus lacks.
    """

    label: int
    speaker: str
    fold: int | None
    features: Mapping[str, UtteranceFeatures]
    dialogue: str | None = None
    corpus: str = ""
    possible: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledSentence:
    """The features of a sentence and the numbers of its classes, most often one."""

    features: TextFeaturePair
    labels: tuple[int, ...]


class Substitution(Protocol):
    """Gives an utterance another text."""

    def __call__(self, utterance: UtteranceFeatures, label: int, random: np.random.Generator, /) -> UtteranceFeatures:
        """An utterance of the class with that number, with the text that it is to be drawn with."""
        ...


@dataclass(frozen=True, slots=True)
class SentencesOfClass:
    """Gives every utterance a random sentence of its class, another each time: the training side of pairs.

    Attributes:
        sentences: for each class.
    """

    sentences: Sequence[Sequence[TextFeaturePair]]

    def __call__(self, utterance: UtteranceFeatures, label: int, random: np.random.Generator) -> UtteranceFeatures:
        """The utterance with a sentence of the class `label`."""
        group = self.sentences[label]
        return with_sentence(utterance, group[int(random.integers(len(group)))])


@dataclass(frozen=True, slots=True)
class TextSubstitution:
    """Takes a corpus's own text away at random.

    After a corpus of a few fixed sentences, any other text is noise that the network has never seen. Sentences labelled
    neutral, from another corpus, and empty texts train it to ignore a text that carries no emotion.

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

    def __call__(self, utterance: UtteranceFeatures, _: int, random: np.random.Generator) -> UtteranceFeatures:
        """The utterance with its own text, another, or none, whatever its class."""
        draw = random.random()
        if draw < self.omit:
            return with_sentence(utterance, self.no_text)
        if draw < self.omit + self.replace and self.sentences:
            return with_sentence(utterance, self.sentences[int(random.integers(len(self.sentences)))])
        return utterance


@dataclass(frozen=True, slots=True)
class SpokenSampler:
    """Utterances of a corpus.

    Attributes:
        utterances: what to draw from.
        views: features to choose from, one an utterance and epoch.
        augment: changes to the Mel; None for none, and for networks that read Mel and encoder states side by side.
        substitute: changes to the text; None for none.
        augment_states: changes to the encoder states; None as for the Mel.
        shares: how often each of `views` is chosen; None for all alike.
    """

    utterances: Sequence[LabelledUtterance]
    views: Sequence[str]
    augment: MelAugmentation | None = None
    substitute: Substitution | None = None
    augment_states: StateAugmentation | None = None
    shares: Sequence[float] | None = None

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([utterance.label for utterance in self.utterances])

    @property
    def lengths(self) -> Sequence[int]:
        features = [utterance.features[self.views[0]] for utterance in self.utterances]
        return [max(each.log_mel.shape[1], len(each.encoder_states)) for each in features]  # either may be missing

    def draw(self, index: int, random: np.random.Generator) -> Example:
        """See `Sampler.draw`."""
        utterance = self.utterances[index]
        features = utterance.features[self.views[int(random.choice(len(self.views), p=self.shares))]]
        if self.substitute is not None:
            features = self.substitute(features, utterance.label, random)
        if self.augment is not None:
            mel = self.augment(features.log_mel, random)[:, : int(MAXIMUM_SECONDS * FRAMES_PER_SECOND)]
            features = replace(features, log_mel=mel)
        if self.augment_states is not None:
            features = replace(features, encoder_states=self.augment_states(features.encoder_states, random))
        return Example(features, utterance.label)


@dataclass(frozen=True, slots=True)
class SentenceSampler:
    """Sentences without a voice; one that has several classes is drawn as one of them."""

    sentences: Sequence[LabelledSentence]

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([sentence.labels[0] for sentence in self.sentences])

    @property
    def lengths(self) -> Sequence[int]:
        return [len(sentence.features.context) for sentence in self.sentences]

    def draw(self, index: int, random: np.random.Generator) -> Example:
        """See `Sampler.draw`."""
        sentence = self.sentences[index]
        label = sentence.labels[int(random.integers(len(sentence.labels)))]
        return Example(sentence_alone(sentence.features), label)


def with_sentence(features: UtteranceFeatures, sentence: TextFeaturePair) -> UtteranceFeatures:
    """The same voice with other words."""
    return replace(features, words=sentence.words, context=sentence.context)


def sentence_alone(sentence: TextFeaturePair, state_width: int = 1536) -> UtteranceFeatures:
    """Words without a voice."""
    return UtteranceFeatures(NO_SPEECH, sentence.words, sentence.context, np.zeros((0, state_width), np.float16))


def shuffled_batches(lengths: Sequence[int], size: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Batches of indices, random in order, alike in length.

    Args:
        lengths: of each utterance.
        size: utterances in a batch; a remainder of one joins the batch before it, because BatchNorm and contrastive
            losses need more than one.
        random: where the order comes from.
    """
    order = random.permutation(len(lengths))
    sizes = np.asarray(lengths)
    batches: list[NDArray[np.int64]] = []
    for begin in range(0, len(order), size * BATCHES_SORTED_TOGETHER):
        chunk = order[begin : begin + size * BATCHES_SORTED_TOGETHER]
        chunk = chunk[np.argsort(sizes[chunk], kind="stable")]
        batches.extend(chunk[start : start + size] for start in range(0, len(chunk), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    for position in random.permutation(len(batches)):
        yield batches[int(position)]
