"""Emotions through a transport, for `benchmarks.codec`: as the cluster computes them.

transport → log-Mel → encoder states, and the recogniser's text of that log-Mel → text features → network. Where it is
not sure that somebody speaks, the voice alone is judged (where nobody does, the cluster would claim no emotion). The
network is the one that heard the other corpora of the recipe, if it is kept, or else the checkpoint that ships with
Amser, which may have been trained on the corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring.bootstrap import recall_difference
from benchmarks.measuring.noise import CLEAN, Condition, Noise, mix
from benchmarks.measuring.transmission import (
    Arrived,
    Transcriber,
    Utterance,
    identity,
    key_of,
    progress,
    rebuilt,
)
from edge_sim.transports import Transport
from models.emotion.batch import UtteranceFeatures, voice_alone
from models.emotion.checkpoint import load
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT, CheckpointError
from models.emotion.network import FusionNetwork
from models.weights import fingerprint
from models.whisper.voice import VoiceEncoder
from training.corpora.manifest import Corpus, ManifestError, Record
from training.data.extraction import waveform_of
from training.data.screening import screen, summary_of
from training.data.texts import TextFeatureExtractor, TextFeaturePair
from training.evaluate import protocol_of
from training.fitting.loading import open_teachers
from training.fitting.loop import predict
from training.fitting.recipe import Recipe
from training.judging.metrics import score
from training.source_digest import NETWORKS, SPEECH_FEATURES, TEXT_FEATURES, source_digest
from training.train import networks_folder

LEFT_OUT, SHIPPED = "network without the corpus", "shipped checkpoint"
SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Judge:
    """The network that judges.

    Attributes:
        network: a network.
        temperature: what divides its logits.
        digest: of its file.
        by: `LEFT_OUT` or `SHIPPED`.
        remark: how the figures must be read.
    """

    network: FusionNetwork
    temperature: float
    digest: str
    by: str
    remark: str

    @classmethod
    def read(cls, file: Path, by: str, remark: str, expected: dict[str, str] | None = None) -> Judge:
        """From a checkpoint, which must fit the encoders where they are named."""
        network, info = load(file, expected)
        return cls(network, info.temperature, hashlib.sha256(file.read_bytes()).hexdigest(), by, remark)


def find_judge(recipe: Recipe, corpus: Corpus, extractor: TextFeatureExtractor) -> Judge:
    """The network that heard the other corpora of the recipe, if it is kept, or the checkpoint that comes with Amser.

    Raises:
        models.emotion.checkpoint_info.CheckpointError: the checkpoint does not fit the encoders of the recipe.
    """
    why = "it is not kept"
    try:
        file = networks_folder(recipe, open_teachers(recipe), extractor) / f"{corpus.name}.safetensors"
        if file.is_file():
            return Judge.read(
                file, LEFT_OUT, "all utterances by the network that heard the other corpora of the recipe"
            )
    except (FileNotFoundError, ManifestError) as error:  # other corpora of the recipe, or its noise
        why = str(error)
    missing = f"no network that did not hear the corpus ({why}"
    expected = {"asr": fingerprint(recipe.recogniser)} | extractor.fingerprints
    try:
        heard = protocol_of(corpus, load(DEFAULT_CHECKPOINT)[1])
        return Judge.read(DEFAULT_CHECKPOINT, SHIPPED, f"{missing}); {heard}", expected)
    except CheckpointError as error:
        raise CheckpointError(f"{missing}; `python -m training.train` trains it); {error}") from error


def every_kth(records: Sequence[Record], limit: int | None) -> list[Record]:
    """`limit` records, evenly over speakers and, of each speaker, over classes; within a class at random, seeded."""
    if limit is None or limit >= len(records):
        return list(records)
    random = np.random.default_rng(SEED)
    order = random.permutation(len(records)).tolist()
    order.sort(key=lambda index: (records[index].speaker, records[index].emotion))
    places = ((np.arange(limit) + random.random()) * len(records) / limit).astype(int)
    return [records[order[place]] for place in places]


class EmotionBench:
    """Measures unweighted accuracy through transports.

    Args:
        recipe: whose networks judge; utterances of classes that it does not have are left out.
        corpus: whole, because the folder of the networks is named for all of it.
        extractor: of the texts.
        transcriber: of the recipe's recogniser.
        load_voice: returns the encoder of the states; called only where some are missing.
        limit: utterances at most.
    """

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        extractor: TextFeatureExtractor,
        transcriber: Transcriber,
        load_voice: Callable[[], VoiceEncoder],
        limit: int | None = None,
    ) -> None:
        corpus = screen(corpus)
        self.judge = find_judge(recipe, corpus, extractor)
        if corpus.unusable:
            self.judge = replace(self.judge, remark=f"{self.judge.remark}; {summary_of(corpus)}")
        self._name = corpus.name
        self._recipe, self._extractor, self._transcriber = recipe, extractor, transcriber
        self._load_voice = load_voice
        self._texts: dict[str, TextFeaturePair] = {}
        known = [record for record in corpus.records if record.emotion in recipe.classes]
        self.records = every_kth(known, limit)
        self._truth = np.array([recipe.classes.index(record.emotion) for record in self.records])
        self._speakers = [record.speaker for record in self.records]
        self._condition, self._utterances = Condition(CLEAN), list[Utterance]()
        self._reference: NDArray[np.bool_] | None = None

    def hear(self, condition: Condition, noises: Mapping[str, Noise]) -> None:
        """Judge the utterances in a condition from here on; the first transport in it is the reference again.

        Args:
            condition: what they are mixed with.
            noises: by the kind of the condition.
        """
        self._condition, self._reference, self._utterances = condition, None, []
        for record in self.records:
            waveform = waveform_of(record)
            if condition.kind != CLEAN:
                noise = noises[condition.kind](record.utterance, record.speaker, waveform.size)
                waveform = mix(waveform, noise, condition.snr_db)
            self._utterances.append(Utterance.of(waveform, record.language))

    @cached_property
    def _voice(self) -> VoiceEncoder:
        return self._load_voice()

    def measure(self, transport: Transport) -> dict[str, Any]:
        """The figures of a row. Those of the first transport in a condition are what the others are compared with."""
        arrived = self._arrived(transport)
        texts = [each.text if each.speech == "yes" else None for each in arrived]
        answers = self._probabilities(transport, texts).argmax(1)
        scores = score(self._truth, answers, self._speakers)
        hits = answers == self._truth
        if self._reference is None:
            self._reference = hits
        delta, error = recall_difference(hits, self._reference, self._truth, self._speakers)
        return {
            "condition": str(self._condition),
            "ua": round(scores.ua.value, 4),
            "ua_low": round(scores.ua.low, 4),
            "ua_high": round(scores.ua.high, 4),
            "ua_delta": round(delta, 4),
            "ua_delta_se": round(error, 4),
            "ua_by": self.judge.by,
            "ua_corpus": self._name,
            "ua_utterances": scores.n,
            "ua_kbps": round(self._kbps(arrived), 4),
        }

    def _arrived(self, transport: Transport) -> list[Arrived]:
        """With its words where a network reads words: recognising them takes most of the time."""
        if {"words", "context"}.intersection(self.judge.network.modalities):
            return self._transcriber.send(transport, self._utterances, "emotions, words")
        payloads = (transport.encode(utterance.waveform) for utterance in self._utterances)
        return [Arrived("", len(payload), transport.elementary_bytes(payload)) for payload in payloads]

    def _kbps(self, arrived: Sequence[Arrived]) -> float:
        seconds = sum(utterance.seconds for utterance in self._utterances)
        return 8 * sum(each.elementary_bytes for each in arrived) / seconds / 1000

    def _probabilities(self, transport: Transport, texts: Sequence[str | None]) -> NDArray[np.float32]:
        """(n, classes), kept on disk as the texts are; None for the voice alone."""
        encoders = [fingerprint(self._recipe.recogniser), self._extractor.fingerprints]
        encoders.append(source_digest(*NETWORKS, *SPEECH_FEATURES, *TEXT_FEATURES))
        keys = [
            key_of(
                "emotion",
                utterance.digest,
                identity(transport),
                text,
                self.judge.digest,
                encoders,
            )
            for utterance, text in zip(self._utterances, texts, strict=True)
        ]
        kept = self._transcriber.kept
        values = kept.read(keys)
        missing = [position for position, key in enumerate(keys) if key not in values]
        for group in progress(missing, f"emotions, {transport.name}:{transport.setting}"):
            new = {keys[position]: self._judged(transport, position, texts[position]) for position in group}
            kept.write(new)
            values |= new
        return np.array([values[key] for key in keys], np.float32)

    def _judged(self, transport: Transport, position: int, text: str | None) -> list[float]:
        utterance, record = self._utterances[position], self.records[position]
        mel = rebuilt(transport, utterance, transport.encode(utterance.waveform))
        words = text or ""
        if words not in self._texts:
            self._texts |= self._extractor.extract([words])
        pair = self._texts[words]
        features = UtteranceFeatures(mel.values, pair.words, pair.context, self._voice.encode(mel))
        if text is None or record.language not in (None, *self._recipe.text_languages):
            features = voice_alone(features)
        probabilities: list[float] = predict(self.judge.network, [features], self.judge.temperature)[0].tolist()
        return probabilities
