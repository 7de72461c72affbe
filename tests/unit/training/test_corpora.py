"""Adapters of published corpora, on small trees with their authors' folders and file names."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_trees import RATE, TREES, Row
from recordings import DATA

from training.corpora.__main__ import main
from training.corpora.adapter import assign_folds
from training.corpora.catalogue import ADAPTERS, open_corpus
from training.corpora.manifest import CLASSES, Corpus, ManifestError, load_manifest
from training.data.folds import split


def write_sound(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.zeros(RATE // 10, np.float32), RATE)


Plant = Callable[[str], Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    def plant(name: str) -> Path:
        root = tmp_path / name
        for path in TREES[name].sounds:
            write_sound(root / path)
        for path, content in TREES[name].texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return plant


def rows_of(corpus: Corpus) -> list[Row]:
    return [
        (each.utterance, each.emotion, each.speaker, each.fold, each.text, each.language) for each in corpus.records
    ]


def test_every_adapter_has_a_tree_here() -> None:
    assert set(TREES) == set(ADAPTERS)


@pytest.mark.parametrize("name", TREES)
def test_a_corpus_is_read_from_its_authors_folders(name: str, plant: Plant) -> None:
    corpus = ADAPTERS[name].load(plant(name))
    expected = TREES[name]
    assert corpus.name == name
    listed = {row[0] for row in expected.rows}
    assert [row for row in rows_of(corpus) if row[0] in listed] == expected.rows
    if name != "esd":  # whose tree is filled up with utterances that are not listed
        assert len(corpus.records) == len(expected.rows)
    assert corpus.unknown_labels == expected.left_out
    assert all(soundfile.info(record.audio).frames == RATE // 10 for record in corpus.records)


@pytest.mark.parametrize("name", TREES)
def test_a_folder_above_will_do_and_hidden_files_do_not_count(name: str, plant: Plant) -> None:
    root = plant(name)
    expected = rows_of(ADAPTERS[name].load(root))
    for path in TREES[name].sounds:
        double = root / path
        double.with_name(f"._{double.name}").write_bytes(b"\0\5\x16\7")
    (root / ".Session1").mkdir()
    assert rows_of(ADAPTERS[name].load(root.parent)) == expected


@pytest.mark.parametrize("name", TREES)
def test_an_error_says_what_was_looked_for_where_and_where_to_get_it(name: str, tmp_path: Path) -> None:
    adapter = ADAPTERS[name]
    with pytest.raises(ManifestError, match="there is no folder") as absent:
        adapter.load(tmp_path / "absent")
    with pytest.raises(ManifestError, match="there is no ") as empty:
        adapter.load(tmp_path)
    for error in (absent, empty):
        assert str(tmp_path) in str(error.value)
        assert adapter.title in str(error.value)
        assert adapter.source in str(error.value)


@pytest.mark.parametrize("name", ["iemocap", "vcemo", "nemo", "meld"])
def test_a_missing_sound_file_that_a_table_names_is_named(name: str, plant: Plant) -> None:
    root = plant(name)
    missing = root / TREES[name].sounds[0]
    missing.unlink()
    with pytest.raises(ManifestError, match=f"there is no .*{missing.stem}"):
        ADAPTERS[name].load(root)


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("nemo", "data.tsv", "no column file_id, emotion, raw_text, speaker_id"),
        ("vcemo", "labels.csv", "no column file, emotion, speaker, text"),
        ("meld", "dev_sent_emo.csv", "no column Utterance, Speaker"),
        ("esd", "0016/0016.txt", "has no line of an utterance"),
    ],
)
def test_a_table_that_is_no_such_table_is_refused(name: str, table: str, message: str, plant: Plant) -> None:
    root = plant(name)
    (root / table).write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    with pytest.raises(ManifestError, match=message):
        ADAPTERS[name].load(root)


def test_a_corpus_none_of_whose_labels_is_known_is_refused(tmp_path: Path) -> None:
    write_sound(tmp_path / "wav" / "03a01La.wav")
    with pytest.raises(ManifestError, match=r"no utterance with a known emotion.*\{'L': 1\}"):
        ADAPTERS["emodb"].load(tmp_path)


def test_clips_without_sound_files_are_refused_with_the_command_that_makes_them(plant: Plant) -> None:
    root = plant("meld")
    for sound in (root / "train" / "train_splits").glob("*.wav"):
        sound.rename(sound.with_suffix(".mp4"))
    with pytest.raises(ManifestError, match=r"dia0_utt0\.mp4 in .*train_splits has no sound file.*ffmpeg -i"):
        ADAPTERS["meld"].load(root)


def test_tess_is_read_from_one_folder_too(tmp_path: Path) -> None:
    for name in ("OAF_back_ps", "YAF_back_angry"):
        write_sound(tmp_path / f"{name}.wav")
    assert [record.emotion for record in ADAPTERS["tess"].load(tmp_path).records] == ["surprise", "angry"]


def test_speakers_are_dealt_into_even_folds_that_do_not_change() -> None:
    speakers = [f"{number:02}" for number in range(1, 25)]
    gender = {speaker: "woman" if int(speaker) % 2 == 0 else "man" for speaker in speakers}
    folds = assign_folds([*reversed(speakers), *speakers], 5, gender.__getitem__)
    assert folds == assign_folds(speakers, 5, gender.__getitem__)
    assert sorted(Counter(folds.values()).values()) == [4, 5, 5, 5, 5]
    women = Counter(fold for speaker, fold in folds.items() if gender[speaker] == "woman")
    assert sorted(women.values()) == [2, 2, 2, 3, 3]
    assert assign_folds(["a", "b"], 5) == {"a": 1, "b": 2}


def test_every_fold_of_esd_has_a_man_and_a_woman_of_each_language() -> None:
    adapter = ADAPTERS["esd"]
    folds = assign_folds([f"{number:04}" for number in range(1, 21)], 5, adapter.balanced_by)
    for fold in range(1, 6):
        kinds = {adapter.balanced_by(speaker) for speaker in folds if folds[speaker] == fold}
        assert kinds == {"en man", "en woman", "zh man", "zh woman"}


def test_the_women_of_crema_d_are_43_of_91() -> None:
    kinds = Counter(ADAPTERS["crema-d"].balanced_by(str(actor)) for actor in range(1001, 1092))
    assert kinds == {"man": 48, "woman": 43}


def test_a_source_is_a_manifest_or_a_corpus_and_its_folder(plant: Plant, tmp_path: Path) -> None:
    root = plant("emodb")
    by_folder = open_corpus(f"emodb={root}")
    assert open_corpus("emodb", root) == by_folder == ADAPTERS["emodb"].load(root)
    table = tmp_path / "mine.tsv"
    table.write_text("path\temotion\tspeaker\nemodb/wav/03a01Fa.wav\tjoy\t03\n")
    assert open_corpus(str(table)) == open_corpus(str(table), tmp_path) == load_manifest(table)


def test_an_unknown_corpus_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match="'emodbb=/x' is neither.*iemocap, iemocap-improvised, vcemo, ravdess, crema-d, emodb, tess"
    ):
        open_corpus("emodbb=/x")
    with pytest.raises(ManifestError, match="Name its folder: emodb=/folder"):
        open_corpus("emodb")
    with pytest.raises(ManifestError, match="there is no manifest"):
        open_corpus(str(tmp_path / "absent.tsv"))


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_a_manifest_that_was_written_gives_the_same_corpus(
    name: str, folder: str, plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = plant(name)
    (tmp_path / folder).mkdir(exist_ok=True)
    table = tmp_path / folder / f"{name}.tsv"
    assert main([name, "--root", str(root), "--manifest", str(table)]) == 0
    corpus, read_back = ADAPTERS[name].load(root), load_manifest(table)
    assert read_back.name == name
    assert rows_of(read_back) == rows_of(corpus)
    assert [record.audio for record in read_back.records] == [record.audio for record in corpus.records]
    assert (str(tmp_path) in table.read_text(encoding="utf-8")) == (folder == "elsewhere")
    assert f"{len(corpus.records)}" in capsys.readouterr().out


def test_the_summary_says_what_was_left_out(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emodb", "--root", str(plant("emodb"))]) == 0
    printed = capsys.readouterr().out
    for line in ("angry 1, fear 1, happy 1", "1 2, 2 1", "L 1", "de 3"):
        assert line in printed


def test_an_error_is_one_line_and_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["emodb", "--root", str(tmp_path)]) == 2
    assert main(["nonsense"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert "bilderbar.info" in first
    assert "'nonsense' is neither" in second


def test_the_command_lists_all_corpora() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "training.corpora"], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in listed for name in ADAPTERS)
    assert "CC BY-NC-ND 4.0" in listed
    helped = subprocess.run(
        [sys.executable, "-m", "training.corpora", "-h"], capture_output=True, text=True, check=True
    )
    assert "--manifest FILE" in helped.stdout


def test_a_manifest_of_real_recordings_gives_every_class_and_folds_without_common_speakers() -> None:
    corpus = load_manifest(DATA / "emotion" / "emogator.tsv")
    assert corpus.classes_present == CLASSES
    assert Counter(record.emotion for record in corpus.records) == dict.fromkeys(CLASSES, 10)
    assert all(record.audio.is_file() for record in corpus.records)
    for fold in split(corpus.records):
        parts = (fold.training, fold.validation, fold.test)
        groups = [{corpus.records[index].speaker for index in part} for part in parts]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 10
