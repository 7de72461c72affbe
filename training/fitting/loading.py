"""From a corpus and a recipe to labelled utterances and labelled sentences, which training draws from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.emotion.batch import UtteranceFeatures, voice_alone
from training.corpora.catalogue import open_corpus
from training.corpora.goemotions import Sentence, balanced, evenly, read_sentences, spoken_sentences
from training.corpora.manifest import CLASSES, NO_EMOTION, Corpus, ManifestError
from training.corpora.teacher import Teacher
from training.data.dataset import NO_CLASS, LabelledSentence, LabelledUtterance, TextSubstitution
from training.data.extraction import (
    CodecSetting,
    SpeechModels,
    extract_augmented_speech,
    extract_speech,
    with_text,
    without_words,
)
from training.data.feature_files import speech_workers
from training.data.recognised import SentenceRecogniser
from training.data.screening import screen
from training.data.texts import TextFeatureExtractor, TextFeaturePair
from training.fitting.recipe import Recipe

PARTS = ("train", "dev", "test")
RECOGNISED_DEVELOPMENT = 210  # sentences of the development part that are recognised too, where some of training are
OpenTeacher = tuple[Teacher, Corpus]  # what a recipe says of a corpus, and the corpus


@dataclass(frozen=True, slots=True)
class SentenceBank:
    """GoEmotions, as features.

    Attributes:
        training: of the training part, some as the recogniser writes them too where the recipe says so.
        development: of the development part, which ends a training, likewise.
        test: of the test part.
        pairs: for each part, for each class, sentences to pair with voices: nothing of one part is in another.
    """

    training: Sequence[LabelledSentence]
    development: Sequence[LabelledSentence]
    test: Sequence[LabelledSentence]
    pairs: dict[str, list[list[TextFeaturePair]]]


def open_teachers(recipe: Recipe, root: Path | None = None) -> list[OpenTeacher]:
    """The corpora of a recipe, without recordings that cannot be used.

    Args:
        recipe: names them.
        root: see `training.corpora.catalogue.open_corpus`; for a recipe of one corpus.

    Raises:
        ManifestError: the recipe names none, or two of one name; one cannot be read, or has no usable recording.
    """
    teachers = recipe.teachers
    if not teachers:
        raise ManifestError(f"the recipe {recipe.name} names no corpus")
    if root is not None and len(teachers) > 1:
        raise ManifestError("a root is for one corpus: in a list, name paths that are under AMSER_DATA")
    opened = [(teacher, screen(open_corpus(teacher.source, root, teacher.label))) for teacher in teachers]
    counts = Counter(corpus.name for _, corpus in opened)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ManifestError(f"corpora are told apart by their names, but two are called {', '.join(twice)}")
    return opened


def load_utterances(
    corpora: Corpus | Sequence[OpenTeacher],
    recipe: Recipe,
    extractor: TextFeatureExtractor,
    background: Path | None = None,
    settings: Sequence[str] = (),
) -> list[LabelledUtterance]:
    """The utterances of the recipe's classes, at all its codec settings and `settings`, and in its augmented copies.

    Args:
        corpora: one, or several from `open_teachers`; their utterances follow each other.
        recipe: says which views there are.
        extractor: of the texts; not used where the recipe learns from no words of the corpora.
        background: folder of recordings that copies are mixed with.
        settings: further codec settings.

    Raises:
        ManifestError: no utterance of a corpus has one of the classes.
    """
    opened = [(Teacher(corpora.name), corpora)] if isinstance(corpora, Corpus) else corpora
    labelled = _classes_labelled(opened, recipe)
    loaded: list[LabelledUtterance] = []
    has_recogniser = recipe.own_words and recipe.text != "reference"
    load_models = partial(SpeechModels.load, asr=has_recogniser, recogniser=recipe.recogniser)
    with speech_workers(load_models) as workers:
        for (_, corpus), possible in zip(opened, labelled, strict=True):
            views = _views(corpus, recipe, extractor, background, settings, workers)
            utterances = [
                LabelledUtterance(
                    label=NO_CLASS if record.emotion == NO_EMOTION else recipe.classes.index(record.emotion),
                    speaker=record.speaker,
                    fold=record.fold,
                    features={name: view[number] for name, view in views.items()},
                    dialogue=record.dialogue,
                    corpus=corpus.name,
                    possible=possible,
                )
                for number, record in enumerate(corpus.records)
                if record.emotion in (*recipe.classes, NO_EMOTION)
            ]
            if not utterances:
                raise ManifestError(f"{corpus.name} has none of {', '.join(recipe.classes)}")
            loaded += utterances
    return loaded


def _classes_labelled(opened: Sequence[OpenTeacher], recipe: Recipe) -> list[tuple[int, ...]]:
    """The numbers of the classes that each corpus labels, and of those that none does: they are never right."""
    classes = [frozenset(recipe.classes if teacher.label else corpus.classes_present) for teacher, corpus in opened]
    somewhere = frozenset[str]().union(*(corpus.classes_present for _, corpus in opened))
    return [
        tuple(number for number, name in enumerate(recipe.classes) if name in of_corpus or name not in somewhere)
        for of_corpus in classes
    ]


def _views(
    corpus: Corpus,
    recipe: Recipe,
    extractor: TextFeatureExtractor,
    background: Path | None,
    settings: Sequence[str],
    workers: Executor,
) -> dict[str, list[UtteranceFeatures]]:
    """The features of all records of a corpus, by codec setting and by the name of an augmented copy."""
    speech = {
        text: extract_speech(
            corpus,
            CodecSetting.parse(text),
            reference_text=recipe.text == "reference",
            recogniser=recipe.recogniser,
            reading=recipe.reading,
            workers=workers,
        )
        for text in dict.fromkeys((*recipe.views, *recipe.judged, *settings))
    }
    plain = [each.text for each in speech[recipe.views[0]]]
    rates = [CodecSetting.parse(text) for text in recipe.copied_at]
    for copy in range(recipe.copies):
        speech[copy_name(copy)] = extract_augmented_speech(
            corpus,
            copy,
            recipe.waveform_augmenter(background),
            rates,
            plain,
            recogniser=recipe.recogniser,
            reading=recipe.reading,
            workers=workers,
        )
    if not recipe.own_words:
        return {name: without_words(group, extractor.context_width) for name, group in speech.items()}
    texts = extractor.extract([each.text for group in speech.values() for each in group])
    languages = (None, *recipe.text_languages)
    return {
        name: [
            features if record.language in languages else voice_alone(features)
            for record, features in zip(corpus.records, with_text(group, texts), strict=True)
        ]
        for name, group in speech.items()
    }


def copy_name(copy: int) -> str:
    """The name of an augmented copy of the corpus among the views."""
    return f"copy {copy}"


def training_views(recipe: Recipe) -> tuple[str, ...]:
    """The names of everything that training draws from."""
    return (*recipe.views, *(copy_name(copy) for copy in range(recipe.copies)))


def view_shares(recipe: Recipe) -> list[float] | None:
    """How often training draws each of `training_views`; None for all alike."""
    if recipe.copy_share is None or not recipe.copies:
        return None
    plain = [(1 - recipe.copy_share) / len(recipe.views)] * len(recipe.views)
    return plain + [recipe.copy_share / recipe.copies] * recipe.copies


def load_sentences(folder: Path, recipe: Recipe, extractor: TextFeatureExtractor) -> SentenceBank:
    """The sentences of the recipe's classes from a folder with `train.tsv`, `dev.tsv`, `test.tsv` and `labels.txt`."""
    everything = {part: _read(folder, part, recipe) for part in PARTS}
    # Also those of other classes: so features that were made for seven classes serve for four.
    features = extractor.extract([sentence.text for part in PARTS for sentence in everything[part]])
    parts = {part: _of_classes(sentences, recipe) for part, sentences in everything.items()}
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
    if recipe.recognised:
        for part, most in (("train", recipe.recognised), ("dev", RECOGNISED_DEVELOPMENT)):
            # A sentence of which nothing was heard says nothing about its class
            recognised = as_recognised(evenly(parts[part], most), recipe, extractor)
            labelled[part] += [each for each in recognised if len(each.features.words)]
    return SentenceBank(labelled["train"], labelled["dev"], labelled["test"], pairs)


