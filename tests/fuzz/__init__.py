"""The product is tried by machines: `python -m tests.fuzz --minutes N` (docs/security.md)."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
if str(SUPPORT) not in sys.path:  # as pytest has it: recordings and small bombs that the tests share
    sys.path.append(str(SUPPORT))
