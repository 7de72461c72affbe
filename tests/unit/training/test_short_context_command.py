"""`python -m training.short_context`: what it writes, and what it says where it cannot."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from recordings import DATA, rows
from safetensors.numpy import load_file

from models.weights import default_store, model_path
from models.weights.sources import sha256_of
from models.whisper.adapter import adapt
from models.whisper.arrays import read_arrays, renamed
from models.whisper.judge import Evidence, Judge, hears_short
from training.short_context import __main__ as command
from training.short_context import fitting, teacher
from training.short_context.adapter import FROZEN_LAYERS, RANK
from training.short_context.clips import read_clips
from training.short_context.teacher import believed, lessons_of

LINES = {row["speaker"]: row["path"] for row in rows("speech/librispeech.tsv")}
TEACHES, JUDGES = (
    "118",
    ("1737", "3242", "1898", "5789", "6848", "7859"),
)  # speakers: whose texts are believed differs by processor
FOLDS = {TEACHES: 1} | dict.fromkeys(JUDGES, 4)
WEIGHTS = "whisper-base"
NOISE = DATA / "noise" / "esc10"


def manifest_of(folder: Path, folds: dict[str, int]) -> Path:
    """Real recordings, whose speakers are in these folds."""
    manifest = folder / "few.tsv"
    lines = [f"{DATA / LINES[speaker]}\t{speaker}\ten\t{fold}" for speaker, fold in folds.items()]
    manifest.write_text("\n".join(["path\tspeaker\tlanguage\tfold", *lines]) + "\n", encoding="utf-8")
    return manifest


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the weights of this machine and the lessons of three recordings, as an earlier run leaves it."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "weights").symlink_to(default_store())
    clips = read_clips([manifest_of(folder, FOLDS)])
    lessons = lessons_of(clips, WEIGHTS, 1, folder / "short-context")
    assert sum(lesson is not None and believed(lesson) for lesson in lessons) > len(lessons) / 2
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with the weights of this machine and nothing else."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "weights").symlink_to(default_store())
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "cache"))


def run(manifest: Path, output: Path, *more: str) -> int:
    common = [
        "--manifest",
        str(manifest),
        "--output",
        str(output),
        "--spoken",
        "0",
        "--languages",
        "0",
        "--threads",
        "1",
        "--steps",
        "2",
    ]
    return command.main([*common, *more])


@pytest.mark.slow
def test_the_command_teaches_and_fits_a_judge(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Few samples and sounds: what is learnt of them does not matter here."""
    monkeypatch.setenv("AMSER_CACHE", str(asked))
    monkeypatch.setattr(teacher, "ProcessPoolExecutor", lambda *_: pytest.fail("asked the teacher again"))
    monkeypatch.setattr(fitting, "POOL", 4)
    monkeypatch.setattr(command, "SOUNDS", 6)
    output = tmp_path / "output"
    assert run(manifest_of(tmp_path, FOLDS), output, "--noise", str(NOISE)) == 0
    assert {file.name for file in output.iterdir()} == {"adapter.safetensors", "speech.json"}

    adapter = load_file(output / "adapter.safetensors")
    shapes = {name: values.shape for name, values in adapter.items()}
    assert shapes[f"encoder.blocks.{FROZEN_LAYERS}.mlp.0.weight.up"] == (2048, RANK)
    assert shapes["decoder.blocks.5.cross_attn.key.weight.down"] == (RANK, 512)
    assert not any(name.startswith(f"encoder.blocks.{layer}.") for layer in range(FROZEN_LAYERS) for name in shapes)
    assert all(np.isfinite(values).all() and values.dtype == np.float16 for values in adapter.values())
    assert any(np.any(values != 0) for name, values in adapter.items() if name.endswith(".up"))

    assert hears_short(output)
    judge = Judge.read(output)
    assert set(judge.weights) == {field.name for field in fields(Evidence)}
    assert 0 <= judge.none_below <= judge.yes_from <= 1

    base = model_path(WEIGHTS)
    adapt(base / "model.bin", output / "adapter.safetensors", tmp_path / "model.bin")
    before, after = (dict(renamed(read_arrays(file))) for file in (base / "model.bin", tmp_path / "model.bin"))
    frozen = "encoder.blocks.2.mlp.0.weight"
    np.testing.assert_array_equal(after[frozen], before[frozen])
    lines = capsys.readouterr().out
    for file in (tmp_path / "model.bin", output / "speech.json", base / "tokenizer.json"):
        assert f"path: {file.name}" in lines
        assert f"sha256: {sha256_of(file)}" in lines
    assert ".verified.json" not in lines


@pytest.mark.slow
def test_the_judge_of_weights_as_they_are_is_fitted_alone(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(asked))
    monkeypatch.setattr(command, "SOUNDS", 3)
    monkeypatch.setattr(command, "_teach", lambda *_: pytest.fail("taught"))
    output = tmp_path / "output"
    assert run(manifest_of(tmp_path, FOLDS), output, "--judge-only", "untouched") == 0
    assert [file.name for file in output.iterdir()] == ["speech.json"]
    assert not json.loads((output / "speech.json").read_text())["hears_short"]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("folds", "more", "message"),
    [
        ({TEACHES: 5}, [], "the teacher believes no text of these recordings, so there is nothing to learn"),
        ({TEACHES: 5}, ["--judge-only", "untouched"], "the teacher believes no text of fold 4"),
        ({TEACHES: 1}, ["--judge-only", "adapted"], "adapter.safetensors"),
        ({TEACHES: 1}, ["--weights", "whisper-nobody"], "no model is called 'whisper-nobody'"),
        ({TEACHES: 1}, ["--prompts", "no-prompts"], "no-prompts has no recordings"),
    ],
)
def test_what_cannot_be_taught_or_judged_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folds: dict[str, int], more: list[str], message: str
) -> None:
    output = tmp_path / "output"
    assert run(manifest_of(tmp_path, folds), output, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("training.short_context: ")
    assert message in error
    assert not list(output.glob("*"))


@pytest.mark.usefixtures("cache")
def test_a_manifest_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.tsv", tmp_path / "output") == 2
    assert "none.tsv cannot be read" in capsys.readouterr().err


def test_without_the_weights_the_command_that_brings_them_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path / "empty"))
    assert run(manifest_of(tmp_path, {TEACHES: 1}), tmp_path / "output") == 2
    assert "python -m models.weights fetch whisper-base" in capsys.readouterr().err


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["adapter.safetensors", "speech.json"])
def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / name).write_text("of an earlier run")
    assert run(manifest_of(tmp_path, {TEACHES: 1}), output) == 2
    assert f"{name} exists; --force replaces it" in capsys.readouterr().err
    assert (output / name).read_text() == "of an earlier run"


@pytest.mark.parametrize("arguments", [[], ["--manifest", "a.tsv", "--steps", "many"], ["--manifest"]])
def test_arguments_that_make_no_sense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        command.main(arguments)
    assert refusal.value.code == 2
    assert "usage: python -m training.short_context" in capsys.readouterr().err
