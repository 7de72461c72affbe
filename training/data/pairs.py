"""Pairs: a voice of one corpus with a sentence of another. They are synthetic; tables and model cards must say so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.emotion.batch import UtteranceFeatures, voice_alone
from training.data.dataset import NO_CLASS, NO_SPEECH, LabelledUtterance, sentence_alone, with_sentence
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


def paired_utterances(
    utterances: Sequence[LabelledUtterance], views: Sequence[str], sentences: Sequence[Sequence[TextFeaturePair]]
) -> list[LabelledUtterance]:
    """Utterances, all of which have a class, with the sentence that `paired` chooses; the same one in all `views`."""
    made = {view: paired(utterances, view, sentences).features for view in views}
    return [
        replace(each, features={view: made[view][number] for view in views}) for number, each in enumerate(utterances)
    ]


def limited_to(features: UtteranceFeatures, modalities: Collection[str]) -> UtteranceFeatures:
    """An utterance of which nothing is known but `modalities`, of `mel`, `states`, `words` and `context`."""
    return UtteranceFeatures(
        log_mel=features.log_mel if "mel" in modalities else NO_SPEECH,
        words=features.words if "words" in modalities else features.words[:0],
        context=features.context if "context" in modalities else features.context[:0],
        encoder_states=features.encoder_states if "states" in modalities else features.encoder_states[:0],
    )


def sentence_limited_to(sentence: TextFeaturePair, modalities: Collection[str]) -> TextFeaturePair:
    """Likewise a sentence."""
    return TextFeaturePair(
        words=sentence.words if "words" in modalities else sentence.words[:0],
        context=sentence.context if "context" in modalities else sentence.context[:0],
    )
