"""Weights that are another model's with an adapter put on them: fetched, verified and found like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file
from shelf import Shelf, put, sha256
from small_whisper import write_whisper

from models.weights import FetchFailed, UnknownModel, adapted_from, fetch, fingerprint, model_path, verify
from models.weights import sources as weight_sources
from models.weights.catalogue import AdapterSource, load
from models.whisper.adapter import adapt

WIDTH, RANK = 64, 2
NAME = "encoder.blocks.0.mlp.0.weight"
OWN = "speech.json"  # what the adapted model alone has
OWN_CONTENT = b'{"hears_short": true}'
TOKENIZER = b'{"version": "1.0"}'


class Adapted(Shelf):
    """A shelf with a model `base` in the folder that the operator names, and a model `short` that adapts it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.package = root / "package"
        self.mirror = root / "usb"
        whisper = write_whisper(root / "whisper", WIDTH, layers=1)
        self.base = {
            "model.bin": (whisper / "model.bin").read_bytes(),
            "config.json": (whisper / "config.json").read_bytes(),
            "tokenizer.json": TOKENIZER,
        }
        put(self.base, self.mirror / "base")
        self.write_adapter(1.0)
        adapt(whisper / "model.bin", self.package / "whisper" / "short" / "adapter.safetensors", root / "expected.bin")
        self.short = self.base | {"model.bin": (root / "expected.bin").read_bytes(), OWN: OWN_CONTENT}
        self.write_catalogue()

    def write_adapter(self, size: float) -> None:
        folder = self.package / "whisper" / "short"
        put({OWN: OWN_CONTENT}, folder)
        up, down = np.full((4 * WIDTH, RANK), size, np.float16), np.full((RANK, WIDTH), 0.25, np.float16)
        save_file({f"{NAME}.up": up, f"{NAME}.down": down}, folder / "adapter.safetensors")

    def write_catalogue(self, *more: dict[str, Any], base: bool = True) -> None:
        """`short` comes from the sources in `more`, if any, before it is adapted."""
        adapter = {"adapts": "base", "folder": "whisper/short"}
        models = [self.entry("short", self.short, [*more, adapter])]
        if base:
            models.append(self.entry("base", self.base, [{"path": "base"}]))
        self.catalogue.write_text(yaml.safe_dump({"version": 1, "models": models}))

    def entry(self, name: str, files: dict[str, bytes], sources: list[dict[str, Any]]) -> dict[str, Any]:
        listed = [{"path": path, "bytes": len(content), "sha256": sha256(content)} for path, content in files.items()]
        described = {"description": "A model.", "licence": "MIT", "format": "ctranslate2", "default": False}
        return {"name": name, "files": listed, "sources": sources} | described

    def fetch_short(self, **options: Any) -> str:
        return fetch("short", self.store, self.catalogue, **options)

    def names(self) -> set[str]:
        """Of the models in the store, and of whatever else a fetch left there."""
        return {path.name for path in self.store.iterdir() if not path.name.endswith(".lock")}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adapted:
    shelf = Adapted(tmp_path)
    monkeypatch.setenv("AMSER_WEIGHTS_FROM", str(shelf.mirror))
    monkeypatch.setattr(weight_sources, "PACKAGE", shelf.package)
    return shelf


def test_an_adapted_model_brings_the_one_that_it_adapts(shelf: Adapted) -> None:
    assert shelf.fetch_short() == "from adapter of base"
    folder = model_path("short", shelf.store, shelf.catalogue)
    assert {path: (folder / path).read_bytes() for path in shelf.short} == shelf.short
    assert shelf.names() == {"base", "short"}
    assert verify("short", shelf.store, shelf.catalogue) == []
    assert verify("base", shelf.store, shelf.catalogue) == []


def test_the_model_that_it_adapts_stays_as_it_was(shelf: Adapted) -> None:
    assert fetch("base", shelf.store, shelf.catalogue) == "from path base"
    shelf.fetch_short(mirror=shelf.root / "an empty folder")  # the base is not brought again
    folder = model_path("base", shelf.store, shelf.catalogue)
    assert {path: (folder / path).read_bytes() for path in shelf.base} == shelf.base
    assert shelf.short["model.bin"] != shelf.base["model.bin"]


