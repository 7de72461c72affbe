"""The recipes of the papers' tables from end to end: small trees of real recordings, small networks.

The trees have their corpora's folders and file names. The recordings are bursts of ten people (EmoGator) and readings
(LibriSpeech); Whisper, word vectors and text encoder are those that are served, but for Chinese.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
import soundfile
import yaml
from small_text_models import write_roberta, write_word_vectors

from amser.features import SAMPLE_RATE
from models.emotion.checkpoint_info import describe
from models.weights import cache_folder
from training import evaluate, train
from training.corpora.catalogue import open_corpus
from training.data.texts import TextFeatureExtractor
from training.fitting.loading import load_utterances
from training.fitting.recipe import Recipe

CONFIGS = Path(train.__file__).parent / "configs"
IEMOCAP_LABELS = {"angry": "ang", "happy": "exc", "sad": "sad", "neutral": "neu"}
CHINESE = {"angry": "你怎么又迟到了", "happy": "今天天气真好", "sad": "我很想家", "fear": "外面有人吗"}
QUICK: dict[str, Any] = {
    "views": ["svd-f16:0.125"],
    "judged": ["svd-f16:0.125"],
    "copies": 0,
    "network": {"hidden": 16, "heads": 2, "feed_forward": 32, "layers": 1, "common_length": 8},
    "training": {"epochs": 1, "batch_size": 8},
}


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, with the weights of this machine in it."""
    weights = cache_folder() / "weights"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights").symlink_to(weights, target_is_directory=True)
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))


def bursts() -> dict[str, dict[str, str]]:
    """Recordings of EmoGator by person and emotion."""
    people: dict[str, dict[str, str]] = {}
    for row in recordings.rows("emotion/emogator.tsv"):
        people.setdefault(row["speaker"], {})[row["emotion"]] = row["path"]
    assert len(people) == 10
    return people


def write_sound(file: Path, recording: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, recordings.waveform_of(recording), SAMPLE_RATE)


