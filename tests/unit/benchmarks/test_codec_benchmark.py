"""What `benchmarks.codec` computes: noise at its ratio, standard errors, thresholds, rows; and one small real run."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import jiwer
import numpy as np
import pytest
import recordings

from amser.codecs.klt_tables import tables
from amser.features import SAMPLE_RATE, Float32
from benchmarks import codec
from benchmarks.codec import (
    blank_row,
    chosen_transports,
    conditions_of,
    exchange_bytes,
    measure_words,
    noises_of,
    without_speakers,
)
from benchmarks.measuring import codec_emotion, transmission
from benchmarks.measuring.bootstrap import (
    DRAWS,
    draws,
    per_cent,
    recall_difference,
    word_errors,
)
from benchmarks.measuring.codec_emotion import every_kth, find_judge
from benchmarks.measuring.codec_summary import (
    Threshold,
    lines,
    ratios,
    summary,
    threshold,
)
from benchmarks.measuring.command import CannotBegin
from benchmarks.measuring.manifest import Recording
from benchmarks.measuring.noise import (
    VOICES,
    Babble,
    Condition,
    Recordings,
    looped,
    mix,
)
from benchmarks.measuring.transmission import Kept, Transcriber, Utterance, identity
from benchmarks.plots.codec import plot
from edge_sim.protocol import ANSWER_BODY, ANSWER_HEADER, request_header
from edge_sim.transports import by_name
from models.emotion.checkpoint import load
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.messages import Mel, Transcript
from training.corpora.manifest import Corpus, Record
from training.data.texts import TextFeatureExtractor
from training.fitting.recipe import Recipe
from training.train import DEFAULT_RECIPE

SPEAKERS = [str(number) for number in range(9)]


def white(seconds: float, level: float, seed: int = 0) -> Float32:
    samples = np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE))
    return (level * samples).astype(np.float32)


def decibels(speech: Float32, noise: Float32) -> float:
    return float(10 * np.log10(np.square(speech, dtype=float).mean() / np.square(noise, dtype=float).mean()))


class Parrot:
    """Says as many words as the log-Mel has tenths of a second, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        self.asked += len(mels)
        return [Transcript(" ".join(["word"] * (mel.frames // 10)), "en", -0.1) for mel in mels]


def written(folder: Path, seconds: Sequence[float]) -> list[Recording]:
    """WAV files of noise in the place of speech, one a speaker."""
    speech = []
    for number, each in enumerate(seconds):
        path = folder / f"{number}.wav"
        path.write_bytes(by_name("pcm", "16-bit").encode(white(each, 0.05, number)))
        speech.append(Recording(path, path.name, "word " * int(10 * each), str(number), "en"))
    return speech


@pytest.mark.parametrize("snr_db", [10, 5, 0, -5])
def test_noise_is_at_the_ratio_that_was_asked_for(snr_db: int) -> None:
    speech, noise = white(2, 0.05), white(2, 0.3, seed=1)
    assert decibels(speech, mix(speech, noise, snr_db) - speech) == pytest.approx(snr_db, abs=0.01)


def test_what_would_be_clipped_is_made_quieter_as_a_whole() -> None:
    speech, noise = white(1, 0.5), white(1, 0.5, seed=1)
    mixed = mix(speech, noise, 0)
    assert np.abs(mixed).max() == pytest.approx(1)
    scale = float(mixed @ speech / (speech @ speech))
    assert decibels(scale * speech, mixed - scale * speech) == pytest.approx(0, abs=0.2)  # they hardly correlate


def test_silence_has_no_ratio() -> None:
    with pytest.raises(ValueError, match="silent"):
        mix(white(1, 0.1), np.zeros(SAMPLE_RATE, np.float32), 10)


def test_a_recording_that_is_too_short_begins_anew() -> None:
    assert looped(np.arange(3, dtype=np.float32), 7, 1).tolist() == [1, 2, 0, 1, 2, 0, 1]


def test_babble_is_six_others_and_never_the_speaker() -> None:
    babble = Babble({speaker: [Path(f"{speaker}-{n}.flac") for n in range(3)] for speaker in SPEAKERS})
    for speaker in SPEAKERS:
        for number in range(20):
            voices = babble.voices(f"{speaker}-{number}.flac", speaker)
            speakers = [name for name, _ in voices]
            assert len(set(speakers)) == VOICES
            assert speaker not in speakers
            assert all(path.name.startswith(f"{name}-") for name, path in voices)
            assert voices == babble.voices(f"{speaker}-{number}.flac", speaker)  # the same on every run
    assert babble.voices("a", "1") != babble.voices("b", "1")


def test_babble_needs_enough_others() -> None:
    with pytest.raises(ValueError, match="there are 5"):
        Babble({speaker: [Path("x")] for speaker in SPEAKERS[:6]}).voices("a", "0")
    with pytest.raises(ValueError, match="speaker"):
        Babble({speaker: [Path("x")] for speaker in SPEAKERS}).voices("a", None)


def test_all_voices_of_babble_are_equally_loud() -> None:
    levels = {Path(speaker): 0.001 * 2 ** int(speaker) for speaker in SPEAKERS}
    tones = {path: level * np.sin(np.arange(800) * (0.1 + 0.2 * n)) for n, (path, level) in enumerate(levels.items())}
    babble = Babble({str(path): [path] for path in levels}, lambda path: tones[path].astype(np.float32))
    mixture = babble("a", "0", 8000)
    assert np.square(mixture).mean() == pytest.approx(VOICES, rel=0.1)


def test_a_recording_is_mixed_without_its_padding(tmp_path: Path) -> None:
    file = tmp_path / "short.wav"
    sound = np.concatenate([np.zeros(8000, np.float32), white(0.2, 0.1), np.zeros(30_000, np.float32)])
    file.write_bytes(by_name("pcm", "16-bit").encode(sound))
    drawn = Recordings([file])("a", None, 2 * SAMPLE_RATE)
    assert drawn.size == 2 * SAMPLE_RATE
    assert all(np.square(part).mean() > 1e-3 for part in np.split(drawn, 10))


def test_conditions_are_read_as_they_are_written() -> None:
    for name in ("clean", "babble-10db", "noise-5db", "noise--5db"):
        assert str(Condition.parse(name)) == name
    for name in ("loud", "noise", "babble-xdb", "clean-5db"):
        with pytest.raises(ValueError, match="expected clean"):
            Condition.parse(name)


def spoken(speaker: str | None) -> Recording:
    return Recording(Path("x"), "x", "word", speaker, "en")


@pytest.mark.parametrize(
    ("speech", "why"),
    [
        ([spoken(None)], "the manifest does not say who speaks (column speaker)"),
        ([spoken(speaker) for speaker in SPEAKERS[:6]], "the manifest has 6 in all"),
    ],
)
def test_conditions_whose_noise_cannot_be_had_are_left_out_with_the_reason(speech: list[Recording], why: str) -> None:
    _, missing = noises_of(speech, None)
    conditions, remarks = conditions_of(None, missing)
    assert [str(each) for each in conditions] == ["clean"]
    babble, noise = remarks
    assert babble.startswith("left out: babble-10db: it is made of ")
    assert babble.endswith(why)
    assert noise == "left out: noise-5db: it needs recordings: --noise TSV, or noise/esc10.tsv in the folder AMSER_DATA"


def test_a_condition_that_is_asked_for_and_cannot_be_had_is_refused() -> None:
    _, missing = noises_of([spoken(None)], None)
    with pytest.raises(CannotBegin, match="--conditions babble-0db: it is made of other speakers"):
        conditions_of(["clean", "babble-0db"], missing)


def test_with_speakers_and_recordings_every_condition_is_measured() -> None:
    noises, missing = noises_of([spoken(speaker) for speaker in SPEAKERS], recordings.DATA / "noise" / "esc10.tsv")
    assert missing == {}
    assert noises["noise"]("x", None, SAMPLE_RATE).shape == (SAMPLE_RATE,)
    assert [str(each) for each in conditions_of(None, missing)[0]] == list(codec.CONDITIONS)


def test_word_errors_add_up_to_jiwers_rate() -> None:
    references = ["the cat sat on the mat", "a b c", "hello"]
    texts = ["the cat sat on mat", "a x c d", ""]
    errors, words = word_errors(references, texts)
    assert errors.tolist() == [1, 2, 1]
    assert words.tolist() == [6, 3, 1]
    assert per_cent(errors, words)[0] == pytest.approx(100 * jiwer.wer(references, texts))


def test_the_bootstrap_gives_the_error_that_theory_gives() -> None:
    errors, words = np.array([0, 4] * 50), np.full(100, 10)
    value, error = per_cent(errors, words)
    assert value == 20
    assert error == pytest.approx(100 * 0.2 / np.sqrt(100), rel=0.07)  # the deviation of 0 and 0.4 is 0.2
    assert draws(100).shape == (DRAWS, 100)
    assert (draws(100).sum(1) == 100).all()
    assert per_cent(errors, words) == (value, error)


def test_a_difference_that_is_the_same_everywhere_has_no_error() -> None:
    errors, words = np.array([0, 4] * 50), np.full(100, 10)
    worse = errors + 1
    assert per_cent(worse - errors, words) == (pytest.approx(10), pytest.approx(0, abs=1e-9))
    assert per_cent(worse, words)[1] > 1


def test_a_difference_in_recall_weighs_classes_and_not_utterances() -> None:
    truth = np.array([0] * 90 + [1] * 10)
    reference = np.ones(100, bool)
    hits = reference.copy()
    hits[-5:] = False  # half of the small class
    each_alone = [str(number) for number in range(100)]
    difference, error = recall_difference(hits, reference, truth, each_alone)
    assert difference == pytest.approx(-0.25)
    assert error == pytest.approx(0.5 * np.sqrt(0.25 / 10), rel=0.15)
    assert recall_difference(hits, hits, truth, each_alone) == (0, 0)


def test_the_error_of_a_difference_is_that_over_speakers() -> None:
    truth, speakers = np.zeros(100, int), ["better"] * 50 + ["worse"] * 50
    reference = np.arange(100) >= 50
    difference, error = recall_difference(~reference, reference, truth, speakers)
    assert difference == 0
    assert error == pytest.approx(np.sqrt(0.5), rel=0.05)  # -1, 0, 0 or 1 with two draws of two speakers
    alone, unknown = recall_difference(~reference, reference, truth, ["one"] * 100)
    assert alone == 0
    assert np.isnan(unknown)


def test_a_threshold_lies_between_two_settings_on_the_logarithm_of_the_rate() -> None:
    found = threshold([(16, 4.0), (4, 6.0), (8, 5.0)], 4.5)
    assert found.kbps == pytest.approx(8 * 2**0.5)
    assert found.holds
    assert threshold([(4, 6.0), (8, 5.0)], 5.0).kbps == pytest.approx(8)


def test_a_threshold_says_where_it_is_not_one() -> None:
    assert threshold([(4, 6.0), (8, 5.0)], 4.0) == Threshold(None)
    assert threshold([(4, 3.0), (8, 2.0)], 4.0) == Threshold(4, at_most=True)
    assert str(threshold([(4, 3.0), (8, 5.0), (16, 2.0)], 4.0)) == "≤ 4.00*"
    assert str(Threshold(None)) == "–"


def test_a_ratio_keeps_the_sign_of_a_bound() -> None:
    (known,) = ratios("clean", "x", {"opus": Threshold(12.0), "klt": Threshold(2.0)})
    assert known.endswith("opus / klt = 6.00")
    (bound,) = ratios("clean", "x", {"opus": Threshold(12.0), "klt": Threshold(2.0, at_most=True)})
    assert bound.endswith("= ≥ 6.00")
    assert not list(ratios("clean", "x", {"opus": Threshold(None), "klt": Threshold(2.0)}))


def test_speakers_that_the_tables_learnt_from_are_left_out() -> None:
    taught = tables().about["readers"]
    speech = [Recording(Path("x"), "x", "word", speaker, "en") for speaker in (taught[0], "another", taught[1], None)]
    kept, left_out = without_speakers(speech, taught)
    assert [each.speaker for each in kept] == ["another", None]
    assert left_out == sorted(taught[:2])


def test_settings_on_the_command_line_take_the_place_of_the_registrys() -> None:
    chosen = chosen_transports(["opus", "klt"], ["opus:6k,16k-60ms", "svd-f16:0.125"])
    names = [[f"{each.name}:{each.setting}" for each in settings] for settings in chosen]
    assert names[0] == ["pcm:16-bit"]
    assert names[1] == ["opus:6k", "opus:16k-60ms"]
    assert len(names[2]) >= 5
    assert names[3] == ["svd-f16:0.125"]
    for wrong in (["telegraph:1"], ["opus:7k"]):
        with pytest.raises(ValueError, match=r"telegraph|7k"):
            chosen_transports([], wrong)


def test_an_exchange_is_the_payload_and_two_headers() -> None:
    transport = by_name("opus", "8k")
    header = request_header("https://emotion.example.org", 4321, transport.route, "audio/ogg")
    answer = ANSWER_HEADER.replace(b"content-length: ", b"content-length: %d" % len(ANSWER_BODY))
    assert exchange_bytes(transport, 4321) == 4321 + len(header) + len(answer)


def test_rows_hold_what_was_sent_and_their_difference_to_pcm(tmp_path: Path) -> None:
    speech = written(tmp_path, [1.0, 2.0, 1.5])
    transports = chosen_transports([], ["klt:low", "svd-f16:0.125", "mp3:8k"])
    transcriber = Transcriber(Kept(tmp_path / "kept.sqlite"), "parrot", Parrot)
    rows = [
        row for part in measure_words(transports, [Condition.parse("clean")], speech, {}, transcriber) for row in part
    ]
    by_transport = {row["transport"]: row for row in rows}
    pcm = by_transport["pcm"]
    assert set(pcm) >= {
        "transport",
        "setting",
        "rate",
        "condition",
        *codec.FIGURES_OF_WORDS,
        *codec.FIGURES_OF_EMOTIONS,
    }
    assert (pcm["kbps"], pcm["percent_of_pcm"]) == (256, 100)
    assert (pcm["wer"], pcm["wer_delta"], pcm["wer_delta_se"], pcm["utterances"]) == (0, 0, 0, 3)
    assert by_transport["svd-f16"]["rate"] == 0.125
    assert by_transport["klt"]["rate"] is None
    for row in rows:
        assert row["kbps"] == row["elementary_kbps"] < row["exchange_kbps"]
        assert row["percent_of_pcm"] == pytest.approx(row["kbps"] / 2.56, abs=1e-3)
        assert row["ua"] is None
    klt = by_name("klt", "low")
    sizes = [klt.elementary_bytes(klt.encode(each.waveform())) for each in speech]
    assert by_transport["klt"]["kbps"] == pytest.approx(8 * sum(sizes) / 4.5 / 1000, abs=1e-3)


def test_what_was_recognised_once_is_not_recognised_again(tmp_path: Path) -> None:
    parrot, file = Parrot(), tmp_path / "kept.sqlite"
    utterances = [Utterance.of(white(seconds, 0.1), "en") for seconds in (1, 2)]
    first = Transcriber(Kept(file), "parrot", lambda: parrot).send(by_name("klt", "low"), utterances, "")
    again = Transcriber(Kept(file), "parrot", lambda: parrot).send(by_name("klt", "low"), utterances[::-1], "")
    assert first == again[::-1]
    assert parrot.asked == 2
    Transcriber(Kept(file), "parrot", lambda: parrot).send(by_name("klt", "27"), utterances, "")
    Transcriber(Kept(file), "another", lambda: parrot).send(by_name("klt", "low"), utterances, "")
    assert parrot.asked == 6


def test_whether_somebody_speaks_is_kept_with_the_words(tmp_path: Path) -> None:
    class Deaf(Parrot):
        def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
            return [Transcript("", "en", 0.0, "none", 0.1) for _ in mels]

    utterances, kept = [Utterance.of(white(1, 0.1), "en")], Kept(tmp_path / "kept.sqlite")
    for recognizer in (Deaf, Parrot):  # the second is not asked
        (arrived,) = Transcriber(kept, "deaf", recognizer).send(by_name("klt", "low"), utterances, "")
        assert (arrived.text, arrived.speech) == ("", "none")


def test_with_new_tables_everything_is_recognised_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(by_name("klt", "low"))
    monkeypatch.setattr(transmission, "digest_of_tables", lambda: "retrained")
    assert identity(by_name("klt", "low")) != before
    assert identity(by_name("opus", "8k")) == ["opus", "8k"]


def test_every_kth_utterance_is_of_all_speakers_and_classes() -> None:
    records = [
        Record(f"{speaker}-{emotion}-{n}", Path("x"), emotion, speaker, 1, "", None)
        for speaker in "abcd"
        for emotion in ("angry", "happy", "sad")
        for n in range(5)
    ]
    chosen = every_kth(records, 12)
    assert len({(record.speaker, record.emotion) for record in chosen}) == 12
    assert chosen == every_kth(records, 12)
    assert every_kth(records, None) == every_kth(records, 1000) == records


@pytest.mark.parametrize("kept", [True, False])
def test_the_network_that_did_not_hear_the_corpus_judges_it_if_it_is_kept(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DEFAULT_CHECKPOINT, tmp_path / f"{'made' if kept else 'another'}.safetensors")
    monkeypatch.setattr(codec_emotion, "networks_folder", lambda *_: tmp_path)
    monkeypatch.setattr(codec_emotion, "open_teachers", lambda _: [])
    encoders = load(DEFAULT_CHECKPOINT)[1].encoders
    speaker = cast(TextFeatureExtractor, SimpleNamespace(fingerprints=encoders))
    judge = find_judge(Recipe.read(DEFAULT_RECIPE), Corpus("made", (), {}), speaker)
    assert judge.by == ("network without the corpus" if kept else "shipped checkpoint")
    assert ("it is not kept" in judge.remark) is not kept
    assert ("nothing trained on this corpus" in judge.remark) is not kept


def test_plots_and_summary_are_made_of_rows(tmp_path: Path) -> None:
    rows = []
    for name, setting, kbps, wer in (
        ("pcm", "16-bit", 256, 4.0),
        ("opus", "6k", 5.5, 9.0),
        ("opus", "12k", 11.0, 4.1),
        ("opus", "6k-60ms", 5.3, 6.0),
        ("klt", "low", 1.0, 5.0),
        ("klt", "10", 4.0, 4.0),
        ("svd-f16", "0.125", 18.0, 4.2),
    ):
        words = {"kbps": kbps, "percent_of_pcm": kbps / 2.56, "exchange_kbps": kbps + 1, "wer": wer, "wer_se": 0.5}
        words |= {"wer_delta": wer - 4, "wer_delta_se": 0.2, "utterances": 10}
        emotions = {"ua": 0.6, "ua_low": 0.5, "ua_high": 0.7, "ua_delta": 0.0, "ua_delta_se": 0.01}
        emotions |= {"ua_by": "network without the corpus", "ua_corpus": "made", "ua_utterances": 10, "ua_kbps": kbps}
        rows.append(blank_row(by_name(name, setting), "clean") | words | emotions)
    rows.append(rows[-1] | {"setting": "0.5", "wer": None, "kbps": None})  # judged on emotions alone
    assert list(lines(rows[:-1])) == ["opus", "opus-60ms", "klt", "svd-f16"]
    plot(rows, tmp_path / "codec.json")
    for file in ("codec.png", "codec_ua.png"):
        assert (tmp_path / file).read_bytes().startswith(b"\x89PNG")
    said = [line for line in summary(rows) if isinstance(line, str)]
    klt, opus = 4 ** (0.7 / 1.0), 5.5 * 2 ** ((9 - 4.3) / 4.9)
    assert f"clean, WER ≤ uncompressed + 0.3: opus / klt = {opus / klt:.2f}" in said
    assert any("linear interpolation" in line for line in said)


def test_two_real_utterances_through_pcm_and_klt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = tables().about["readers"]
    chosen = [row for row in recordings.speakers(21) if row["speaker"] not in taught][:2]
    manifest, out = tmp_path / "two.tsv", tmp_path / "out.json"
    with manifest.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["speaker", "path", "text"])
        table.writerows([row["speaker"], recordings.DATA / row["path"], row["text"]] for row in chosen)
    monkeypatch.setattr(codec, "Kept", lambda: Kept(tmp_path / "kept.sqlite"))
    command = ["--manifest", str(manifest), "--json", str(out), "--conditions", "clean"]
    codec.main([*command, "--transports", "pcm", "klt", "--settings", "klt:low"])
    pcm, klt = json.loads(out.read_text())
    assert (pcm["transport"], klt["setting"], klt["utterances"]) == ("pcm", "low", 2)
    assert pcm["wer"] < 15
    assert klt["wer"] < 30
    assert klt["kbps"] < 4
    assert out.with_suffix(".png").is_file()
    printed = capsys.readouterr().out
    assert "left out: 0 speakers" in printed
    assert "klt" in printed
