"""Whether somebody speaks: one judge, on all that the recogniser knows of an utterance and its text.

No single sign is enough: a decoder scores a loop highly, a short word low, and its no-speech token is likely behind
any short clip. The signs are weighed together by a logistic regression that is fitted on some voices and sounds and
reported on others (`training.short_context`); its numbers stand in a file beside the weights that they belong to.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from models.messages import Speech
from models.whisper.engine import MAXIMUM_TOKENS, Decoded

FILE: Final = "speech.json"  # in a model's folder
OF_OTHER_WEIGHTS: Final = Path(__file__).with_name(FILE)  # for weights that bring none

MOST_TOKENS_PER_SECOND: Final = 25.0
FEWEST_MOST_TOKENS: Final = 10
LONGEST_LOOP: Final = 24  # tokens that are said again
FEWEST_REPEATS: Final = 3
SHORTEST_LOOPING: Final = 8  # tokens in all the repeats: "no, no, no" may be meant
FASTEST_REPEATS: Final = 9.0  # tokens a second that somebody may speak who says the same thing over and over
LEAST_PROBABILITY: Final = 1e-4  # a logit of it is taken


@dataclass(frozen=True, slots=True)
class Evidence:
    """The signs, each of about the same size.

    Attributes:
        no_speech: logit of the no-speech token's probability, a quarter of it.
        log_probability: average of the text's tokens.
        tokens: logarithm of one and their number.
        rate: tokens a second, a tenth of it.
        compression: bytes of the text over its bytes after DEFLATE.
        seconds: logarithm of the duration.
        language: probability of the likeliest language.
        empty: 1 where the text is.
        lost: 1 where the text has no end, or loops faster than one speaks.
    """

    no_speech: float
    log_probability: float
    tokens: float
    rate: float
    compression: float
    seconds: float
    language: float
    empty: float
    lost: float

    @classmethod
    def of(cls, decoded: Decoded, seconds: float, language: float) -> Evidence:
        """Of a decoded text, the duration of the utterance and the probability of its likeliest language."""
        text = decoded.text.encode()
        return cls(
            no_speech=_logit(decoded.no_speech_probability) / 4,
            log_probability=max(-4.0, decoded.average_log_probability),
            tokens=math.log1p(len(decoded.tokens)),
            rate=min(3.0, len(decoded.tokens) / max(seconds, 0.1) / 10),
            compression=len(text) / len(zlib.compress(text)) if text else 0.0,
            seconds=math.log(max(seconds, 0.1)),
            language=language,
            empty=float(not decoded.text),
            lost=float(is_lost(decoded, seconds)),
        )


@dataclass(frozen=True, slots=True)
class Judge:
    """A logistic regression over `Evidence`, and what its probabilities mean.

    Attributes:
        weights: by the name of the sign.
        bias: of the sum.
        none_below: probability under which nobody speaks.
        yes_from: probability from which somebody does; between the two it is doubtful.
    """

    weights: dict[str, float]
    bias: float
    none_below: float
    yes_from: float

    @classmethod
    def read(cls, model: Path) -> Judge:
        """The judge of the weights in a folder; raises ValueError where its file is not one."""
        file = model / FILE
        content = json.loads((file if file.is_file() else OF_OTHER_WEIGHTS).read_text())["judge"]
        judge = cls(**content)
        if set(judge.weights) != {field.name for field in fields(Evidence)}:
            raise ValueError(f"{file}: its weights are not those of the evidence")
        return judge

    def probability(self, evidence: Evidence) -> float:
        """That somebody speaks and the text is of what is said."""
        total = self.bias + sum(weight * getattr(evidence, name) for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, total))))

    def speech(self, probability: float) -> Speech:
        """In words."""
        if probability < self.none_below:
            return "none"
        return "yes" if probability >= self.yes_from else "doubtful"


def hears_short(model: Path) -> bool:
    """Whether the weights in a folder have learnt to decode from the speech alone."""
    file = model / FILE
    return file.is_file() and bool(json.loads(file.read_text())["hears_short"])


def most_tokens(seconds: float) -> int:
    """Tokens after which a text has no end."""
    return min(MAXIMUM_TOKENS, math.ceil(FEWEST_MOST_TOKENS + MOST_TOKENS_PER_SECOND * seconds))


def loops(tokens: Sequence[int]) -> bool:
    """Whether a text ends by saying the same thing over and over, as a decoder does that has lost the speech."""
    for length in range(1, LONGEST_LOOP + 1):
        repeats = max(FEWEST_REPEATS, math.ceil(SHORTEST_LOOPING / length))
        tail = tuple(tokens[-length * repeats :])
        if len(tail) == length * repeats and tail == tail[:length] * repeats:
            return True
    return False


def is_lost(decoded: Decoded, seconds: float) -> bool:
    """Whether a text has no end, or repeats itself faster than one speaks: what is said eight times is no loop."""
    many = len(decoded.tokens)
    return many >= most_tokens(seconds) or (loops(decoded.tokens) and many > FASTEST_REPEATS * max(seconds, 1.0))


def _logit(probability: float) -> float:
    bounded = min(1 - LEAST_PROBABILITY, max(LEAST_PROBABILITY, probability))
    return math.log(bounded / (1 - bounded))
