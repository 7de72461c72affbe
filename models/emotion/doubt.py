"""When an emotion should not be acted upon: reasons beside its probability.

The network has an answer for anything. For a scrap without words, for noise, singing or a language that it never heard,
its probabilities are not calibrated, however high.
"""

from __future__ import annotations

import re
from typing import Final

from amser.features import FRAMES_PER_SECOND, trim_pauses
from models.messages import Doubt, Mel, Transcript

MINIMUM_SURE_SECONDS: Final = 1.0  # of speech, see `speech_seconds`
# What recognisers write for sounds: [Music], (laughs), *sighs*, and song between notes
_SOUNDS: Final = re.compile(r"\[[^\]]*\]?|\([^)]*\)?|\*[^*]*\*|♪[^♪]*♪?")
_WORD: Final = re.compile(r"[^\W_]")


def doubts_about(
    confidence: float,
    mel: Mel,
    transcript: Transcript | None,
    *,
    sure_from: float,
    voice_languages: tuple[str, ...],
) -> tuple[Doubt, ...]:
    """Every reason not to act on a label, in the order of `Doubt`.

    Args:
        confidence: probability of the label.
        mel: the speech.
        transcript: of the recogniser; None where it did not run, which raises no doubt.
        sure_from: confidence from which there is no `low_confidence`.
        voice_languages: ISO 639-1 codes that the voice was taught; empty where that is not known, which raises no
            doubt.
    """
    speech = None if transcript is None else transcript.speech
    spoken = None if speech == "none" else transcript  # where nobody speaks, words and language mean nothing
    raised: dict[Doubt, bool] = {
        "low_confidence": confidence < sure_from,
        "short": speech_seconds(mel) < MINIMUM_SURE_SECONDS,
        "no_speech": speech == "none",
        "doubtful_speech": speech == "doubtful",
        "no_words": spoken is not None and not has_words(spoken.text),
        "language": spoken is not None and bool(voice_languages) and spoken.language not in voice_languages,
    }
    return tuple(doubt for doubt, holds in raised.items() if holds)


def speech_seconds(mel: Mel) -> float:
    """Seconds from the beginning to the end of the speech, as `trim_pauses` finds them."""
    return float(trim_pauses(mel.values).shape[1] / FRAMES_PER_SECOND)


def has_words(text: str) -> bool:
    """Whether a recogniser's text holds a word beside descriptions of sounds."""
    return _WORD.search(_SOUNDS.sub(" ", text)) is not None