def sentences_of(folder: Path, part: str, recipe: Recipe) -> list[Sentence]:
    """The sentences of a part, one of `PARTS`, that a bank is made from, with the numbers of the recipe's classes."""
    return _of_classes(_read(folder, part, recipe), recipe)


def as_recognised(
    sentences: Sequence[Sentence], recipe: Recipe, extractor: TextFeatureExtractor
) -> list[LabelledSentence]:
    """The features of sentences as the recogniser writes them when they are spoken, in order.

    Raises:
        ManifestError: see `training.data.recognised`.
    """
    texts = sentence_recogniser(recipe).recognised([each.text for each in sentences])
    features = extractor.extract(list(texts.values()))
    return [LabelledSentence(features[texts[each.text]], each.labels) for each in sentences]


def sentence_recogniser(recipe: Recipe) -> SentenceRecogniser:
    """With the recogniser of the recipe, and rooms, noise and lines as in its augmented copies."""
    return SentenceRecogniser(recipe.waveform_augmenter(recipe.noise), recipe.recogniser)


def load_substitution(folder: Path | None, recipe: Recipe, extractor: TextFeatureExtractor) -> TextSubstitution:
    """The features that replace texts: of neutral sentences, none without a folder, and of an empty text."""
    neutral: list[str] = []
    if folder is not None:
        sentences = read_sentences(folder / "train.tsv")
        neutral = spoken_sentences(sentences, recipe.substitute_sentences)[CLASSES.index("neutral")]
    features = extractor.extract(["", *neutral])
    return TextSubstitution(features[""], [features[text] for text in neutral], recipe.replace_text, recipe.omit_text)


def _read(folder: Path, part: str, recipe: Recipe) -> list[Sentence]:
    sentences = read_sentences(folder / f"{part}.tsv")
    return balanced(sentences, recipe.text_most) if part == "train" else sentences


def _of_classes(sentences: Sequence[Sentence], recipe: Recipe) -> list[Sentence]:
    """Sentences all of whose classes are the recipe's, with its numbers of them."""
    numbers = {CLASSES.index(name): position for position, name in enumerate(recipe.classes)}
    return [
        Sentence(sentence.text, tuple(numbers[label] for label in sentence.labels))
        for sentence in sentences
        if all(label in numbers for label in sentence.labels)
    ]
