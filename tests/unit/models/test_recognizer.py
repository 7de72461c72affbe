"""The recogniser writes down what was said, whichever engine runs it and however little of it is encoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path

import jiwer
import numpy as np
import pytest
import torch
from recordings import Waveform, hum, mel_of, noise, rows, silence, speakers, waveform_of
from synthetic_voice import say
from whisper.normalizers import EnglishTextNormalizer

from amser.features import SAMPLE_RATE, trim_pauses
from models.messages import Mel, Transcript
from models.weights import model_path
from models.whisper.arrays import read_arrays
from models.whisper.conversion import load_audio_encoder
from models.whisper.ctranslate2_engine import CTranslate2Engine
from models.whisper.engine import LOWER_LAYERS
from models.whisper.openai_engine import OpenAIEngine
from models.whisper.recognizer import WhisperRecognizer
from models.whisper.voice import VoiceEncoder, pool_states

CLIPS = 4
ONE_WORD_IN_TWENTY = 0.05  # 8-bit integers round otherwise in a batch: a word of a difficult clip may turn
SHORT_SENTENCES = ("Kids are talking by the door.", "Dogs are sitting by the door.")
FIRST_SECONDS = {"3242": "the big one", "3526": "a man with a", "5789": "the question"}  # by speaker
SILENT_NOISES = ("rain", "sea_waves", "clock_tick", "helicopter", "chainsaw", "fire_crackling", "dog_bark", "baby_cry")


@pytest.fixture(scope="module")
def model() -> Path:
    return model_path("whisper-base-short")


@pytest.fixture(scope="module")
def exact(model: Path) -> CTranslate2Engine:
    """CTranslate2 without 8-bit integers."""
    return CTranslate2Engine(model, compute_type="float32")


@pytest.fixture(scope="module")
def reference(model: Path) -> OpenAIEngine:
    return OpenAIEngine(model)


@pytest.fixture(scope="module")
def engine(model: Path) -> CTranslate2Engine:
    """As it is served."""
    return CTranslate2Engine(model)


@pytest.fixture(scope="module")
def voice(model: Path) -> VoiceEncoder:
    return VoiceEncoder(model)


@pytest.fixture(scope="module")
def recognizer(engine: CTranslate2Engine) -> WhisperRecognizer:
    return WhisperRecognizer(engine)


@pytest.fixture(scope="module")
def mels() -> list[Mel]:
    """Read English of as many speakers."""
    return [mel_of(waveform_of(row["path"])) for row in speakers(CLIPS)]


def words(text: str) -> list[str]:
    return re.sub(r"[^\w' ]", "", text.lower()).split()


def text_of(recognizer: WhisperRecognizer, mel: Mel) -> str:
    return recognizer.transcribe([mel])[0].text


def joined(transcripts: list[Transcript]) -> str:
    return " ".join(transcript.text for transcript in transcripts)


def errors_in(text: str, reference: str) -> float:
    """Word error rate, after Whisper's own normaliser: "seven" is 7."""
    normalize = EnglishTextNormalizer()
    return float(jiwer.wer(normalize(reference), normalize(text)))


def test_both_engines_write_the_same_words(exact: CTranslate2Engine, reference: OpenAIEngine, mels: list[Mel]) -> None:
    one, other = (WhisperRecognizer(engine).transcribe(mels) for engine in (exact, reference))
    assert [transcript.text for transcript in one] == [transcript.text for transcript in other]
    assert all(transcript.text for transcript in one)


def test_both_engines_find_a_text_as_probable(
    exact: CTranslate2Engine, reference: OpenAIEngine, mels: list[Mel]
) -> None:
    """Measured: at most 2e-6 apart."""
    one, other = (WhisperRecognizer(engine).transcribe([mels[0]])[0] for engine in (exact, reference))
    assert one.average_log_probability == pytest.approx(other.average_log_probability, abs=1e-3)


def test_both_engines_find_the_same_silence(exact: CTranslate2Engine, reference: OpenAIEngine) -> None:
    for engine in (exact, reference):
        assert text_of(WhisperRecognizer(engine), mel_of(noise(2))) == ""


