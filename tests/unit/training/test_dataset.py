"""What training draws: utterances, sentences and pairs, as often as the recipe says, with the label that they have."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from synthetic_corpus import CONTEXT_WIDTH, features, sentence, separable

from models.emotion.batch import voice_alone
from training.data.augmentation import MelAugmentation, StateAugmentation
from training.data.dataset import (
    NO_CLASS,
    LabelledSentence,
    LabelledUtterance,
    SentenceSampler,
    SentencesOfClass,
    SpokenSampler,
    TextSubstitution,
    sentence_alone,
    shuffled_batches,
)
from training.data.pairs import paired

ANGRY, NEUTRAL, SAD = range(3)
DRAWS = 8000
SENTENCES = [[sentence(10 * label + number, words=number + 1) for number in range(3)] for label in range(3)]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def utterance(label: int, views: int = 1) -> LabelledUtterance:
    """Its own words are ones; a view is a constant log-Mel of its number."""
    by_view = {str(view): features(np.full((80, 60), view, np.float32)) for view in range(views)}
    return LabelledUtterance(label, "speaker", 1, by_view)


def test_texts_are_replaced_and_omitted_as_often_as_asked(random: np.random.Generator) -> None:
    substitute = TextSubstitution(sentence(0, words=0), [sentence(0, words=9)], replace=0.5, omit=0.1)
    own = features(np.zeros((80, 60), np.float32))
    drawn = Counter(len(substitute(own, SAD, random).words) for _ in range(DRAWS))
    assert drawn[9] / DRAWS == pytest.approx(0.5, abs=0.03)
    assert drawn[0] / DRAWS == pytest.approx(0.1, abs=0.03)
    assert drawn[4] / DRAWS == pytest.approx(0.4, abs=0.03)


def test_without_other_sentences_a_text_stays_or_is_omitted(random: np.random.Generator) -> None:
    substitute = TextSubstitution(sentence(0, words=0), [], replace=0.5, omit=0.1)
    own = features(np.zeros((80, 60), np.float32))
    assert {len(substitute(own, SAD, random).words) for _ in range(500)} == {0, 4}


def test_an_utterance_is_drawn_with_another_sentence_of_its_class_each_time(random: np.random.Generator) -> None:
    sampler = SpokenSampler([utterance(SAD)], ("0",), substitute=SentencesOfClass(SENTENCES))
    drawn = [sampler.draw(0, random).features for _ in range(DRAWS)]
    counts = Counter(float(each.words[0, 0]) for each in drawn)
    assert counts.keys() == {10.0 * SAD, 10.0 * SAD + 1, 10.0 * SAD + 2}
    assert all(count / DRAWS == pytest.approx(1 / 3, abs=0.03) for count in counts.values())
    assert all((each.log_mel == 0).all() for each in drawn)


def test_every_view_of_an_utterance_is_drawn_as_often(random: np.random.Generator) -> None:
    sampler = SpokenSampler([utterance(SAD, views=4)], ("0", "1", "3"))
    drawn = [sampler.draw(0, random) for _ in range(DRAWS)]
    assert {example.label for example in drawn} == {SAD}
    counts = Counter(int(example.features.log_mel[0, 0]) for example in drawn)
    assert counts.keys() == {0, 1, 3}
    assert all(count / DRAWS == pytest.approx(1 / 3, abs=0.03) for count in counts.values())


def test_a_drawn_mel_and_its_states_are_changed_and_the_utterance_is_not(random: np.random.Generator) -> None:
    (one,) = separable(1, "a", random)
    before = one.features["none"].log_mel.copy(), one.features["none"].encoder_states.copy()
    sampler = SpokenSampler([one], ("none",), MelAugmentation(), augment_states=StateAugmentation())
    drawn = sampler.draw(0, random).features
    assert not np.array_equal(drawn.log_mel, before[0])
    assert not np.array_equal(drawn.encoder_states, before[1])
    np.testing.assert_array_equal(one.features["none"].log_mel, before[0])
    np.testing.assert_array_equal(one.features["none"].encoder_states, before[1])


def test_a_sentence_of_several_classes_is_drawn_as_each_of_them(random: np.random.Generator) -> None:
    sampler = SentenceSampler(
        [LabelledSentence(sentence(1, words=2), (SAD,)), LabelledSentence(sentence(2, words=5), (ANGRY, NEUTRAL))]
    )
    assert sampler.labels.tolist() == [SAD, ANGRY]
    assert sampler.lengths == [4, 7]
    assert {sampler.draw(0, random).label for _ in range(50)} == {SAD}
    counts = Counter(sampler.draw(1, random).label for _ in range(DRAWS))
    assert counts.keys() == {ANGRY, NEUTRAL}
    assert counts[ANGRY] / DRAWS == pytest.approx(0.5, abs=0.03)
    drawn = sampler.draw(1, random).features
    assert drawn.words.shape == (5, 300)
    assert drawn.encoder_states.shape[0] == 0


def test_a_voice_alone_has_no_words_and_a_sentence_alone_no_voice() -> None:
    own = features(np.zeros((80, 60), np.float32))
    voice = voice_alone(own)
    assert (voice.words.shape, voice.context.shape) == ((0, 300), (0, CONTEXT_WIDTH))
    assert voice.log_mel is own.log_mel
    assert voice.encoder_states is own.encoder_states
    text = sentence_alone(sentence(3), 40)
    assert text.encoder_states.shape == (0, 40)
    assert (text.words.shape, text.context.shape) == ((4, 300), (6, CONTEXT_WIDTH))
    assert text.log_mel.shape == (80, 1)


def test_a_sound_without_an_emotion_is_paired_with_no_sentence() -> None:
    silent = utterance(NO_CLASS)
    assert paired([utterance(0), silent, utterance(1)], "0", SENTENCES).labels == [0, 1]


def test_pairs_have_sentences_of_the_voices_class_in_the_same_order() -> None:
    utterances = [utterance(label, views=2) for label in (SAD, ANGRY, NEUTRAL, ANGRY, SAD)]
    pairs = paired(utterances, "1", SENTENCES)
    assert pairs.labels == [SAD, ANGRY, NEUTRAL, ANGRY, SAD]
    for number, label in enumerate(pairs.labels):
        pair, voice, text = pairs.features[number], pairs.voices[number], pairs.sentences[number]
        assert pair.words[0, 0] // 10 == label
        assert (pair.log_mel == 1).all()
        assert voice.log_mel is pair.log_mel
        assert (len(voice.words), len(voice.context)) == (0, 0)
        assert text.words is pair.words
        assert text.context is pair.context
        assert len(text.encoder_states) == 0


def test_a_seed_pairs_the_same_and_another_one_otherwise() -> None:
    utterances = [utterance(label) for label in (SAD, ANGRY, NEUTRAL) * 8]
    first, again, other = (
        [pair.words[0, 0] for pair in paired(utterances, "0", SENTENCES, seed).features] for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_batches_hold_every_utterance_once_and_are_alike_in_length(random: np.random.Generator) -> None:
    frames = random.integers(100, 3000, 321)
    batches = list(shuffled_batches(frames, 16, random))
    assert sorted(np.concatenate(batches)) == list(range(321))
    assert min(map(len, batches)) > 1
    padded = sum(len(batch) * frames[batch].max() for batch in batches)
    assert padded < 1.25 * frames.sum()
