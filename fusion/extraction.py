"""From a manifest to features: the stages of the cluster, run on a corpus, with what they made kept on disk.

Every utterance goes the way it goes in service: its log-Mel is compressed and rebuilt first; the recogniser writes the
text of that same Mel; words and context are read from that text ("text at test time: the ASR text of the same
compressed Mel"). Each utterance is a file, so that an interrupted extraction goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from rich.progress import track

from amser import codecs
from amser.features import AudioError, log_mel, resample, silence_value, to_mono
from deployments.messages import Mel, TextFeatures, Transcript
from deployments.roberta import ContextEncoder
from deployments.text_embedding import WordVectors
from deployments.weights import cache_folder, fingerprint, model_path
from deployments.whisper.ctranslate2_engine import CTranslate2Engine
from deployments.whisper.recognizer import WhisperRecognizer
from fusion.batch import FRAMES_PER_SECOND, UtteranceFeatures
from fusion.corpora.manifest import Corpus, ManifestError, Record

ENCODERS = {"asr": "whisper-base", "words": "spacy-en-core-web-md", "context": "all-mpnet-base-v2"}
ENCODER_STATE_WIDTH = 512  # of Whisper base
UTTERANCES_AT_ONCE = 8  # through the recogniser and the text encoder; bounds the memory
LAYOUT = 2  # of the cached files; a new number leaves old caches unread
THREADS = 1  # of torch and CTranslate2; two that wait for each other on busy cores were thirty times slower

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class CodecSetting:
    """A codec and its rate, written `name:rate`; `none` is the uncompressed log-Mel."""

    name: str
    rate: float | None

    @classmethod
    def parse(cls, text: str) -> CodecSetting:
        """Read `none`, `mel-f16`, `svd-f16:0.125`, …; raises ValueError for anything else."""
        name, _, rate = text.partition(":")
        if name == "none" and not rate:
            return cls("none", None)
        if name not in codecs.CODECS:
            raise ValueError(f"codec {text!r}: expected none or one of {', '.join(codecs.CODECS)}, as in svd-f16:0.125")
        return cls(name, float(rate) if rate else None)

    def __str__(self) -> str:
        return self.name if self.rate is None else f"{self.name}:{self.rate:g}"


@dataclass(frozen=True, slots=True)
class Encoders:
    """The models behind the features; `asr` is None where reference transcripts are read instead."""

    asr: WhisperRecognizer | None
    words: WordVectors
    context: ContextEncoder

    @classmethod
    def load(cls, *, asr: bool = True) -> Encoders:
        """The models that the cluster serves by default, from the weight store."""
        return cls(
            asr=WhisperRecognizer(CTranslate2Engine(model_path(ENCODERS["asr"]), threads=THREADS)) if asr else None,
            words=WordVectors(model_path(ENCODERS["words"])),
            context=ContextEncoder(model_path(ENCODERS["context"])),
        )


def fingerprints() -> dict[str, str]:
    """Fingerprint of the weights of each encoder: what a checkpoint is tied to."""
    return {role: fingerprint(model) for role, model in ENCODERS.items()}


def extract(
    corpus: Corpus,
    setting: CodecSetting,
    *,
    reference_text: bool = False,
    cache_root: Path | None = None,
    encoders: Callable[[], Encoders] | None = None,
) -> list[UtteranceFeatures]:
    """Features of every record, in order, from the cache where they are there.

    Args:
        corpus: what to describe.
        setting: how the device compresses.
        reference_text: take the corpus's transcript for the text (an upper bound, and quick); the recogniser is not
            run, and there are no encoder states.
        cache_root: where to keep features; `features/` in Amser's cache folder by default.
        encoders: brings the models; called only where something is missing.

    Raises:
        ManifestError: a sound file cannot be read, or holds no usable speech.
    """
    folder = (cache_root or cache_folder() / "features") / cache_key(corpus, setting, reference_text)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:06d}.npz" for number in range(len(corpus.records))]
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    if missing:
        models = encoders() if encoders else Encoders.load(asr=not reference_text)
        groups = _chunks(missing, UTTERANCES_AT_ONCE)
        total = -(-len(missing) // UTTERANCES_AT_ONCE)
        for group in track(groups, f"features of {corpus.name}, {setting}", total):
            described = describe([corpus.records[number] for number in group], setting, models)
            for number, (features, text) in zip(group, described, strict=True):
                _write(files[number], features, text)
    return [_read(file) for file in files]


def describe(
    records: Sequence[Record], setting: CodecSetting, encoders: Encoders
) -> list[tuple[UtteranceFeatures, str]]:
    """Features and text of a few utterances, as the cluster would have them."""
    mels = [compressed_mel(record, setting) for record in records]
    if encoders.asr is None:
        no_states = np.zeros((0, ENCODER_STATE_WIDTH), np.float16)
        transcripts = [Transcript(record.text, record.language or "en", 0.0, no_states) for record in records]
    else:
        transcripts = encoders.asr.transcribe(mels)
    words = [encoders.words.embed(transcript.text) for transcript in transcripts]
    contexts = encoders.context.encode([transcript.text for transcript in transcripts])
    return [
        (UtteranceFeatures(mel.values, word.values, context.values, transcript.encoder_states), transcript.text)
        for mel, word, context, transcript in zip(mels, words, contexts, transcripts, strict=True)
    ]


def describe_texts(texts: Sequence[str], encoders: Encoders) -> list[tuple[TextFeatures, TextFeatures]]:
    """Word and context features of sentences without sound."""
    contexts = [features for group in _chunks(texts, 32) for features in encoders.context.encode(group)]
    return [(encoders.words.embed(text), context) for text, context in zip(texts, contexts, strict=True)]


def compressed_mel(record: Record, setting: CodecSetting) -> Mel:
    """The log-Mel of a sound file after the codec: what the cluster rebuilds."""
    try:
        samples, rate = soundfile.read(record.audio, dtype="float32", always_2d=True)
        waveform = resample(to_mono(samples), rate)
        mel = log_mel(waveform)
    except (soundfile.LibsndfileError, AudioError) as error:
        raise ManifestError(f"{record.audio}: {error}") from error
    rank = None
    if setting.name != "none":
        encoded = codecs.encode(mel, setting.name, rate=setting.rate)
        rank = encoded.rank
        mel = codecs.decode(encoded.codec, encoded.payload, bands=mel.shape[0], frames=mel.shape[1])
    return Mel(
        values=mel.astype(np.float16),
        silence=silence_value(mel),
        seconds=mel.shape[1] / FRAMES_PER_SECOND,
        language=record.language,
        codec=setting.name,
        rank=rank,
    )


def cache_key(corpus: Corpus, setting: CodecSetting, reference_text: bool) -> str:
    """A name for features that changes with whatever they depend on: rows, files, codec, encoders."""
    content = {
        "layout": LAYOUT,
        "rows": [
            [record.utterance, record.audio.stat().st_size, record.language, record.text if reference_text else None]
            for record in corpus.records
        ],
        "codec": str(setting),
        "encoders": fingerprints(),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return f"{corpus.name}-{digest[:16]}"


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def _write(file: Path, features: UtteranceFeatures, text: str) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            log_mel=features.log_mel.astype(np.float16),
            words=features.words.astype(np.float16),
            context=features.context.astype(np.float16),
            encoder_states=features.encoder_states.astype(np.float16),
            text=np.array(text),  # for whoever wants to know what was heard; nothing here reads it
        )
    partial.replace(file)


def _read(file: Path) -> UtteranceFeatures:
    with np.load(file, allow_pickle=False) as arrays:
        return UtteranceFeatures(arrays["log_mel"], arrays["words"], arrays["context"], arrays["encoder_states"])
