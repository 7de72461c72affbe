"""What results that are kept on disk depend on besides their data: the code that computed them.

A kept network or feature is found again under a key. With a digest of the source files in the key, changed code leads
to new results by itself; a version number would have to be remembered by whoever changes the code.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import training

ROOT = Path(training.__file__).resolve().parents[1]  # of the packages

SPEECH_FEATURES = (
    "amser.channels",
    "amser.features",
    "amser.codecs",
    "models.whisper",
    "training.data.extraction",
    "training.data.feature_files",
    "training.data.reverberation",
    "training.data.waveform_augmentation",
)
TEXT_FEATURES = ("models.text", "training.data.texts")
NETWORKS = ("models.emotion", "training.data", "training.fitting", "training.judging", "training.corpora.goemotions")

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def source_digest(*modules: str) -> str:
    """A digest of what modules and packages compute.

    Comments, docstrings and the layout of the text do not count: they change no result.

    Args:
        modules: dotted names; of a package, every file in it counts.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    digest = hashlib.sha256()
    for module in modules:
        for file in _files(module):
            digest.update(f"{file.relative_to(ROOT).as_posix()}\n{_statements(file)}\n".encode())
    return digest.hexdigest()


def _files(module: str) -> Iterator[Path]:
    path = ROOT.joinpath(*module.split("."))
    files = [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else sorted(path.rglob("*.py"))
    if not files:
        raise ModuleNotFoundError(f"there is no module {module} in {ROOT}")
    yield from files


def _statements(file: Path) -> str:
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree)
