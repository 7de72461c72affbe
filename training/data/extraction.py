"""From a corpus to features: the stages of the cluster, run on every utterance, with what they made kept on disk.

Every utterance is processed as it is served: its log-Mel is compressed and rebuilt first; the recogniser transcribes
that same Mel; words and context are encoded from that transcript ("text at test time: the ASR text of the same
compressed Mel"). Speech features are kept in files (`training.data.feature_files`); texts are encoded anew, each
different one once.

Files are kept under a key of what they depend on: data, codec, weights, and the code of the feature path
(`training.source_digest`), so that a changed codec or recogniser never meets old features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
from numpy.typing import NDArray

from amser import codecs
from amser.codecs import Setting
from amser.codecs.klt_tables import digest
from amser.features import SAMPLE_RATE, AudioError, log_mel, resample, silence_value, to_mono
from models.emotion.batch import FRAMES_PER_SECOND, UtteranceFeatures
from models.messages import Mel
from models.weights import cache_folder, fingerprint, model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder
from training.corpora.manifest import Corpus, ManifestError, Record
from training.data.feature_files import SpeechFeatures, kept_features
from training.data.texts import TextFeatureExtractor, TextFeaturePair
from training.data.waveform_augmentation import WaveformAugmentation
from training.source_digest import SPEECH_FEATURES, source_digest

RECOGNISER = "whisper-base"  # of the catalogue; recipes may name another one
WORD_WIDTH = 300  # of word vectors
UTTERANCES_AT_ONCE = 8  # through the recogniser; bounds the memory
NO_LOG_MEL = np.zeros((80, 1), np.float16)  # in place of one that no network reads
THREADS = 1  # of torch and CTranslate2; two that wait for each other on busy cores were thirty times slower


@dataclass(frozen=True, slots=True)
class CodecSetting:
    """A codec and how finely it writes, as in `svd-f16:0.125` or `klt:low`; `none` is the uncompressed log-Mel."""

    name: str
    setting: Setting

    @classmethod
    def parse(cls, text: str) -> CodecSetting:
        """Read `none`, `mel-f16`, `svd-f16:0.125`, `klt:low`, …; raises ValueError for anything else."""
        if text == "none":
            return UNCOMPRESSED
        try:
            return cls(*codecs.parse(text))
        except (codecs.CodecError, ValueError) as error:
            raise ValueError(f"codec {text!r}: expected none, or as in svd-f16:0.125 ({error})") from None

    def __str__(self) -> str:
        how = self.setting
        if how.rate is not None:
            return f"{self.name}:{how.rate:g}"
        if how.factors is not None:
            return f"{self.name}:{how.factors[0]}x{how.factors[1]}"
        return self.name if how.step is None else f"{self.name}:{how.step}"


UNCOMPRESSED: Final = CodecSetting("none", Setting())


@dataclass(frozen=True, slots=True)
class SpeechModels:
    """The models that encode speech; `asr` is None where reference transcripts are used instead."""

    asr: WhisperRecognizer | None
    voice: VoiceEncoder

    @classmethod
    def load(cls, *, asr: bool = True, recogniser: str = RECOGNISER) -> SpeechModels:
        """The models that the cluster serves, from the weight store."""
        model = model_path(recogniser)
        return cls(
            asr=WhisperRecognizer(CTranslate2Engine(model, threads=THREADS)) if asr else None,
            voice=VoiceEncoder(model, threads=THREADS),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """Which features of an utterance are made.

    Attributes:
        languages: ISO 639-1 codes of what is transcribed, with what has no code; None for all, () for nothing, and then
            no recogniser is loaded. What is not transcribed has an empty text.
        log_mel: whether the log-Mel is kept.
        longest_seconds: what is longer is cropped; None for no limit.
    """

    languages: tuple[str, ...] | None = None
    log_mel: bool = True
    longest_seconds: float | None = None

    def transcribes(self, language: str | None) -> bool:
        """Whether the recogniser runs on an utterance in that language."""
        return self.languages is None or (self.languages != () and language in (None, *self.languages))

    def cropped(self, waveform: NDArray[np.float32], place: float = 0.5) -> NDArray[np.float32]:
        """A waveform (n,) at 16 kHz that is not longer; `place` within 0 to 1 is where its part lies in the whole."""
        if self.longest_seconds is None:
            return waveform
        length = int(self.longest_seconds * SAMPLE_RATE)
        start = int(place * max(0, len(waveform) - length))
        return waveform[start : start + length]

    def features(self, mel: Mel, models: SpeechModels, text: str) -> SpeechFeatures:
        """The features of a log-Mel."""
        kept = mel.values if self.log_mel else NO_LOG_MEL
        return SpeechFeatures(kept, models.voice.encode(mel), text)


EVERYTHING: Final = Reading()


def extract(
    corpus: Corpus,
    setting: CodecSetting,
    extractor: TextFeatureExtractor,
    *,
    reference_text: bool = False,
    recogniser: str = RECOGNISER,
    cache_root: Path | None = None,
    load_models: Callable[[], SpeechModels] | None = None,
) -> list[UtteranceFeatures]:
    """Features of every record, in order. Arguments as for `extract_speech`; `extractor` encodes the texts."""
    speech = extract_speech(
        corpus,
        setting,
        reference_text=reference_text,
        recogniser=recogniser,
        cache_root=cache_root,
        load_models=load_models,
    )
    return with_text(speech, extractor.extract([each.text for each in speech]))


def with_text(speech: Sequence[SpeechFeatures], texts: Mapping[str, TextFeaturePair]) -> list[UtteranceFeatures]:
    """Utterance features from speech features and the features of each of their texts."""
    return [
        UtteranceFeatures(each.log_mel, texts[each.text].words, texts[each.text].context, each.encoder_states)
        for each in speech
    ]


def without_words(speech: Sequence[SpeechFeatures], context_width: int) -> list[UtteranceFeatures]:
    """Utterance features of the voices alone, for a text encoder of that width."""
    words, context = np.zeros((0, WORD_WIDTH), np.float16), np.zeros((0, context_width), np.float16)
    return [UtteranceFeatures(each.log_mel, words, context, each.encoder_states) for each in speech]


def extract_speech(
    corpus: Corpus,
    setting: CodecSetting,
    *,
    reference_text: bool = False,
    recogniser: str = RECOGNISER,
    reading: Reading = EVERYTHING,
    cache_root: Path | None = None,
    load_models: Callable[[], SpeechModels] | None = None,
    workers: Executor | None = None,
) -> list[SpeechFeatures]:
    """Speech features of every record, in order, from the cache where they are there.

    Args:
        corpus: the records; `training.data.screening` has left out those that no log-Mel can be made of.
        setting: how the device compresses.
        reference_text: take the corpus's transcript for the text (an upper bound, and quick).
        recogniser: a Whisper of the weight catalogue.
        reading: which of the features are made.
        cache_root: where to keep it; `features/` in Amser's cache folder by default.
        load_models: returns the models; called only where features are missing.
        workers: processes that compute what is missing, from `training.data.feature_files.speech_workers`.

    Raises:
        ManifestError: a sound file cannot be read, or holds no usable speech.
    """
    folder = (cache_root or cache_folder() / "features") / cache_key(
        corpus, setting, reference_text, recogniser, reading
    )
    has_recogniser = not reference_text and reading.languages != ()
    load = load_models or partial(SpeechModels.load, asr=has_recogniser, recogniser=recogniser)
    description = f"features of {corpus.name}, {setting}"
    return kept_features(
        folder, corpus.records, PlainView(setting, reference_text, reading), load, description, workers
    )


def extract_augmented_speech(
    corpus: Corpus,
    copy: int,
    augmentation: WaveformAugmentation,
    settings: Sequence[CodecSetting],
    texts: Sequence[str],
    *,
    recogniser: str = RECOGNISER,
    reading: Reading = EVERYTHING,
    cache_root: Path | None = None,
    load_models: Callable[[], SpeechModels] | None = None,
    workers: Executor | None = None,
) -> list[SpeechFeatures]:
    """Speech features of every record with a changed waveform (R20), each through one codec setting at random.

    Args:
        corpus: as for `extract_speech`.
        copy: which copy of the corpus: another number, other changes.
        augmentation: how waveforms are changed.
        settings: what each utterance's codec is drawn from.
        texts: of the records; changes leave the words as they are, so the recogniser does not run again.
        recogniser: as for `extract_speech`.
        reading: as for `extract_speech`.
        cache_root: as for `extract_speech`.
        load_models: as for `extract_speech`.
        workers: as for `extract_speech`.
    """
    content: dict[str, object] = {
        "copy": copy,
        "augmentation": augmentation.key(),
        "settings": [str(setting) for setting in settings],
    }
    if any(setting.name == "klt" for setting in settings):
        content["tables"] = digest()
    key = f"{cache_key(corpus, UNCOMPRESSED, False, recogniser, reading)}-{_digest(content)}"
    folder = (cache_root or cache_folder() / "features") / key
    load = load_models or partial(SpeechModels.load, asr=False, recogniser=recogniser)
    seeds = range(copy * len(corpus.records), (copy + 1) * len(corpus.records))
    speech = kept_features(
        folder,
        list(zip(corpus.records, seeds, strict=True)),
        AugmentedView(augmentation, tuple(settings), reading),
        load,
        f"features of {corpus.name}, augmented copy {copy}",
        workers,
    )
    return [replace(each, text=text) for each, text in zip(speech, texts, strict=True)]


@dataclass(frozen=True, slots=True)
class PlainView:
    """Computes features of records as they are; the fields are arguments of `extract_speech`."""

    setting: CodecSetting
    reference_text: bool
    reading: Reading

    def __call__(self, records: Sequence[Record], models: SpeechModels) -> list[SpeechFeatures]:
        computed: list[SpeechFeatures] = []
        for start in range(0, len(records), UTTERANCES_AT_ONCE):
            computed += self._some(records[start : start + UTTERANCES_AT_ONCE], models)
        return computed

    def _some(self, records: Sequence[Record], models: SpeechModels) -> list[SpeechFeatures]:
        waveforms = (self.reading.cropped(waveform_of(record)) for record in records)
        mels = [
            compressed_mel(waveform, self.setting, record.language)
            for waveform, record in zip(waveforms, records, strict=True)
        ]
        texts = [record.text if self.reference_text else "" for record in records]
        if models.asr is not None and not self.reference_text:
            said = [number for number, record in enumerate(records) if self.reading.transcribes(record.language)]
            transcripts = models.asr.transcribe([mels[number] for number in said]) if said else []
            for number, transcript in zip(said, transcripts, strict=True):
                texts[number] = transcript.text
        return [self.reading.features(mel, models, text) for mel, text in zip(mels, texts, strict=True)]


@dataclass(frozen=True, slots=True)
class AugmentedView:
    """Computes features of records and seeds, changed; the fields are arguments of `extract_augmented_speech`."""

    augmentation: WaveformAugmentation
    settings: tuple[CodecSetting, ...]
    reading: Reading

    def __call__(self, seeded: Sequence[tuple[Record, int]], models: SpeechModels) -> list[SpeechFeatures]:
        return [self._one(record, seed, models) for record, seed in seeded]

    def _one(self, record: Record, seed: int, models: SpeechModels) -> SpeechFeatures:
        random = np.random.default_rng(seed)
        setting = self.settings[int(random.integers(len(self.settings)))]
        waveform = self.reading.cropped(waveform_of(record), random.random())
        mel = compressed_mel(self.augmentation(waveform, seed), setting, record.language)
        return self.reading.features(mel, models, "")


def waveform_of(record: Record) -> NDArray[np.float32]:
    """Samples (n,) at 16 kHz of a record; raises ManifestError where there are none."""
    try:
        samples, rate = soundfile.read(record.audio, dtype="float32", always_2d=True)
        return resample(to_mono(samples, rate), rate)
    except (soundfile.LibsndfileError, AudioError) as error:
        raise ManifestError(f"{record.audio}: {error}") from error


def compressed_mel(waveform: NDArray[np.float32], setting: CodecSetting, language: str | None = None) -> Mel:
    """The log-Mel of a waveform after the codec: what the cluster rebuilds."""
    try:
        mel = log_mel(waveform)
    except AudioError as error:
        raise ManifestError(str(error)) from error
    rank = None
    if setting.name != "none":
        encoded = codecs.encode(mel, setting.name, **asdict(setting.setting))
        rank = encoded.rank
        mel = codecs.decode(encoded.codec, encoded.payload, bands=mel.shape[0], frames=mel.shape[1])
    return Mel(
        values=mel.astype(np.float16),
        silence=silence_value(mel),
        seconds=mel.shape[1] / FRAMES_PER_SECOND,
        language=language,
        codec=setting.name,
        rank=rank,
    )


def cache_key(
    corpus: Corpus,
    setting: CodecSetting,
    reference_text: bool,
    recogniser: str = RECOGNISER,
    reading: Reading = EVERYTHING,
) -> str:
    """A name for speech features that changes with whatever they depend on: rows, files, codec, recogniser, code."""
    content = {
        "code": source_digest(*SPEECH_FEATURES),
        "rows": [
            [record.utterance, record.audio.stat().st_size, record.language, record.text if reference_text else None]
            for record in corpus.records
        ],
        "codec": str(setting),
        "recogniser": fingerprint(recogniser),
        "reading": asdict(reading),
    }
    if setting.name == "klt":
        content["tables"] = digest()
    return f"{corpus.name}-{_digest(content)}"


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
