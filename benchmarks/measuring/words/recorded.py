"""Utterances of manifests: those of readers that nothing was learnt from, joined ones, and ones said twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from amser.features import SAMPLE_RATE, Float32
from benchmarks.measuring.command import CannotBegin
from benchmarks.measuring.manifest import PATH, Recording, read_manifest
from benchmarks.measuring.noise import CLEAN, Condition, Noise, mix
from benchmarks.measuring.words.utterance import Utterance, joined
from models.weights import cache_folder
from training.short_context.clips import Clip, read_clips, waveform_of
from training.short_context.languages import phrases_in_languages, speak_languages

SPEAKER: Final = "speaker"
GAPS: Final = (0.5, 1.0)  # seconds between two takes
PAUSES: Final = (0.3, 2.0)  # seconds between the clips of one reader
JOINED_SECONDS: Final = 28.0  # that joined clips last at most
TWICE_SECONDS: Final = 8.0  # that a clip which is said twice lasts at most
MOST_JOINED: Final = 3  # clips


def of_readers(manifest: Path, folds: Sequence[int], needs: Sequence[str] = (PATH, SPEAKER)) -> list[Utterance]:
    """The utterances of some folds of a manifest, of which the kind is the manifest's name.

    Args:
        manifest: with the columns path and speaker.
        folds: 1 to 5, as `training.short_context.clips` has them.
        needs: columns that it must have.

    Raises:
        ManifestError: it cannot be used.
        CannotBegin: nobody is in these folds.
    """
    recordings = {each.path: each for each in read_manifest(manifest, needs)}
    clips = [clip for clip in read_clips([manifest]) if clip.fold in folds]
    made = [_utterance(manifest.stem, recordings[clip.path], clip) for clip in clips]
    if not made:
        raise CannotBegin(f"{manifest}: nobody is in the folds {', '.join(map(str, folds))}; --readers names others")
    return made


def _utterance(kind: str, recording: Recording, clip: Clip) -> Utterance:
    waveform, text, name = recording.waveform, recording.text, recording.name
    return Utterance(kind, waveform, text, clip.speaker, clip.language, name=name)


def in_other_languages(many: int, seed: int, workers: int) -> list[Utterance]:
    """So many phrases in each language that taught nothing, of which the kind is the language.

    The voices are those that teach other languages, so each is a speaker that was heard before.

    Raises:
        ManifestError: a voice is not installed.
    """
    folder = cache_folder() / "short-context" / "languages"
    clips = speak_languages(phrases_in_languages(many, seed, left_out=True), folder, workers)
    return [
        Utterance(clip.language, partial(waveform_of, clip), clip.text or "", clip.path.stem, clip.language)
        for clip in clips
    ]


def in_noise(utterance: Utterance, condition: Condition, noise: Noise) -> Utterance:
    """The utterance in a condition; its name decides which noise it meets, and from where on."""
    if condition.kind == CLEAN:
        return utterance

    def load() -> Float32:
        clean = utterance.load()
        return mix(clean, noise(utterance.name, utterance.speaker, clean.size), condition.snr_db)

    return replace(utterance, load=load)


def clips_twice(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Each short clip in two equal takes, half a second or a second apart in turn."""
    made: list[Utterance] = []
    for utterance in utterances:
        if len(utterance.load()) <= TWICE_SECONDS * SAMPLE_RATE:
            gap = GAPS[len(made) % len(GAPS)]
            made.append(
                Utterance(
                    "clip twice",
                    partial(_twice, utterance, gap),
                    f"{utterance.text} {utterance.text}",
                    utterance.speaker,
                    utterance.language,
                    utterance.text,
                    2,
                )
            )
    return made


def joined_clips(utterances: Sequence[Utterance], seed: int) -> list[Utterance]:
    """Two or three clips of one reader, as far as they fit, with pauses of digital silence."""
    by_speaker: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_speaker[utterance.speaker].append(utterance)
    made = []
    for place, (speaker, own) in enumerate(sorted(by_speaker.items())):
        draw = np.random.default_rng((seed, place))
        waiting = [own[position] for position in draw.permutation(len(own))]
        while len(waiting) >= 2:
            together = [waiting.pop()]
            pauses: list[float] = []
            seconds = _seconds(together[0])
            while waiting and len(together) < MOST_JOINED:
                pause = float(draw.uniform(*PAUSES))
                seconds += pause + _seconds(waiting[-1])
                if seconds > JOINED_SECONDS:
                    break
                pauses.append(pause)
                together.append(waiting.pop())
            if pauses:
                text = " ".join(each.text for each in together)
                load = partial(_joined, together, pauses)
                made.append(Utterance("clips joined", load, text, speaker, together[0].language))
    return made


def _twice(utterance: Utterance, gap: float) -> Float32:
    return joined([utterance.load()] * 2, [gap])


def _joined(utterances: Sequence[Utterance], pauses: Sequence[float]) -> Float32:
    return joined([each.load() for each in utterances], pauses)


def _seconds(utterance: Utterance) -> float:
    return len(utterance.load()) / SAMPLE_RATE
