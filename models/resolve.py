"""A model's name in the settings → where it is on this machine, and which weights exactly.

An application is built on one node and runs on many, each with a cache and packages of its own. So a replica is told
what is `Wanted` and finds it on its own node (`locate`): no path leaves a machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.weights import UnknownModel, fingerprint, model_path

PACKAGE: Final = Path(__file__).parent
IN_PACKAGE: Final = "models:"  # begins the name of a file of this package, wherever a machine has the package


class OtherWeights(RuntimeError):  # noqa: N818 - an error by its base class
    """This machine has other weights than those that are wanted."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model that settings name: where it is, and which weights exactly."""

    name: str
    location: Path | str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model for a machine that is not known yet.

    Attributes:
        name: as `resolve` takes it.
        fingerprint: SHA-256 (hexadecimal) over its files, the same wherever they are.
    """

    name: str
    fingerprint: str


def wanted(name: str) -> Wanted:
    """What this machine has under a name, for others to find the same. Raises what `resolve` raises."""
    return Wanted(name, resolve(name).fingerprint)


def locate(model: Wanted) -> Path | str:
    """Where a model is on this machine.

    Raises:
        OtherWeights: what is here under that name is something else.
        UnknownModel, models.weights.WeightsMissing: see `resolve`.
    """
    found = resolve(model.name)
    if found.fingerprint != model.fingerprint:
        raise OtherWeights(
            f"{model.name} is another one here ({found.fingerprint[:12]}…) than where the application was built "
            f"({model.fingerprint[:12]}…): the same packages and the same files are needed"
        )
    return found.location


def resolve(name: str) -> Resolved:
    """A name of the catalogue, a folder, a file, or else a Hugging Face id.

    Raises:
        UnknownModel: it is none of these.
        models.weights.WeightsMissing: it is in the catalogue, and its weights are not on this machine.
    """
    try:
        return Resolved(name, model_path(name), fingerprint(name))
    except UnknownModel:
        inside = name.startswith(IN_PACKAGE)
        path = PACKAGE / name.removeprefix(IN_PACKAGE) if inside else Path(name).expanduser()
        if path.is_dir():
            return Resolved(path.name, path, _fingerprint_of_folder(path))
        if path.is_file():
            with path.open("rb") as stream:
                return Resolved(path.stem, path, hashlib.file_digest(stream, "sha256").hexdigest())
        if inside or path.is_absolute() or "/" not in name:
            raise
    return Resolved(name, name, hashlib.sha256(f"hub:{name}".encode()).hexdigest())


def portable(path: Path) -> str:
    """The name of a file: of this package by its place in it, of any other by its path."""
    return f"{IN_PACKAGE}{path.relative_to(PACKAGE).as_posix()}" if path.is_relative_to(PACKAGE) else str(path)


def _fingerprint_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
