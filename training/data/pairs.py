"""Test sets of pairs: a voice of one corpus with a sentence of another. They are synthetic; model cards must say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.emotion.batch import UtteranceFeatures, voice_alone
from training.data.dataset import NO_CLASS, LabelledUtterance, sentence_alone, with_sentence
from training.data.texts import TextFeaturePair


@dataclass(frozen=True, slots=True)
class Pairs:
    """Voices with sentences of their class, and each of the two alone: the same utterances in the same order.

    Attributes:
        labels: numbers of the classes.
        features: voice and sentence.
        voices: the voice without words.
        sentences: the sentence without a voice.
    """

    labels: list[int]
    features: list[UtteranceFeatures]
    voices: list[UtteranceFeatures]
    sentences: list[UtteranceFeatures]


def paired(
    utterances: Sequence[LabelledUtterance], view: str, sentences: Sequence[Sequence[TextFeaturePair]], seed: int = 0
) -> Pairs:
    """One pair for each utterance that has a class: the features of `view`, and a sentence of that class at random."""
    utterances = [each for each in utterances if each.label != NO_CLASS]
    random = np.random.default_rng(seed)
    chosen = [sentences[each.label][int(random.integers(len(sentences[each.label])))] for each in utterances]
    voices = [each.features[view] for each in utterances]
    return Pairs(
        labels=[each.label for each in utterances],
        features=[with_sentence(voice, sentence) for voice, sentence in zip(voices, chosen, strict=True)],
        voices=[voice_alone(voice) for voice in voices],
        sentences=[
            sentence_alone(sentence, voice.encoder_states.shape[1])
            for voice, sentence in zip(voices, chosen, strict=True)
        ],
    )
