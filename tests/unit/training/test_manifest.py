"""Corpora as manifests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from training.corpora.manifest import CLASSES, ManifestError, load_manifest

WriteManifest = Callable[..., Path]


@pytest.fixture
def write_manifest(tmp_path: Path) -> WriteManifest:
    def write(*labels: str, header: str = "path\temotion\tspeaker", files: bool = True) -> Path:
        lines = [header]
        for number, label in enumerate(labels):
            path = tmp_path / "corpus" / f"{number}.wav"
            path.parent.mkdir(exist_ok=True)
            if files:
                path.touch()
            lines.append(f"corpus/{number}.wav\t{label}\ts{number % 3}")
        table = tmp_path / "tables" / "small.tsv"
        table.parent.mkdir(exist_ok=True)
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return table

    return write


def test_other_names_of_an_emotion_become_the_seven_classes(write_manifest: WriteManifest) -> None:
    given = ["calm", "fearful", "surprised", "Anger", "happiness", "joy", "sadness", "disgusted", "neutral"]
    corpus = load_manifest(write_manifest(*given))
    expected = ["neutral", "fear", "surprise", "angry", "happy", "happy", "sad", "disgust", "neutral"]
    assert [record.emotion for record in corpus.records] == expected
    assert corpus.classes_present == CLASSES


def test_unknown_labels_are_counted_and_left_out(write_manifest: WriteManifest) -> None:
    corpus = load_manifest(write_manifest("angry", "bored", "sad", "bored"))
    assert corpus.unknown_labels == {"bored": 2}
    assert [record.utterance for record in corpus.records] == ["corpus/0", "corpus/2"]


def test_dialogues_and_licences_are_read_where_the_manifest_has_them(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.wav").touch()
    table = tmp_path / "small.tsv"
    header = "path\temotion\tspeaker\tdialogue\tlicence\n"
    rows = "a.wav\tsad\t1\tfirst\tCC0\nb.wav\tsad\t2\tfirst\tCC BY 4.0\nc.wav\tsad\t3\t\tCC0\n"
    table.write_text(header + rows, encoding="utf-8")
    corpus = load_manifest(table)
    assert [record.dialogue for record in corpus.records] == ["first", "first", None]
    assert corpus.licence == "CC0; CC BY 4.0"


def test_the_root_is_the_nearest_folder_that_has_the_first_file(write_manifest: WriteManifest, tmp_path: Path) -> None:
    table = write_manifest("angry")
    assert load_manifest(table).records[0].audio == tmp_path / "corpus" / "0.wav"
    assert load_manifest(table, tmp_path).records[0].audio == tmp_path / "corpus" / "0.wav"


def test_a_missing_column_is_named(write_manifest: WriteManifest) -> None:
    with pytest.raises(ManifestError, match="no column emotion"):
        load_manifest(write_manifest("angry", header="path\tlabel\tspeaker"))


def test_a_missing_sound_file_is_named(write_manifest: WriteManifest, tmp_path: Path) -> None:
    table = write_manifest("angry", "sad", files=False)
    with pytest.raises(ManifestError, match=r"corpus/0\.wav"):
        load_manifest(table)
    (tmp_path / "corpus" / "0.wav").touch()
    with pytest.raises(ManifestError, match=r"line 3: there is no file .*1\.wav"):
        load_manifest(table)


def test_a_missing_manifest_and_one_without_usable_rows_are_refused(
    write_manifest: WriteManifest, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match=r"there is no manifest .*absent\.tsv; --corpus names one, AMSER_DATA"):
        load_manifest(tmp_path / "absent.tsv")
    with pytest.raises(ManifestError, match="no rows"):
        load_manifest(write_manifest())
    with pytest.raises(ManifestError, match="bored"):
        load_manifest(write_manifest("bored"))
