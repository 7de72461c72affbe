"""What the cluster made of an utterance or of a recording → what OpenAI's documents are made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from amser.audio import AudioWarning
from deployments.gateway.openai.documents import NOBODY, EmotionField, Piece, SpokenWord, Transcribed
from deployments.gateway.problems import Refusal, refusal_of
from deployments.gateway.problems.catalogue import KINDS, LATER
from deployments.gateway.recordings.documents import RecordingAnswer, Segment
from deployments.pipeline import Recognition
from models.messages import Emotion, Speech

RETRY_AFTER_S: Final = 1
SPEECH: Final[tuple[Speech, ...]] = ("yes", "doubtful")  # the surest first


def of_utterance(recognition: Recognition, warnings: Sequence[AudioWarning]) -> Transcribed:
    """An utterance, as a recording of one piece.

    Raises:
        Refusal: there was no time for the words.
    """
    transcript, seconds = recognition.transcript, recognition.mel.seconds
    if transcript is None:
        raise _without_words()
    emotion = emotion_field(recognition.emotion)
    certainty, silence = transcript.average_log_probability, 1 - transcript.speech_probability
    words = tuple(SpokenWord(each.text, each.start, each.end, each.confidence) for each in transcript.words)
    piece = Piece(0.0, seconds, transcript.text, certainty, silence, emotion, words)
    return Transcribed(
        text=transcript.text,
        seconds=seconds,
        language=transcript.language,
        pieces=() if transcript.speech == "none" else (piece,),
        emotion=emotion,
        speech=transcript.speech,
        degraded=recognition.left_out,
        warnings=(*transcript.warnings, *warnings),
    )


def of_recording(answer: RecordingAnswer) -> Transcribed:
    """A recording; the whole is sure of its emotion where most of what is heard is sure of it.

    Raises:
        Refusal: a segment has no words, since it failed or there was no time.
    """
    for segment in answer.segments:
        if problem := segment.problem:
            slug = problem.type.rpartition("/")[2]
            later = RETRY_AFTER_S if KINDS[slug].again == LATER else None
            raise refusal_of(slug, problem.detail, problem.limit, later)
        if "asr" in segment.degraded:
            raise _without_words()
    heard = [segment for segment in answer.segments if segment.emotion is not None]
    sure_s = sum(each.seconds for each in heard if not each.uncertain and each.emotion == answer.emotion)
    doubts = dict.fromkeys(doubt for each in heard for doubt in each.doubts)
    uncertain = 2 * sure_s < sum(each.seconds for each in heard)
    emotion = EmotionField(
        label=answer.emotion,
        confidence=answer.confidence,
        uncertain=uncertain,
        doubts=list(doubts) if uncertain else [],
        probabilities=answer.probabilities,
    )
    return Transcribed(
        text=answer.text,
        seconds=answer.seconds,
        language=answer.language,
        pieces=tuple(map(_piece, heard)),
        emotion=emotion if heard else NOBODY,
        speech=next((each for each in SPEECH if any(segment.speech == each for segment in heard)), "none"),
        degraded=tuple(dict.fromkeys(name for segment in answer.segments for name in segment.degraded)),
        warnings=tuple(answer.warnings),
    )


def _piece(segment: Segment) -> Piece:
    emotion = EmotionField(
        label=segment.emotion,
        confidence=segment.confidence,
        uncertain=segment.uncertain,
        doubts=segment.doubts,
        probabilities=segment.probabilities,
    )
    silence = 0.0 if segment.speech_probability is None else 1 - segment.speech_probability
    words, at = [], 0
    for each in segment.words or ():  # without the blanks before them, which stand in the text
        found = max(at, segment.text.find(each.text, at))
        words.append(SpokenWord(segment.text[at:found] + each.text, each.start, each.end, each.confidence))
        at = found + len(each.text)
    return Piece(
        segment.start, segment.end, segment.text, segment.average_log_probability, silence, emotion, tuple(words)
    )


def _without_words() -> Refusal:
    """The emotion alone is no transcription."""
    cause = "there was no time for the words, or the recogniser is not available at the moment"
    return refusal_of("overloaded", cause, retry_after_s=RETRY_AFTER_S)


def emotion_field(emotion: Emotion | None) -> EmotionField:
    """The extension of ours, of what the network says; None where nobody speaks."""
    if emotion is None:
        return NOBODY
    return EmotionField(
        label=emotion.label,
        confidence=round(emotion.confidence, 4),
        uncertain=emotion.uncertain,
        doubts=list(emotion.doubts),
        probabilities={name: round(value, 4) for name, value in emotion.probabilities.items()},
    )