def test_both_engines_detect_the_same_language(exact: CTranslate2Engine, reference: OpenAIEngine) -> None:
    waveform = waveform_of(speakers(1)[0]["path"])
    for engine in (exact, reference):
        assert WhisperRecognizer(engine).transcribe([mel_of(waveform, language=None)])[0].language == "en"


def test_both_engines_encode_to_the_same_states(
    exact: CTranslate2Engine, reference: OpenAIEngine, mels: list[Mel]
) -> None:
    """Measured: at most 9e-4 apart, where states are up to some 100 large."""
    for mel in mels:
        log_mel = mel.values[:, : mel.frames // 2 * 2].astype(np.float32)
        ours, theirs = exact.encode(log_mel).states, reference.encode(log_mel).states
        assert ours.shape == theirs.shape == (mel.frames // 2, 512)
        difference = np.abs(ours - theirs)
        assert difference.max() < 1e-2
        assert difference.mean() < 1e-3


def test_what_is_written_is_what_was_read_out(recognizer: WhisperRecognizer, mels: list[Mel]) -> None:
    said = " ".join(row["text"] for row in speakers(CLIPS))
    assert errors_in(joined(recognizer.transcribe(mels)), said) < 0.15


def test_a_short_context_gives_the_words_of_the_padded_one(
    engine: CTranslate2Engine, recognizer: WhisperRecognizer, mels: list[Mel]
) -> None:
    short, padded = recognizer.transcribe(mels), WhisperRecognizer(engine, "padded").transcribe(mels)
    assert errors_in(joined(short), joined(padded)) < ONE_WORD_IN_TWENTY


def test_short_sentences_are_not_said_over_and_over(recognizer: WhisperRecognizer) -> None:
    """Without the silence that fills the context the decoder loops on each of these."""
    closed = speakers(1)[0]
    after_a_pause = np.concatenate([silence(1), waveform_of(closed["path"])])
    short = {sentence: say(sentence) for sentence in SHORT_SENTENCES} | {closed["text"]: after_a_pause}
    for sentence, waveform in short.items():
        recognised = words(text_of(recognizer, mel_of(waveform)))
        assert len(recognised) <= len(words(sentence)) + 2
        assert errors_in(" ".join(recognised), sentence) <= 0.34


@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("sound", [silence, noise, hum], ids=["silence", "white noise", "hum"])
def test_nothing_is_invented_where_nothing_is_said(
    recognizer: WhisperRecognizer, sound: Callable[[float], Waveform], seconds: float
) -> None:
    (transcript,) = recognizer.transcribe([mel_of(sound(seconds))])
    assert transcript.text == ""
    assert transcript.average_log_probability == 0.0


def test_nothing_is_recognised_in_the_noises_of_the_world(recognizer: WhisperRecognizer) -> None:
    first = {row["label"]: row["path"] for row in reversed(rows("noise/esc10.tsv")) if row["label"] in SILENT_NOISES}
    assert len(first) == len(SILENT_NOISES)
    recognised = {label: text_of(recognizer, mel_of(waveform_of(path))) for label, path in first.items()}
    assert recognised == dict.fromkeys(recognised, "")


@pytest.mark.parametrize(("speaker", "beginning"), FIRST_SECONDS.items())
def test_a_second_of_speech_is_enough(recognizer: WhisperRecognizer, speaker: str, beginning: str) -> None:
    (row,) = [row for row in rows("speech/librispeech.tsv") if row["speaker"] == speaker]
    assert row["text"].lower().startswith(beginning)
    recognised = words(text_of(recognizer, mel_of(waveform_of(row["path"])[:SAMPLE_RATE])))
    assert " ".join(recognised).startswith(beginning)


def test_a_batch_of_different_lengths_equals_one_at_a_time(recognizer: WhisperRecognizer, mels: list[Mel]) -> None:
    several = [*mels, mel_of(silence(1)), mel_of(say(SHORT_SENTENCES[0]))]
    together = recognizer.transcribe(several)
    alone = [recognizer.transcribe([mel])[0] for mel in several]
    assert errors_in(joined(together), joined(alone)) < ONE_WORD_IN_TWENTY
    for one, other in zip(together, alone, strict=True):
        assert bool(one.text) == bool(other.text)


def test_no_utterances_are_no_transcripts(recognizer: WhisperRecognizer) -> None:
    assert recognizer.transcribe([]) == []


def test_the_language_that_is_given_is_used(recognizer: WhisperRecognizer) -> None:
    waveform = waveform_of("cases/german.ogg")
    german, english = recognizer.transcribe([mel_of(waveform, "de"), mel_of(waveform, "en")])
    assert (german.language, english.language) == ("de", "en")
    assert words(german.text)
    assert words(german.text) != words(english.text)


@pytest.mark.parametrize("language", ["de", "en", "es"])
def test_the_language_is_detected(recognizer: WhisperRecognizer, language: str) -> None:
    row = next(row for row in rows("cases.tsv") if row["language"] == language)
    (transcript,) = recognizer.transcribe([mel_of(waveform_of(row["path"]), None)])
    assert transcript.language == language
    assert errors_in(transcript.text, row["text"]) < 0.2


@pytest.mark.parametrize("seconds", [0.1, 0.5, 0.51, 1.0, 2.99, 3.0])
def test_there_is_a_row_of_states_for_each_80_ms_between_the_pauses(voice: VoiceEncoder, seconds: float) -> None:
    mel = mel_of(waveform_of(speakers(1)[0]["path"])[: round(seconds * SAMPLE_RATE)])
    states = voice.encode(mel)
    assert states.shape == (ceil(trim_pauses(mel.values).shape[1] / 8), 1536)
    assert states.dtype == np.float16


def test_pauses_around_speech_never_change_its_states(voice: VoiceEncoder, mels: list[Mel]) -> None:
    mel = mels[0]
    pause = np.full((80, 123), mel.silence, np.float16)
    paused = replace(mel, values=np.concatenate((pause, trim_pauses(mel.values), pause), axis=1))
    around = paused.values[:, 113:-113]  # of each pause a tenth of a second is kept
    np.testing.assert_array_equal(voice.encode(paused), voice.encode(replace(mel, values=around)))


def test_the_states_are_those_of_the_first_layers_of_whisper(voice: VoiceEncoder, model: Path) -> None:
    """On 30 s without pauses, the only length that Whisper's own encoder takes."""
    mel = mel_of(noise(30))
    assert trim_pauses(mel.values).shape == (80, 3000)
    encoder = load_audio_encoder(model)
    seen: list[torch.Tensor] = []
    for block in encoder.blocks[:LOWER_LAYERS]:
        block.register_forward_hook(lambda *arguments: seen.append(arguments[2][0]))
    with torch.inference_mode():
        encoder(torch.from_numpy(mel.values[None].astype(np.float32)))
    expected = torch.cat(seen, 1).unflatten(0, (-1, 4)).mean(1).numpy()
    np.testing.assert_allclose(voice.encode(mel), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("bands", "frames"), [(80, 3001), (128, 300), (79, 300)])
def test_a_mel_of_other_sizes_is_refused(recognizer: WhisperRecognizer, bands: int, frames: int) -> None:
    mel = Mel(np.zeros((bands, frames), np.float16), -1.5, frames / 100, "en", "none", None)
    with pytest.raises(ValueError, match=rf"{bands} bands and {frames} frames.*80 bands and up to 3000"):
        recognizer.transcribe([mel])


@pytest.mark.parametrize("count", [1, 3, 4, 5, 24, 149])
def test_pooling_is_the_mean_of_every_four_states(count: int) -> None:
    states = np.random.default_rng(count).standard_normal((count, 7)).astype(np.float32)
    means = [states[start : start + 4].mean(axis=0) for start in range(0, count, 4)]
    pooled = pool_states(states)
    assert pooled.dtype == np.float16
    np.testing.assert_allclose(pooled, np.stack(means), atol=1e-3)


def test_a_file_that_is_no_whisper_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    name = b"TransformerSpec\0"
    file.write_bytes(struct.pack("<IH", 6, len(name)) + name + bytes(100))
    with pytest.raises(ValueError, match="'TransformerSpec'.*expected a WhisperSpec"):
        read_arrays(file)


def test_the_arrays_of_the_model_have_its_sizes(model: Path) -> None:
    arrays = read_arrays(model / "model.bin")
    assert arrays["encoder/conv1/weight"].shape == (512, 80, 3)
    assert arrays["decoder/embeddings/weight"].shape == (51865, 512)
