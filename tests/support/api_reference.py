"""What is written of the API from the application itself: `python tests/support/api_reference.py` writes both files.

tests/data/openapi.json is the OpenAPI document, so that a change of the API is seen; the tables of docs/api.md come
from the same document.
"""

from __future__ import annotations

import json
from pathlib import Path

from deployments.gateway.ingress import api
from deployments.gateway.reference.tables import written

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOT = ROOT / "tests" / "data" / "openapi.json"
PAGE = ROOT / "docs" / "api.md"


def snapshot() -> str:
    """The OpenAPI document as it is kept."""
    return json.dumps(api.openapi(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def page() -> str:
    """docs/api.md with its tables renewed."""
    return written(PAGE.read_text(encoding="utf-8"), api.openapi())


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
