"""A gateway whose stages are elsewhere loads none of their libraries; ONNX Runtime finds the pauses of recordings."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "transformers", "spacy", "ctranslate2", "onnx", "whisper")


def test_the_gateway_imports_no_library_of_a_model() -> None:
    program = (
        "import json, sys, deployments.gateway.ingress, deployments.stages.served\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
