"""A model's name in the settings → where it is on this machine, and which weights exactly."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from models.weights import UnknownModel, fingerprint, model_path


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model that settings name: where it is, and which weights exactly."""

    name: str
    location: Path | str
    fingerprint: str


def resolve(name: str) -> Resolved:
    """A name of the catalogue, a folder, or else a Hugging Face id."""
    try:
        return Resolved(name, model_path(name), fingerprint(name))
    except UnknownModel:
        folder = Path(name).expanduser()
        if folder.is_dir():
            return Resolved(folder.name, folder, _fingerprint_of_folder(folder))
        if "/" not in name:
            raise
    return Resolved(name, name, hashlib.sha256(f"hub:{name}".encode()).hexdigest())


def _fingerprint_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
