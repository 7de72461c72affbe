"""The judge of speech, fitted: on speakers, sounds and codecs that did not teach the weights.

Each item is decoded as in service. Speech of which the text is wrong through and through says nothing about either side
and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

import jiwer
import numpy as np
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from whisper.normalizers import BasicTextNormalizer

from amser.features import Float32
from models.messages import Mel
from models.whisper.judge import Evidence, Judge
from models.whisper.recognizer import WhisperRecognizer
from training.corpora.manifest import ManifestError
from training.data.extraction import CodecSetting, compressed_mel
from training.short_context.clips import Clip, waveform_of
from training.short_context.samples import mixed
from training.short_context.sounds import sound

CODECS: Final = ("none", "klt:standard", "klt:low", "svd-f16:0.125")
NOISY: Final = 0.4  # share of the speech that has a sound behind it
UNHINTED: Final = 0.5  # share that is decoded without a language
WRONG: Final = 0.8  # word error rate from which a text is not of what is said
LOST_SPEECH: Final = 0.002  # share of the speech that may be judged to be none
FALSE_SPEECH: Final = 0.003  # share of the sounds that may be judged to be speech
STRENGTH: Final = 1.0  # of the regression's regularisation, inverse

Item = tuple[Mel, str | None]  # with the text that is said; None for a sound


def items_of(
    clips: Sequence[Clip], texts: Sequence[str], recordings: Sequence[Path], sounds: int, draw: np.random.Generator
) -> list[Item]:
    """What is judged: each clip once, and so many sounds.

    Args:
        clips: of speakers that did not teach.
        texts: what is said in them, or what the teacher writes.
        recordings: sounds that did not teach.
        sounds: how many are drawn.
        draw: of codecs, noise and sounds.
    """
    items: list[Item] = []
    for clip, text in zip(clips, texts, strict=True):
        waveform = waveform_of(clip)
        if draw.random() < NOISY:
            waveform = mixed(draw, waveform, recordings, often=1.0)
        items.append((_compressed(draw, waveform, clip.language), text))
    items += [(_compressed(draw, sound(draw, recordings), "en"), None) for _ in range(sounds)]
    return items


def _compressed(draw: np.random.Generator, waveform: Float32, language: str) -> Mel:
    codec = CodecSetting.parse(CODECS[draw.integers(len(CODECS))])
    return compressed_mel(waveform, codec, None if draw.random() < UNHINTED else language)


def fit_judge(recognizer: WhisperRecognizer, items: Sequence[Item]) -> Judge:
    """A judge for the weights of a recogniser, whose own judge does not matter.

    Raises:
        ManifestError: there are no sounds, or no speech whose text is right.
    """
    rows, labels = [], []
    for mel, text in track(items, "what the judge sees"):
        heard = recognizer.hear([mel], "short")[0]
        if text is not None and _errors(text, heard.decoded.text) > WRONG:
            continue
        rows.append(list(asdict(heard.evidence).values()))
        labels.append(text is not None)
    if len(set(labels)) < 2:
        raise ManifestError("the weights write no text of speech well enough, so no judge can be fitted")
    signs, said = np.array(rows), np.array(labels)
    scale = signs.std(axis=0) + 1e-6
    regression = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000).fit(signs / scale, said)
    names = [field.name for field in fields(Evidence)]
    weights = dict(zip(names, (regression.coef_[0] / scale).round(4).tolist(), strict=True))
    judge = Judge(weights, round(float(regression.intercept_[0]), 4), 0.5, 0.5)
    scores = np.array([judge.probability(Evidence(*row)) for row in rows])
    edges = sorted((float(np.quantile(scores[said], LOST_SPEECH)), float(np.quantile(scores[~said], 1 - FALSE_SPEECH))))
    return Judge(judge.weights, judge.bias, round(edges[0], 4), round(edges[1], 4))


def _errors(text: str, written: str) -> float:
    normalize = BasicTextNormalizer()
    reference = normalize(text).strip()
    return float(jiwer.wer(reference, normalize(written))) if reference else 1.0
