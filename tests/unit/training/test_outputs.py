"""A command of training never writes over a file that exists unless --force is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic_corpus

from training.corpora.__main__ import main as corpora
from training.corpora.manifest import load_manifest
from training.klt.__main__ import main as klt
from training.outputs import OutputExists, new_file


def test_a_new_name_is_free_and_an_old_one_needs_force(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "new"
    assert new_file(file, force=False) == file
    file.parent.mkdir()
    file.touch()
    with pytest.raises(OutputExists, match=r"new exists; --force replaces it, another name keeps it"):
        new_file(file, force=False)
    assert new_file(file, force=True) == file
    with pytest.raises(OutputExists, match="is a folder"):
        new_file(file.parent, force=True)


def test_a_manifest_is_not_replaced_by_accident(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = synthetic_corpus.write_corpus(tmp_path, ["sad", "angry"])
    before = manifest.read_text()
    assert corpora([str(manifest), "--manifest", str(manifest)]) == 2
    assert f"training.corpora: {manifest} exists; --force replaces it" in capsys.readouterr().err
    assert manifest.read_text() == before
    records = load_manifest(manifest).records
    assert corpora([str(manifest), "--manifest", str(manifest), "--force"]) == 0
    assert load_manifest(manifest).records == records


def test_tables_of_klt_are_not_replaced_by_accident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "klt.npz").touch()
    assert klt(["--manifest", str(tmp_path / "speech.tsv")]) == 2
    assert capsys.readouterr().err.startswith("training.klt: runs/klt.npz exists; --force replaces it")
