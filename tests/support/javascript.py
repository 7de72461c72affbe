"""Calls of `web/amser-codec.js` from Python, through Node (`codec_calls.mjs`)."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CALLS = Path(__file__).with_name("codec_calls.mjs")
TYPES = {np.dtype(np.float32): "Float32Array"}
DTYPES = {"Float32Array": np.dtype("<f4"), "Uint8Array": np.dtype(np.uint8)}


def has_node() -> bool:
    return shutil.which("node") is not None


def to_javascript(value: Any) -> Any:
    """JSON of an argument: bytes and float32 arrays as typed arrays, a log-Mel (bands, frames) frame by frame."""
    if isinstance(value, bytes):
        return {"type": "Uint8Array", "data": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value.T, "<f4").tobytes()
        return {"type": TYPES[value.dtype], "data": base64.b64encode(flat).decode()}
    if isinstance(value, dict):
        return {key: to_javascript(each) for key, each in value.items()}
    return value


def from_javascript(value: Any) -> Any:
    """The opposite; arrays stay flat."""
    if isinstance(value, dict) and value.get("type") in DTYPES:
        array = np.frombuffer(base64.b64decode(value["data"]), DTYPES[value["type"]])
        return array.tobytes() if array.dtype == np.uint8 else array
    if isinstance(value, dict):
        return {key: from_javascript(each) for key, each in value.items()}
    return value


def call(calls: Sequence[Sequence[Any]]) -> list[Any]:
    """What the functions of `codec_calls.mjs` return, in order; `{"error": …}` for what one throws."""
    given = json.dumps([to_javascript_call(each) for each in calls])
    done = subprocess.run(
        ["node", "--input-type=module", "-e", f"await import({json.dumps(CALLS.as_uri())})"],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [from_javascript(each) for each in json.loads(done.stdout)]


def to_javascript_call(each: Sequence[Any]) -> list[Any]:
    return [to_javascript(value) for value in each]
