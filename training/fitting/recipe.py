"""A training configuration: one YAML file says which network, on which views of a corpus, for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from amser.features import MINIMUM_SECONDS
from models.emotion.config import FusionConfig
from training.corpora.catalogue import source_in_data_folder
from training.corpora.manifest import CLASSES
from training.corpora.teacher import Teacher
from training.data.augmentation import MelAugmentation, StateAugmentation
from training.data.extraction import RECOGNISER, Reading
from training.data.waveform_augmentation import WaveformAugmentation
from training.data_folder import in_data_folder
from training.fitting.loop import TrainingConfig
from training.fitting.objective import ObjectiveConfig

ABOUT_DATA = ("corpus", "corpora", "sentences", "noise", "licences")
TEXT_MODELS = ("word_vectors", "text_encoder")  # known by their fingerprints, wherever they are
ENGLISH = "en"  # of the text models that are taken where a recipe names none


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a YAML file says.

    Attributes:
        name: of the checkpoint.
        network: as in `FusionConfig` without its classes; `model` among it.
        recogniser: a Whisper of the weight catalogue; `network` gives its state_width and state_heads.
        classes: names of the emotions; utterances of others are left out.
        views: codec settings that training draws from, and that validation averages over.
        judged: settings that the test folds are judged at.
        copies: how many augmented copies of the corpus (R20, changes of the waveform) are added to the views.
        copy_share: share of the draws that are augmented copies; None draws copies and `views` alike.
        copied_at: codec settings that the copies' utterances draw from, so that one checkpoint serves all rates.
        waveform: how the copies are augmented, as in `WaveformAugmentation`; empty for its defaults.
        mel_augmentation: changes to each drawn Mel, as in `MelAugmentation`; None for none.
        state_augmentation: changes to the encoder states, as in `StateAugmentation`; None for none.
        text: `asr` reads the recogniser's text of each compressed Mel; `reference` the corpus's own transcript.
        own_words: whether an utterance's own words are learnt from; without them no recogniser runs, and every
            utterance is a voice alone.
        longest_seconds: what is longer is cropped: in the middle, and in augmented copies at a random place; None for
            no limit. Emotional utterances are short, readings are not.
        text_languages: ISO 639-1 codes; of utterances in other languages the voice alone is learnt from.
        word_vectors: of these languages: a name of the weight catalogue or a folder that spaCy loads; None for the
            English ones that are served.
        text_encoder: likewise, a name, a folder or the id of a Hugging Face model on this machine.
        substitute_sentences: how many neutral sentences stand ready to replace a text, for networks in one stage.
        replace_text: probability that one does.
        omit_text: probability that there is no text at all.
        objective: as in `ObjectiveConfig`.
        training: as in `TrainingConfig`; of the voice, where voice and text are trained apart.
        text_training: the same for the text.
        text_most: sentences of one class, at most, that the text learns from.
        recognised: how many of them, evenly of all classes, also teach as the recogniser writes them when they are
            spoken (`training.data.recognised`); 0 for none.
        pair_sentences: sentences for each class, at most, that voices are paired with to judge both.
        corpus: what to train on where the command line names nothing else: a manifest, or NAME=FOLDER.
        corpora: several to train on together, in place of `corpus`; `teachers` gives either.
        sentences: folder of GoEmotions' tables, likewise.
        noise: folder of recordings that copies are mixed with, likewise.
        licences: terms of the data by the name of a corpus or noise folder, where they do not come with it.
    """

    name: str
    network: Mapping[str, Any]
    recogniser: str = RECOGNISER
    classes: tuple[str, ...] = CLASSES
    views: tuple[str, ...] = ("none", "svd-f16:0.125")
    judged: tuple[str, ...] = ("none", "svd-f16:0.125")
    copies: int = 0
    copy_share: float | None = None
    copied_at: tuple[str, ...] = ("none", "svd-f16:0.125", "svd-f16:0.1875", "svd-f16:0.25", "svd-f16:0.5")
    waveform: Mapping[str, Any] = field(default_factory=dict)
    mel_augmentation: Mapping[str, Any] | None = None
    state_augmentation: Mapping[str, Any] | None = None
    text: str = "asr"
    own_words: bool = True
    longest_seconds: float | None = None
    text_languages: tuple[str, ...] = (ENGLISH,)
    word_vectors: str | None = None
    text_encoder: str | None = None
    substitute_sentences: int = 300
    replace_text: float = 0.5
    omit_text: float = 0.05
    objective: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    text_training: Mapping[str, Any] = field(default_factory=dict)
    text_most: int = 7000
    recognised: int = 0
    pair_sentences: int = 1200
    corpus: str | None = None
    corpora: tuple[Teacher, ...] = ()
    sentences: Path | None = None
    noise: Path | None = None
    licences: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.corpus is not None and self.corpora:
            raise ValueError("a recipe names either corpus or corpora, not both")
        if self.longest_seconds is not None and self.longest_seconds < MINIMUM_SECONDS:
            raise ValueError(f"longest_seconds is {self.longest_seconds}; {MINIMUM_SECONDS} s is the least")
        if self.copy_share is not None and not 0 <= self.copy_share < 1:
            raise ValueError(f"copy_share is {self.copy_share}; 0 to less than 1 is possible")
        missing = [name for name in TEXT_MODELS if getattr(self, name) is None]
        others = [language for language in self.text_languages if language != ENGLISH]
        if others and missing:
            raise ValueError(f"text_languages has {', '.join(others)}, but no {' and no '.join(missing)} is named")

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a YAML file; relative paths of data in it are under `$AMSER_DATA`, or else the current folder.

        `base: FILE` takes everything from another recipe, relative to this one, that this one does not say; what both
        say of a mapping such as `network` is merged. Either of `corpus` and `corpora` takes the other's place.

        Raises:
            TypeError: a key is unknown or missing.
            ValueError: texts of another language than English have no word vectors or no text encoder; both `corpus`
                and `corpora` are named, or a weight, a share or the label of a corpus is not possible.
        """
        values = {name: _tuples(value) for name, value in _content(path).items()}
        for name in TEXT_MODELS:
            if values.get(name) and (folder := in_data_folder(values[name])).is_dir():
                values[name] = str(folder)
        if values.get("corpus"):
            values["corpus"] = source_in_data_folder(values["corpus"])
        if values.get("corpora"):
            values["corpora"] = tuple(
                Teacher(**said | {"source": source_in_data_folder(said["source"])}) for said in values["corpora"]
            )
        return cls(
            **values | {name: in_data_folder(values[name]) for name in ("sentences", "noise") if values.get(name)}
        )

    def with_data(
        self, corpus: str | None, sentences: Path | None, noise: Path | None, licences: Mapping[str, str] | None = None
    ) -> Recipe:
        """The same with other data; None keeps what the file names. `licences` are added to the file's.

        A corpus takes the place of all those that the file names.

        Raises:
            ValueError: neither names a corpus.
        """
        if corpus is None and not self.teachers:
            raise ValueError("there is nothing to train on: name a corpus with --corpus, or in the recipe")
        return replace(
            self,
            corpus=corpus or self.corpus,
            corpora=() if corpus else self.corpora,
            sentences=sentences or self.sentences,
            noise=noise or self.noise,
            licences={**self.licences, **(licences or {})},
        )

    def settings(self) -> dict[str, Any]:
        """All of it but where data and text models are: what a network depends on, whatever a folder is called."""
        settings = {name: value for name, value in asdict(self).items() if name not in (*ABOUT_DATA, *TEXT_MODELS)}
        return settings | {"corpora": [[each.name, each.weight, each.label, each.always] for each in self.corpora]}

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The corpora to train on, whether named by `corpora` or by `corpus`; () where neither is."""
        return self.corpora if self.corpus is None else (Teacher(self.corpus),)

    @property
    def reads_mel(self) -> bool:
        """Whether log-Mels are kept with the features: not where `modalities` and the lack of words rule them out."""
        return self.own_words or "mel" in self.network.get("modalities", ("mel",))

    @property
    def reading(self) -> Reading:
        """Which features of an utterance are made."""
        languages = self.text_languages if self.own_words else ()
        return Reading(languages, self.reads_mel, self.longest_seconds)

    @property
    def in_stages(self) -> bool:
        """Whether voice and text are trained apart."""
        return bool(self.network.get("model") == "amser-states")

    def network_config(self, context_width: int) -> FusionConfig:
        """Which network, and its sizes, for a text encoder of that width."""
        sizes = {name: _tuples(size) for name, size in self.network.items()}
        return FusionConfig(classes=self.classes, context_width=context_width, **sizes)

    def mel_augmenter(self) -> MelAugmentation | None:
        """Changes to each drawn Mel."""
        return None if self.mel_augmentation is None else MelAugmentation(**self.mel_augmentation)

    def state_augmenter(self) -> StateAugmentation | None:
        """Changes to each drawn utterance's encoder states."""
        return None if self.state_augmentation is None else StateAugmentation(**self.state_augmentation)

    def waveform_augmenter(self, background: Path | None) -> WaveformAugmentation:
        """Changes to the waveforms of the copies, with recordings of noise from a folder."""
        ranges = {name: _tuples(value) for name, value in self.waveform.items()}
        return WaveformAugmentation(background=background, **ranges)

    def stage(self, name: str) -> TrainingConfig:
        """How `training` or `text_training` goes."""
        return TrainingConfig(**getattr(self, name))

    def contrast(self) -> ObjectiveConfig:
        """What to minimise."""
        return ObjectiveConfig(**self.objective)


def _content(path: Path) -> dict[str, Any]:
    """What a YAML file and its bases say."""
    said: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "base" not in said:
        return said
    content = _content(path.parent / said.pop("base"))
    for name, other in (("corpus", "corpora"), ("corpora", "corpus")):
        if said.get(name):
            content.pop(other, None)
    for name, value in said.items():
        is_merged = isinstance(value, dict) and isinstance(content.get(name), dict)
        content[name] = content[name] | value if is_merged else value
    return content


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
