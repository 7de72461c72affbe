"""Sentences spoken by a synthetic voice that is always calm: what is recognised, and how the words move the emotion."""

from __future__ import annotations

import re

import jiwer
import pytest
from recordings import mel_of
from synthetic_voice import say

from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.emotion.classifier import EmotionClassifier
from models.messages import Emotion, TextFeatures, Transcript
from models.text.context_encoder import ContextEncoder
from models.text.word_vectors import WordVectors
from models.weights import model_path
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder

SENTENCES = {
    "happy": "I love this so much, it is the best day of my life, thank you!",
    "angry": "I hate you, you are a stupid idiot, shut up and get lost!",
    "sad": "I miss my mother, I have been crying since she died.",
    "fear": "I am so scared, I am terrified that he will come back.",
    "surprise": "Wow, I had no idea, I cannot believe that this happened!",
    "neutral": "The train to the city leaves at ten from the second platform.",
}
ERRORS = 0.2  # of the words, at most: the voice is clear


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[Transcript, Emotion]]:
    """What the pipeline's models make of each sentence, one after another as in service."""
    whisper = model_path("whisper-base-short")
    recognizer, voice = WhisperRecognizer(CTranslate2Engine(whisper)), VoiceEncoder(whisper)
    words = WordVectors(model_path("spacy-en-core-web-md"))
    context = ContextEncoder(model_path("all-minilm-l6-v2"))
    classifier = EmotionClassifier(DEFAULT_CHECKPOINT, None)
    recognised = {}
    for name, sentence in SENTENCES.items():
        mel = mel_of(say(sentence))
        (transcript,) = recognizer.transcribe([mel])
        text = transcript.text
        text_features = TextFeatures(transcript.language, words.embed(text), context.encode([text])[0])
        emotion = classifier.classify(mel, voice.encode(mel), text_features)
        recognised[name] = (transcript, emotion)
    return recognised


@pytest.mark.parametrize("name", SENTENCES)
def test_a_spoken_sentence_is_written_down(answers: dict[str, tuple[Transcript, Emotion]], name: str) -> None:
    plain = [re.sub(r"[^a-z ]", "", text.lower()) for text in (SENTENCES[name], answers[name][0].text)]
    assert jiwer.wer(*plain) <= ERRORS


def test_words_that_say_an_emotion_make_it_likelier(answers: dict[str, tuple[Transcript, Emotion]]) -> None:
    uninformative = answers["neutral"][1].probabilities
    likelier = {name: answers[name][1].probabilities[name] - uninformative[name] for name in SENTENCES}
    assert sum(gain > 0 for name, gain in likelier.items() if name != "neutral") >= 4, likelier


def test_probabilities_sum_to_one(answers: dict[str, tuple[Transcript, Emotion]]) -> None:
    for _, emotion in answers.values():
        assert sum(emotion.probabilities.values()) == pytest.approx(1)
