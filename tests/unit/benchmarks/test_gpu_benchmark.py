"""`benchmarks.gpu`: the same code on a CPU, what it says where something is missing, and when both devices agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.measuring.on_device import STAGES, Agreement, Stage, compare_emotions, compare_states, compare_texts
from models.messages import Emotion, TokenFeatures, Transcript
from models.weights import WeightsMissing

ROOT = Path(__file__).resolve().parents[3]
MORE_THAN_PYTORCH = (
    "av",
    "ctranslate2",
    "httpx",
    "pydantic",
    "ray",
    "rich",
    "spacy",
    "transformers",
    "whisper",
    "yaml",
)


def run(*arguments: str) -> int:
    try:
        gpu.main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def quick(stages: str, file: Path) -> tuple[str, ...]:
    return (
        "--device",
        "cpu",
        "--stages",
        *stages.split(),
        "--batch-sizes",
        "2",
        "1",
        "--seconds",
        "0.01",
        "--json",
        str(file),
    )


def doubling(items: Any = (1, 2), **differing: Any) -> Stage:
    """A stage that doubles numbers, on every device."""
    stage = Stage(
        load=lambda *_: lambda numbers: [2 * number for number in numbers],
        items=lambda: items,
        compare=lambda one, other: Agreement(one == other, f"{one} {other}"),
    )
    return replace(stage, **differing)


def raising(error: Exception) -> Any:
    def load(*_: object) -> Any:
        raise error

    return load


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 2
    assert capsys.readouterr().err.startswith("benchmarks.gpu: PyTorch sees no CUDA device; --device cpu ")


def test_the_served_emotion_stage_on_a_cpu_agrees_with_float32(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emotion = STAGES["emotion"]
    monkeypatch.setitem(gpu.STAGES, "emotion", replace(emotion, items=lambda: emotion.items()[:3]))
    file = tmp_path / "runs" / "gpu.json"
    assert run(*quick("emotion", file)) == 0
    (row,) = json.loads(file.read_text())
    assert (row["stage"], row["device"], row["batch_size"], row["accelerator"]) == ("emotion", "cpu", 1, "cpu")
    assert row["agrees"]
    assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert row["utterances_per_s"] > 0
    assert row["batches"] >= 5
    assert "torch" in row["versions"]
    assert "labels 3/3, off by 0.0" in capsys.readouterr().out


def test_there_is_a_row_for_each_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def load(*_: object) -> Any:
        return lambda numbers: sizes.append(len(numbers)) or list(numbers)

    monkeypatch.setitem(gpu.STAGES, "network", doubling(load=load))
    assert run(*quick("network", tmp_path / "rows.json")) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["batch_size"] for row in rows] == [1, 2]
    assert set(sizes) == {1, 2}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ModuleNotFoundError("No module named 'ctranslate2'", name="ctranslate2"),
            "network: skipped: needs ctranslate2",
        ),
        (WeightsMissing("no whisper-base: fetch it"), "network: skipped: no whisper-base: fetch it"),
    ],
    ids=["package", "weights"],
)
def test_a_stage_that_lacks_something_is_skipped_and_named(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(gpu.STAGES, "network", doubling(load=raising(error)))
    monkeypatch.setitem(gpu.STAGES, "emotion", doubling())
    assert run(*quick("network emotion", tmp_path / "rows.json")) == 0
    assert said in capsys.readouterr().err
    assert run(*quick("network", tmp_path / "none.json")) == 2
    assert "no stage could run" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_a_stage_that_fails_or_differs_ends_in_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = RuntimeError("mixed dtype: expect parameter to have scalar type of Float")
    monkeypatch.setitem(gpu.STAGES, "network", doubling(load=raising(mixed)))
    monkeypatch.setitem(gpu.STAGES, "emotion", doubling(compare=lambda *_: Agreement(False, "labels 1/2")))
    assert run(*quick("network", tmp_path / "rows.json")) == 1
    assert "network: failed: RuntimeError('mixed dtype" in capsys.readouterr().err
    assert run(*quick("emotion", tmp_path / "rows.json")) == 1
    assert "DIFFERS: labels 1/2" in capsys.readouterr().out


def test_pytorch_and_little_more_are_enough_to_begin(tmp_path: Path) -> None:
    """Packages that are not there are None in `sys.modules`, which makes their import fail."""
    code = (
        f"import sys\nfor name in {MORE_THAN_PYTORCH!r}: sys.modules[name] = None\n"
        "from benchmarks.gpu import main\n"
        f"main(['--device', 'cpu', '--batch-sizes', '1', '--seconds', '0.01', '--json', {str(tmp_path / 'r.json')!r}])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads((tmp_path / "r.json").read_text())
    assert (row["stage"], row["agrees"]) == ("network", True)
    skipped = {line.split(":")[0] for line in ended.stderr.splitlines() if ": skipped: needs " in line}
    assert skipped == set(STAGES) - {"network"}


# --- When two devices agree -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "happy", "agrees"),
    [("happy", 0.60, True), ("happy", 0.619, True), ("happy", 0.63, False), ("sad", 0.6, False)],
)
def test_emotions_agree_by_label_and_within_two_hundredths(label: str, happy: float, agrees: bool) -> None:
    expected = Emotion("happy", {"happy": 0.6, "sad": 0.4}, 0.6)
    answer = Emotion(label, {"happy": happy, "sad": 1 - happy}, 0.6)
    assert compare_emotions([answer], [expected]).agrees == agrees


def test_texts_agree_where_three_words_in_a_hundred_differ() -> None:
    expected = [Transcript("one two three four five " * 20, "en", -0.1), Transcript("", "en", 0.0)]
    for others, agrees in ((0, True), (3, True), (4, False)):
        words = expected[0].text.split()
        words[:others] = ["other"] * others
        found = compare_texts([Transcript(" ".join(words), "en", -0.1), expected[1]], expected)
        assert found.agrees == agrees
        assert found.said == f"texts {1 if others else 2}/2, {others}.0% other words"


def test_states_agree_by_their_cosine() -> None:
    values = np.random.default_rng(0).standard_normal((5, 768)).astype(np.float32)
    expected = [TokenFeatures(("a",) * 5, values)]
    near = [TokenFeatures(("a",) * 5, values + np.float32(0.01))]
    far = [TokenFeatures(("a",) * 5, values + 0.2 * values[::-1])]
    assert compare_states(near, expected).agrees
    assert not compare_states(far, expected).agrees
