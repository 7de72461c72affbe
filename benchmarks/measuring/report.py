"""What every benchmark writes beside its table: rows, and what they were measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from load_tests.report.environment import environment as environment_of

PACKAGES: Final = ("amser", "ctranslate2", "numpy", "onnxruntime", "openai-whisper", "ray", "torch", "transformers")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], **about: object) -> None:
    """Writes the rows as a JSON list. Each gains `about` and `environment`; what a row says itself stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {**environment(), **about}
    path.write_text(json.dumps([{**whole, **row} for row in rows], indent=1) + "\n", encoding="utf-8")


def environment() -> dict[str, Any]:
    """Command line, hardware, versions and the time, without anything that names this one machine."""
    return environment_of(PACKAGES)
