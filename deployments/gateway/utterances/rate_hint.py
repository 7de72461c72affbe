"""Which quantiser step to ask of a device for its next utterances, from how certain the recogniser was of this one."""

from __future__ import annotations

from amser.rate_hint import RateHint, Reason
from deployments.settings import RateHintSettings
from models.messages import Transcript


def rate_hint(step: int | None, transcript: Transcript | None, settings: RateHintSettings) -> RateHint | None:
    """What the header `Amser-Rate-Hint` of an answer says; None for no header.

    A finer step where somebody speaks, but the recogniser was in doubt or found no words: at a coarse step, noise hides
    them. A coarser one where it was certain. In between, at the bounds, and where it is not sure that anybody speaks,
    none: a finer step makes no words of noise.

    Args:
        step: index of the `klt` payload; None for another codec.
        transcript: of the same utterance; None where no words were recognised.
        settings: where doubt begins and certainty ends, and by how much to change.
    """
    if step is None or transcript is None or transcript.speech != "yes" or not settings.enabled:
        return None
    words, sure = transcript.text.split(), transcript.average_log_probability
    if not words or sure < settings.doubtful_below:
        finer = min(max(settings.finest, step - settings.finer_by), settings.coarsest)
        return RateHint(finer, Reason.NOISE) if finer < step else None
    if sure >= settings.certain_from and len(words) >= settings.fewest_words:
        coarser = max(min(settings.coarsest, step + settings.coarser_by), settings.finest)
        return RateHint(coarser, Reason.CLEAR) if coarser > step else None
    return None