def plant_iemocap(root: Path) -> None:
    """Two people a session; of each an angry and a sad turn of a script, and a happy and a neutral one improvised.

    The neutral turns are readings; there is a frustrated turn, which the protocol leaves out, in each session.
    """
    people = list(bursts().values())
    readings = [row["path"] for row in recordings.speakers(10)]
    for number, (person, reading) in enumerate(zip(people, readings, strict=True)):
        session, actor = number // 2 + 1, "FM"[number % 2]
        recorded = {**person, "neutral": reading}
        for kind, emotions in (("script01_1", ("angry", "sad")), ("impro01", ("happy", "neutral"))):
            dialogue = f"Ses0{session}F_{kind}"
            turns = [(f"{dialogue}_{actor}{turn:03d}", emotion) for turn, emotion in enumerate(emotions)]
            for utterance, emotion in turns:
                sentences = root / f"Session{session}" / "sentences" / "wav" / dialogue
                write_sound(sentences / f"{utterance}.wav", recorded[emotion])
            lines = [
                f"[{turn}.0 - {turn}.9]\t{name}\t{IEMOCAP_LABELS[of]}\t[]" for turn, (name, of) in enumerate(turns)
            ]
            if actor == "F" and kind == "impro01":
                left_out = f"{dialogue}_F009"
                write_sound(root / f"Session{session}" / "sentences" / "wav" / dialogue / f"{left_out}.wav", reading)
                lines.append(f"[9.0 - 9.9]\t{left_out}\tfru\t[]")
            append(root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", lines)
            spoken = [f"{name} [000.0-000.9]: I am {of} now." for name, of in turns]
            append(root / f"Session{session}" / "dialog" / "transcriptions" / f"{dialogue}.txt", spoken)


def append(file: Path, lines: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def plant_vcemo(root: Path) -> None:
    """Four of ten people's recordings each, with a Chinese sentence for each emotion."""
    lines = ["file,emotion,speaker,text"]
    for speaker, person in bursts().items():
        for emotion, text in CHINESE.items():
            write_sound(root / "wav" / f"{speaker}-{emotion}.wav", person[emotion])
            lines.append(f"{speaker}-{emotion}.wav,{emotion},{speaker},{text}")
    append(root / "labels.csv", lines)


def quick(folder: Path, base: str, **changes: Any) -> Path:
    """A recipe of the repository with small networks and few epochs."""
    recipe = folder / "quick.yaml"
    said = {
        name: {**QUICK.get(name, {}), **value} if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
    recipe.write_text(yaml.safe_dump({"base": str(CONFIGS / f"{base}.yaml"), **QUICK, **said}), encoding="utf-8")
    return recipe


def trained(folder: Path, recipe: Path, corpus: str, *more: str) -> dict[str, Any]:
    """The one row that the command writes."""
    command = ["--config", str(recipe), "--corpus", corpus, "--json", str(folder / "rows.json"), "--workers", "1"]
    assert train.main([*command, *more]) == 0
    (row,) = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return dict(row)


def write_sentences(folder: Path) -> None:
    """Tables as GoEmotions has them."""
    folder.mkdir()
    labels = ("anger", "joy", "neutral", "sadness")
    (folder / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    for part, count in (("train", 48), ("dev", 12), ("test", 12)):
        rows = [f"{part} {number} says that this is {labels[number % 4]}\t{number % 4}\tid" for number in range(count)]
        (folder / f"{part}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_copies_of_the_papers_recipe_have_noise_at_30_db_and_nothing_louder() -> None:
    plain = recordings.waveform_of(recordings.speakers(1)[0]["path"])
    augment = replace(Recipe.read(CONFIGS / "iemocap-amser-plus.yaml").waveform_augmenter(None), pitch=0, stretch=0)
    noises = [augment(plain, seed) - plain for seed in range(6)]
    ratios = [10 * np.log10(np.mean(plain**2) / np.mean(noise**2)) for noise in noises if noise.any()]
    assert 0 < len(ratios) < 6
    assert ratios == pytest.approx([30] * len(ratios), abs=0.5)


@pytest.mark.slow
def test_amser_plus_on_iemocap_leaves_one_session_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant_iemocap(tmp_path / "release")
    recipe = quick(tmp_path, "iemocap-amser-plus", judged=["none", "svd-f16:0.125"], views=["none"])
    command = ["--config", str(recipe), "--corpus", f"iemocap={tmp_path / 'release'}", "--workers", "1"]
    assert train.main([*command, "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [(row["codec"], row["rate"]) for row in rows] == [("none", None), ("svd-f16", 0.125)]
    for row in rows:
        assert (row["model"], row["corpus"]) == ("iemocap-amser-plus", "iemocap")
        assert row["protocol"] == "speaker-independent, 5 folds"
        assert row["classes"] == ["angry", "happy", "neutral", "sad"]
        assert row["modalities"] == "mel+words+context"
        assert (row["text"], row["n"], row["n_speakers"], row["left_out"]) == ("asr", 40, 10, {})
        assert [(fold["n"], fold["n_speakers"]) for fold in row["folds"]] == [(8, 2)] * 5  # both actors of a session
        assert [sum(counts) for counts in row["confusion"]] == [10] * 4
        assert 0 <= row["ua_low"] <= row["ua"] <= row["ua_high"] <= 1
    printed = capsys.readouterr().out
    assert "research only" in printed
    assert all(f"fold {session}," in printed for session in range(1, 6))


@pytest.mark.slow
def test_ours_on_improvised_iemocap(tmp_path: Path) -> None:
    plant_iemocap(tmp_path / "release")
    write_sentences(tmp_path / "sentences")
    recipe = quick(
        tmp_path, "iemocap", text="reference", text_training={"epochs": 1},
        network={"common_length": 8}, noise=str(tmp_path),
    )  # fmt: skip
    corpus = f"iemocap-improvised={tmp_path / 'release'}"
    row = trained(tmp_path, recipe, corpus, "--sentences", str(tmp_path / "sentences"))
    assert (row["model"], row["corpus"], row["classes"]) == ("iemocap", "iemocap-improvised", ["happy", "neutral"])
    assert (row["n"], row["n_speakers"]) == (20, 10)
    assert [(fold["n"], fold["n_speakers"]) for fold in row["folds"]] == [(4, 2)] * 5
    assert len(row["confusion"]) == 4  # outputs


@pytest.mark.slow
def test_amser_plus_on_vcemo_reads_chinese_words_and_its_checkpoint_says_so(tmp_path: Path) -> None:
    plant_vcemo(tmp_path / "vcemo")
    texts = list(CHINESE.values())
    vectors, encoder = write_word_vectors(tmp_path / "vectors", texts, "zh"), write_roberta(tmp_path / "enc", 24, texts)
    recipe = quick(
        tmp_path, "vcemo-amser-plus", text="reference", word_vectors=str(vectors), text_encoder=str(encoder)
    )  # fmt: skip
    checkpoint = tmp_path / "vcemo.safetensors"
    row = trained(tmp_path, recipe, f"vcemo={tmp_path / 'vcemo'}", "--final", "--checkpoint", str(checkpoint))
    assert (row["model"], row["corpus"], row["protocol"]) == (
        "vcemo-amser-plus",
        "vcemo",
        "speaker-independent, 5 folds",
    )
    assert row["classes"] == ["angry", "fear", "happy", "sad"]
    assert (row["n"], row["n_speakers"], row["modalities"]) == (40, 10, "mel+words+context")

    extractor = TextFeatureExtractor(str(encoder), str(vectors))
    info = describe(checkpoint)
    assert info.text_languages == ("zh",)
    assert {role: info.encoders[role] for role in ("words", "context")} == extractor.fingerprints
    utterances = load_utterances(open_corpus("vcemo", tmp_path / "vcemo"), Recipe.read(recipe), extractor)
    for utterance in utterances:
        assert len(utterance.features["svd-f16:0.125"].words) in {len(text) for text in texts}  # a character a token

    judged = ["--corpus", f"vcemo={tmp_path / 'vcemo'}", "--checkpoint", str(checkpoint), "--codec", "svd-f16:0.125"]
    assert evaluate.main(judged) == 2  # English words and another encoder are refused
