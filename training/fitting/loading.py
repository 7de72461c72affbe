"""From a corpus and a recipe to labelled utterances and labelled sentences, which training draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.emotion.batch import voice_alone
from training.corpora.goemotions import Sentence, balanced, read_sentences, spoken_sentences
from training.corpora.manifest import CLASSES, Corpus, ManifestError
from training.data.dataset import LabelledSentence, LabelledUtterance, TextSubstitution
from training.data.extraction import CodecSetting, extract_augmented_speech, extract_speech, with_text
from training.data.texts import TextFeatureExtractor, TextFeaturePair
from training.fitting.recipe import Recipe

PARTS = ("train", "dev", "test")


@dataclass(frozen=True, slots=True)
class SentenceBank:
    """GoEmotions, as features.

    Attributes:
        training: of the training part.
        development: of the development part, which ends a training.
        test: of the test part.
        pairs: for each part, for each class, sentences to pair with voices: nothing of one part is in another.
    """

    training: Sequence[LabelledSentence]
    development: Sequence[LabelledSentence]
    test: Sequence[LabelledSentence]
    pairs: dict[str, list[list[TextFeaturePair]]]


def load_utterances(
    corpus: Corpus,
    recipe: Recipe,
    extractor: TextFeatureExtractor,
    background: Path | None = None,
    settings: Sequence[str] = (),
) -> list[LabelledUtterance]:
    """The utterances of the recipe's classes, at all its codec settings and `settings`, and in its augmented copies.

    Raises:
        ManifestError: no utterance has one of the classes.
    """
    speech = {
        text: extract_speech(
            corpus, CodecSetting.parse(text), reference_text=recipe.text == "reference", recogniser=recipe.recogniser
        )
        for text in dict.fromkeys((*recipe.views, *recipe.judged, *settings))
    }
    plain = [each.text for each in speech[recipe.views[0]]]
    rates = [CodecSetting.parse(text) for text in recipe.copied_at]
    for copy in range(recipe.copies):
        augmentation = recipe.waveform_augmenter(background)
        speech[copy_name(copy)] = extract_augmented_speech(
            corpus, copy, augmentation, rates, plain, recogniser=recipe.recogniser
        )
    texts = extractor.extract([each.text for group in speech.values() for each in group])
    features = {name: with_text(group, texts) for name, group in speech.items()}
    utterances = [
        LabelledUtterance(
            recipe.classes.index(record.emotion),
            record.speaker,
            record.fold,
            {
                name: group[number] if record.language in (None, *recipe.text_languages) else voice_alone(group[number])
                for name, group in features.items()
            },
            record.dialogue,
        )
        for number, record in enumerate(corpus.records)
        if record.emotion in recipe.classes
    ]
    if not utterances:
        raise ManifestError(f"{corpus.name} has none of {', '.join(recipe.classes)}")
    return utterances


def copy_name(copy: int) -> str:
    """The name of an augmented copy of the corpus among the views."""
    return f"copy {copy}"


def training_views(recipe: Recipe) -> tuple[str, ...]:
    """The names of everything that training draws from."""
    return (*recipe.views, *(copy_name(copy) for copy in range(recipe.copies)))


def load_sentences(folder: Path, recipe: Recipe, extractor: TextFeatureExtractor) -> SentenceBank:
    """The sentences of the recipe's classes from a folder with `train.tsv`, `dev.tsv`, `test.tsv` and `labels.txt`."""
    numbers = {CLASSES.index(name): position for position, name in enumerate(recipe.classes)}
    everything = {part: read_sentences(folder / f"{part}.tsv") for part in PARTS}
    everything["train"] = balanced(everything["train"], recipe.text_most)
    # Also those of other classes: so features that were made for seven classes serve for four.
    features = extractor.extract([sentence.text for part in PARTS for sentence in everything[part]])
    parts = {part: _of_classes(sentences, numbers) for part, sentences in everything.items()}
    labelled = {
        part: [LabelledSentence(features[each.text], each.labels) for each in sentences]
        for part, sentences in parts.items()
    }
    pairs = {
        part: [
            [features[text] for text in texts]
            for texts in spoken_sentences(sentences, recipe.pair_sentences)[: len(recipe.classes)]
        ]
        for part, sentences in parts.items()
    }
    return SentenceBank(labelled["train"], labelled["dev"], labelled["test"], pairs)


def load_substitution(folder: Path | None, recipe: Recipe, extractor: TextFeatureExtractor) -> TextSubstitution:
    """The features that replace texts: of neutral sentences, none without a folder, and of an empty text."""
    neutral: list[str] = []
    if folder is not None:
        sentences = read_sentences(folder / "train.tsv")
        neutral = spoken_sentences(sentences, recipe.substitute_sentences)[CLASSES.index("neutral")]
    features = extractor.extract(["", *neutral])
    return TextSubstitution(features[""], [features[text] for text in neutral], recipe.replace_text, recipe.omit_text)


def _of_classes(sentences: Sequence[Sentence], numbers: dict[int, int]) -> list[Sentence]:
    """Sentences all of whose classes are among the keys of `numbers`, with their new numbers."""
    return [
        Sentence(sentence.text, tuple(numbers[label] for label in sentence.labels))
        for sentence in sentences
        if all(label in numbers for label in sentence.labels)
    ]
