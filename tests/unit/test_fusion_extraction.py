"""Features of a corpus, and the command that judges a checkpoint on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from amser.features import log_mel
from deployments.messages import Mel, TextFeatures, Transcript
from fusion import evaluate, train
from fusion.batch import UtteranceFeatures
from fusion.checkpoint import CheckpointInfo, save
from fusion.corpora.manifest import CLASSES, Corpus, ManifestError, load_manifest
from fusion.extraction import CodecSetting, Encoders, cache_key, compressed_mel, extract, fingerprints
from fusion.network import AmserPlus, FusionConfig

RANK_10 = CodecSetting.parse("svd-f16:0.125")
SMALL = FusionConfig(
    classes=CLASSES, context_width=24, conv_channels=(4, 6, 8), hidden=16, heads=2, feed_forward=32, layers=1
)


class Recogniser:
    """Hears the rank of a Mel, so that a test sees which Mel it was given."""

    def __init__(self) -> None:
        self.mels: list[Mel] = []

    def transcribe(self, mels: Sequence[Mel]) -> list[Transcript]:
        self.mels += mels
        return [Transcript(f"rank {mel.rank}", "en", -0.1, np.ones((2, 512), np.float16)) for mel in mels]


class Words:
    def embed(self, text: str) -> TextFeatures:
        tokens = tuple(text.split())
        return TextFeatures(tokens, np.ones((len(tokens), 300), np.float32))


class Context:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        self.texts += texts
        return [TextFeatures(("<s>", "</s>"), np.ones((2, 24), np.float32)) for _ in texts]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return load_manifest(write_corpus(tmp_path, ["angry", "sad", "calm"] * 4))


@pytest.fixture
def encoders() -> Encoders:
    models: Any = (Recogniser(), Words(), Context())
    return Encoders(*models)


def write_corpus(folder: Path, labels: list[str]) -> Path:
    random = np.random.default_rng(0)
    rows = ["path\temotion\tspeaker\ttext"]
    for number, label in enumerate(labels):
        soundfile.write(folder / f"{number}.wav", 0.1 * random.standard_normal(8000 + 100 * number), 8000)
        rows.append(f"{number}.wav\t{label}\ts{number % 3}\tsaid {number}")
    manifest = folder / "small.tsv"
    manifest.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return manifest


def test_the_text_is_that_of_the_compressed_mel(corpus: Corpus, encoders: Encoders, tmp_path: Path) -> None:
    features = extract(corpus, RANK_10, cache_root=tmp_path, encoders=lambda: encoders)
    recogniser: Any = encoders.asr
    context: Any = encoders.context
    assert context.texts == ["rank 10"] * 12
    assert [np.linalg.matrix_rank(mel.values.astype(np.float32), tol=0.1) for mel in recogniser.mels] == [10] * 12
    np.testing.assert_array_equal(features[3].log_mel, recogniser.mels[3].values)
    assert features[3].words.shape == (2, 300)
    assert features[3].encoder_states.shape == (2, 512)


def test_without_a_codec_the_mel_is_that_of_the_sound(corpus: Corpus, encoders: Encoders, tmp_path: Path) -> None:
    features = extract(corpus, CodecSetting.parse("none"), cache_root=tmp_path, encoders=lambda: encoders)
    assert features[0].log_mel.shape[1] == pytest.approx(100, abs=1)  # one second, resampled from 8 kHz
    assert features[0].log_mel.max() - features[0].log_mel.min() <= 2.01  # Whisper's floor, eight decades in quarters


def test_reference_text_needs_no_recogniser(corpus: Corpus, tmp_path: Path) -> None:
    context = Context()
    models: Any = (None, Words(), context)
    extract(corpus, RANK_10, reference_text=True, cache_root=tmp_path, encoders=lambda: Encoders(*models))
    assert context.texts == [f"said {number}" for number in range(12)]


def test_a_second_extraction_reads_and_an_interrupted_one_goes_on(
    corpus: Corpus, encoders: Encoders, tmp_path: Path
) -> None:
    first = extract(corpus, RANK_10, cache_root=tmp_path, encoders=lambda: encoders)
    again = extract(corpus, RANK_10, cache_root=tmp_path, encoders=lambda: pytest.fail("models were loaded"))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.log_mel, other.log_mel)
    for file in sorted(tmp_path.glob("small-*/*.npz"))[5:]:
        file.unlink()
    recogniser: Any = encoders.asr
    recogniser.mels.clear()
    extract(corpus, RANK_10, cache_root=tmp_path, encoders=lambda: encoders)
    assert len(recogniser.mels) == 7


def test_other_codecs_corpora_and_encoders_get_other_features(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        cache_key(corpus, RANK_10, False),
        cache_key(corpus, RANK_10, True),
        cache_key(corpus, CodecSetting.parse("svd-f16:0.25"), False),
        cache_key(Corpus("small", corpus.records[1:], {}), RANK_10, False),
    }
    monkeypatch.setattr("fusion.extraction.fingerprint", lambda _: "other")
    keys.add(cache_key(corpus, RANK_10, False))
    assert len(keys) == 5


@pytest.mark.parametrize("text", ["opus", "none:0.5", "svd-f16:much", ""])
def test_a_codec_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none or one of|could not convert"):
        CodecSetting.parse(text)


def test_a_file_that_is_no_sound_is_named(corpus: Corpus) -> None:
    corpus.records[0].audio.write_text("no sound")
    with pytest.raises(ManifestError, match=r"0\.wav"):
        compressed_mel(corpus.records[0], RANK_10)


def test_half_precision_keeps_a_mel(corpus: Corpus) -> None:
    mel = compressed_mel(corpus.records[0], CodecSetting.parse("none"))
    samples, _ = soundfile.read(corpus.records[0].audio, dtype="float32")
    assert mel.values.dtype == np.float16
    assert mel.seconds == pytest.approx(len(samples) / 8000, abs=0.011)
    assert log_mel(np.zeros(16000, np.float32) + 0.1).shape[0] == mel.values.shape[0]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    info = CheckpointInfo("tiny", SMALL, fingerprints(), ("none",), ("trained-on",))
    save(path, AmserPlus(SMALL), info)
    return path


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def made_up(corpus: Corpus, setting: CodecSetting) -> list[UtteranceFeatures]:
        models: Any = (Recogniser(), Words(), Context())
        from fusion.extraction import describe

        return [features for features, _ in describe(corpus.records, setting, Encoders(*models))]

    monkeypatch.setattr(evaluate, "extract", made_up)


@pytest.mark.usefixtures("no_models")
def test_evaluate_writes_a_row_for_each_codec(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_corpus(tmp_path, ["anger", "sadness", "bored"] * 4)
    out = tmp_path / "rows.json"
    command = ["--manifest", str(manifest), "--root", str(tmp_path), "--codec", "none", "svd-f16:0.125"]
    assert evaluate.main([*command, "--checkpoint", str(checkpoint), "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [(row["codec"], row["rate"]) for row in rows] == [("none", None), ("svd-f16", 0.125)]
    for row in rows:
        assert (row["model"], row["corpus"], row["n"]) == ("tiny", "small", 8)
        assert row["classes"] == ["angry", "sad"]
        assert row["ua_low"] <= row["ua"] <= row["ua_high"]
        assert row["unknown_labels"] == {"bored": 4}
        assert "cross-corpus" in row["protocol"]
    printed = capsys.readouterr().out
    assert "'bored' (4)" in printed
    assert "cross-corpus" in printed


@pytest.mark.usefixtures("no_models")
def test_evaluate_says_when_a_corpus_was_trained_on(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_corpus(tmp_path, ["anger", "sadness"]).rename(tmp_path / "trained-on.tsv")
    assert evaluate.main(["--manifest", str(manifest), "--checkpoint", str(checkpoint)]) == 0
    assert "training data: not an estimate of accuracy" in capsys.readouterr().out


def test_evaluate_explains_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = evaluate.main(["--manifest", str(tmp_path / "absent.tsv"), "--checkpoint", str(tmp_path / "absent.st")])
    assert status == 2
    assert "no fusion checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("command", [evaluate.main, train.main])
def test_help_names_the_columns_and_no_folder_of_this_machine(
    command: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(["--help"])
    printed = capsys.readouterr().out
    assert caught.value.code == 0
    assert "columns path, emotion" in " ".join(printed.split())
    assert "examples:" in printed
    assert str(Path(evaluate.__file__).parent) not in printed
