"""From a corpus to features: the stages of the cluster, run on every utterance, with what they made kept on disk.

Every utterance is processed as it is served: its log-Mel is compressed and rebuilt first; the recogniser transcribes
that same Mel; words and context are encoded from that transcript ("text at test time: the ASR text of the same
compressed Mel"). The speech features of an utterance are a file, so that an interrupted extraction goes on where it
stopped; texts are encoded anew, each different one once.

Files are kept under a key of what they depend on: data, codec, weights, and the code of the feature path
(`training.source_digest`), so that a changed codec or recogniser never meets old features.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich import get_console
from rich.progress import track

from amser import codecs
from amser.codecs import Setting
from amser.codecs.klt_tables import digest
from amser.features import AudioError, log_mel, resample, silence_value, to_mono
from models.emotion.batch import FRAMES_PER_SECOND, UtteranceFeatures
from models.messages import Mel
from models.weights import cache_folder, fingerprint, model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder
from training.corpora.manifest import Corpus, ManifestError, Record
from training.data.texts import TextFeatureExtractor, TextFeaturePair
from training.data.waveform_augmentation import WaveformAugmentation
from training.source_digest import SPEECH_FEATURES, source_digest

RECOGNISER = "whisper-base"  # of the catalogue; recipes may name another one
UTTERANCES_AT_ONCE = 8  # through the recogniser; bounds the memory
THREADS = 1  # of torch and CTranslate2; two that wait for each other on busy cores were thirty times slower

Item = TypeVar("Item")


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
class SpeechFeatures:
    """What the cluster computes of an utterance before its text is encoded.

    Attributes:
        log_mel: float16 (80, T), after the codec.
        encoder_states: float16 (s, width), see `models.whisper.voice`.
        text: the recogniser's, or the corpus's own.
    """

    log_mel: NDArray[np.float16]
    encoder_states: NDArray[np.float16]
    text: str


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


def extract_speech(
    corpus: Corpus,
    setting: CodecSetting,
    *,
    reference_text: bool = False,
    recogniser: str = RECOGNISER,
    cache_root: Path | None = None,
    load_models: Callable[[], SpeechModels] | None = None,
) -> list[SpeechFeatures]:
    """Speech features of every record, in order, from the cache where they are there.

    Args:
        corpus: the records; `training.data.screening` has left out those that no log-Mel can be made of.
        setting: how the device compresses.
        reference_text: take the corpus's transcript for the text (an upper bound, and quick).
        recogniser: a Whisper of the weight catalogue.
        cache_root: where to keep it; `features/` in Amser's cache folder by default.
        load_models: returns the models; called only where features are missing.

    Raises:
        ManifestError: a sound file cannot be read, or holds no usable speech.
    """

    def compute(numbers: Sequence[int], models: SpeechModels) -> list[SpeechFeatures]:
        records = [corpus.records[number] for number in numbers]
        mels = [compressed_mel(waveform_of(record), setting, record.language) for record in records]
        if models.asr is None:
            texts = [record.text for record in records]
        else:
            texts = [transcript.text for transcript in models.asr.transcribe(mels)]
        return [
            SpeechFeatures(mel.values, models.voice.encode(mel), text) for mel, text in zip(mels, texts, strict=True)
        ]

    folder = (cache_root or cache_folder() / "features") / cache_key(corpus, setting, reference_text, recogniser)
    load = load_models or (lambda: SpeechModels.load(asr=not reference_text, recogniser=recogniser))
    return _cached(folder, len(corpus.records), compute, load, f"features of {corpus.name}, {setting}")


def extract_augmented_speech(
    corpus: Corpus,
    copy: int,
    augmentation: WaveformAugmentation,
    settings: Sequence[CodecSetting],
    texts: Sequence[str],
    *,
    recogniser: str = RECOGNISER,
    cache_root: Path | None = None,
    load_models: Callable[[], SpeechModels] | None = None,
) -> list[SpeechFeatures]:
    """Speech features of every record with a changed waveform (R20), each through one codec setting at random.

    Args:
        corpus: as for `extract_speech`.
        copy: which copy of the corpus: another number, other changes.
        augmentation: how waveforms are changed.
        settings: what each utterance's codec is drawn from.
        texts: of the records; changes leave the words as they are, so the recogniser does not run again.
        recogniser: as for `extract_speech`.
        cache_root: as for `extract_speech`.
        load_models: as for `extract_speech`.
    """

    def compute(numbers: Sequence[int], models: SpeechModels) -> list[SpeechFeatures]:
        computed = []
        for number in numbers:
            record = corpus.records[number]
            seed = copy * len(corpus.records) + number
            setting = settings[int(np.random.default_rng(seed).integers(len(settings)))]
            mel = compressed_mel(augmentation(waveform_of(record), seed), setting, record.language)
            computed.append(SpeechFeatures(mel.values, models.voice.encode(mel), texts[number]))
        return computed

    content: dict[str, object] = {
        "copy": copy,
        "augmentation": augmentation.key(),
        "settings": [str(setting) for setting in settings],
    }
    if any(setting.name == "klt" for setting in settings):
        content["tables"] = digest()
    key = f"{cache_key(corpus, UNCOMPRESSED, False, recogniser)}-{_digest(content)}"
    folder = (cache_root or cache_folder() / "features") / key
    load = load_models or (lambda: SpeechModels.load(asr=False, recogniser=recogniser))
    speech = _cached(folder, len(corpus.records), compute, load, f"features of {corpus.name}, augmented copy {copy}")
    return [
        replace(each, text=text) for each, text in zip(speech, texts, strict=True)
    ]  # a kept file may hold another text


def waveform_of(record: Record) -> NDArray[np.float32]:
    """Samples (n,) at 16 kHz of a record; raises ManifestError where there are none."""
    try:
        samples, rate = soundfile.read(record.audio, dtype="float32", always_2d=True)
        return resample(to_mono(samples), rate)
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


def cache_key(corpus: Corpus, setting: CodecSetting, reference_text: bool, recogniser: str = RECOGNISER) -> str:
    """A name for speech features that changes with whatever they depend on: rows, files, codec, recogniser, code."""
    content = {
        "code": source_digest(*SPEECH_FEATURES),
        "rows": [
            [record.utterance, record.audio.stat().st_size, record.language, record.text if reference_text else None]
            for record in corpus.records
        ],
        "codec": str(setting),
        "recogniser": fingerprint(recogniser),
    }
    if setting.name == "klt":
        content["tables"] = digest()
    return f"{corpus.name}-{_digest(content)}"


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _cached(
    folder: Path,
    count: int,
    compute: Callable[[Sequence[int], SpeechModels], list[SpeechFeatures]],
    load: Callable[[], SpeechModels],
    description: str,
) -> list[SpeechFeatures]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.npz" for number in range(count)]
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    if len(missing) < count:
        oldest = min(file.stat().st_mtime for file in files if file.is_file())
        get_console().print(f"{description}: {count - len(missing):,} of {count:,} kept, the oldest of {_day(oldest)}")
    if missing:
        models = load()
        for group in track(_chunks(missing, UTTERANCES_AT_ONCE), description, -(-len(missing) // UTTERANCES_AT_ONCE)):
            for number, computed in zip(group, compute(group, models), strict=True):
                _write(files[number], computed)
    return [_read(file) for file in files]


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _day(timestamp: float) -> str:
    return datetime.datetime.fromtimestamp(timestamp).astimezone().date().isoformat()


def _write(file: Path, speech: SpeechFeatures) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(stream, log_mel=speech.log_mel, encoder_states=speech.encoder_states, text=np.array(speech.text))
    partial.replace(file)


def _read(file: Path) -> SpeechFeatures:
    with np.load(file, allow_pickle=False) as arrays:
        return SpeechFeatures(arrays["log_mel"], arrays["encoder_states"], str(arrays["text"]))
