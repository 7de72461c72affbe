"""Single words, numbers, spelled words and code words, spoken by a synthetic voice: short speech is rare in corpora."""

from __future__ import annotations

import hashlib
import importlib.metadata
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
from rich.progress import track

from amser.features import SAMPLE_RATE, resample
from training.corpora.manifest import ManifestError
from training.short_context.clips import Clip

CORPUS: Final = "spoken"
PACKAGE: Final = "hibari-tts"
SPEEDS: Final = (0.8, 1.3)  # slowest and fastest, of the voice's own pace
SHARES: Final = {"words": 0.45, "numbers": 0.2, "spelled": 0.1, "codes": 0.1, "phrases": 0.15}
COMMON: Final = (
    "yes no stop start continue cancel hello goodbye thanks please help open close next back play pause louder quieter "
    "left right up down on off home music news weather morning evening today tomorrow yesterday kitchen light lights "
    "door window alarm timer call message number repeat again maybe sure okay ready wait go come look listen run sorry"
)
CODES: Final = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey x-ray yankee zulu"
)
DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
UNITS: Final = ("", " dollars", " percent", " minutes", " degrees", " kilometers", " people", " o'clock")


def phrases(texts: Sequence[str], many: int, seed: int) -> list[str]:
    """What is to be spoken.

    Args:
        texts: transcripts: their words are the vocabulary, and their beginnings the short phrases.
        many: how many.
        seed: of the draw.
    """
    draw = random.Random(seed)
    counted = Counter(word for text in texts for word in re.findall(r"[a-z]{2,}", text.lower()))
    vocabulary = sorted(word for word, times in counted.items() if times >= 2)
    common, codes = COMMON.split(), CODES.split()
    makers: dict[str, Callable[[], str]] = {
        "words": lambda: draw.choice(vocabulary if draw.random() < 0.7 and vocabulary else common),
        "numbers": lambda: _number(draw),
        "spelled": lambda: ", ".join(draw.choice(vocabulary or common)[:6].upper()),
        "codes": lambda: " ".join(
            [*draw.choices(codes, k=draw.randint(1, 3)), *draw.choices(DIGITS, k=draw.randint(0, 2))]
        ),
        "phrases": lambda: " ".join(draw.choice(texts or common).lower().split()[: draw.randint(2, 5)]),
    }
    kinds = draw.choices(list(SHARES), list(SHARES.values()), k=many)
    return [_sentence(makers[kind]()) for kind in kinds]


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _number(draw: random.Random) -> str:
    if draw.random() < 0.3:
        return " ".join(draw.choices(DIGITS, k=draw.randint(3, 8)))
    tens = f"{draw.choice(TENS)} {draw.choice(DIGITS[1:])}"
    number = draw.choice([draw.choice(DIGITS), tens, f"{draw.choice(DIGITS[1:])} hundred", f"nineteen {tens}"])
    return number + draw.choice(UNITS)


def speak(texts: Sequence[str], folder: Path) -> list[Clip]:
    """A recording of each text, 16 kHz, in a file of its own; what is there is not spoken again.

    Raises:
        ManifestError: the synthetic voice is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clips = [_clip(text, number, folder) for number, text in enumerate(texts)]
    missing = [(clip, text) for clip, text in zip(clips, texts, strict=True) if not clip.path.is_file()]
    if missing:
        voice = _voice()
        for clip, text in track(missing, "spoken phrases"):
            draw = random.Random(clip.path.stem)
            samples = np.asarray(voice(text, speed=draw.uniform(*SPEEDS), seed=draw.randrange(2**31)), np.float32)
            soundfile.write(clip.path, resample(samples, voice.sample_rate), SAMPLE_RATE)
    return clips


def _clip(text: str, number: int, folder: Path) -> Clip:
    digest = hashlib.sha256(f"{number} {text}".encode()).hexdigest()[:20]
    return Clip(folder / f"{digest}.flac", CORPUS, "hibari", "en", 1, text)


def _voice() -> Any:
    try:
        importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ManifestError(
            f"short phrases are spoken by {PACKAGE}, which is not installed: pip install 'amser[train]'"
        ) from None
    import hibari  # only here: without spoken phrases it is not needed

    return hibari.Hibari()