def test_a_second_fetch_makes_nothing_again(shelf: Adapted, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.fetch_short()
    monkeypatch.setattr(weight_sources, "adapt", lambda *_: pytest.fail("adapted again"))
    assert shelf.fetch_short() == "already there"


def test_progress_ends_with_all_of_the_adapted_model(shelf: Adapted) -> None:
    seen: list[tuple[int, int]] = []
    shelf.fetch_short(progress=lambda *progress: seen.append(progress))
    size = sum(map(len, shelf.short.values()))
    assert seen[-1] == (size, size)


def test_a_folder_with_the_adapted_model_serves_before_the_adapter(
    shelf: Adapted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the base cannot be had, too."""
    shelf.write_catalogue({"path": "short"})
    put(shelf.short, shelf.root / "stick" / "short")
    monkeypatch.setattr(weight_sources, "adapt", lambda *_: pytest.fail("adapted"))
    assert shelf.fetch_short(mirror=shelf.root / "stick") == "from path short"
    assert shelf.names() == {"short"}


def test_without_the_base_the_error_names_it(shelf: Adapted) -> None:
    with pytest.raises(FetchFailed) as failure:
        shelf.fetch_short(mirror=shelf.root / "an empty folder")
    assert "short: no source could bring it" in str(failure.value)
    assert "adapter of base: base is not in the store" in str(failure.value)
    assert shelf.names() == set()


def test_a_base_with_other_bytes_is_not_adapted(shelf: Adapted) -> None:
    """The file of the operator is not the one of the catalogue: neither model comes into the store."""
    changed = bytearray(shelf.base["model.bin"])
    changed[-200] ^= 1
    put({"model.bin": bytes(changed)}, shelf.mirror / "base")
    with pytest.raises(FetchFailed, match="base is not in the store"):
        shelf.fetch_short()
    assert shelf.names() == set()


def test_another_adapter_than_the_catalogues_is_noticed_by_the_hash(shelf: Adapted) -> None:
    shelf.write_adapter(2.0)
    with pytest.raises(FetchFailed, match=r"adapter of base: model.bin: SHA-256 is [0-9a-f]{64}"):
        shelf.fetch_short()
    assert shelf.names() == {"base"}


def test_a_package_without_the_adapter_says_which_file_is_missing(shelf: Adapted) -> None:
    (shelf.package / "whisper" / "short" / "adapter.safetensors").unlink()
    with pytest.raises(FetchFailed, match=r"adapter of base: .*adapter.safetensors"):
        shelf.fetch_short()


def test_an_adapter_of_another_model_is_a_source_that_failed(shelf: Adapted) -> None:
    changes = {f"encoder.blocks.7.mlp.0.weight.{part}": np.zeros((2, 2), np.float16) for part in ("up", "down")}
    save_file(changes, shelf.package / "whisper" / "short" / "adapter.safetensors")
    with pytest.raises(FetchFailed, match=r"encoder.blocks.7.mlp.0.weight is not a matrix"):
        shelf.fetch_short()


def test_an_adapted_model_has_a_fingerprint_of_its_own_and_says_whose_states_it_keeps(shelf: Adapted) -> None:
    assert fingerprint("short", shelf.catalogue) != fingerprint("base", shelf.catalogue)
    assert adapted_from("short", shelf.catalogue) == "base"
    assert adapted_from("base", shelf.catalogue) == "base"
    assert adapted_from("a checkpoint's own name", shelf.catalogue) == "a checkpoint's own name"


def test_a_base_that_the_catalogue_lacks_is_named(shelf: Adapted) -> None:
    shelf.write_catalogue(base=False)
    with pytest.raises(UnknownModel, match="no model is called 'base'"):
        shelf.fetch_short()


def test_the_catalogue_keeps_an_adapter_inside_the_package(shelf: Adapted) -> None:
    (source,) = load(shelf.catalogue)["short"].sources
    assert source == AdapterSource(adapts="base", folder="whisper/short")
    outside = shelf.catalogue.read_text().replace("whisper/short", "../short")
    shelf.catalogue.write_text(outside)
    with pytest.raises(ValueError, match="would leave the model's folder"):
        load(shelf.catalogue)
