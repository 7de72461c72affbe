"""`web/amser-client.js` in Node, against a cluster whose answers are made up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Site, site
from javascript import has_node
from pages import ROOT, blocks
from recordings import Waveform

from amser import wire
from amser.features import SAMPLE_RATE, log_mel, resample

pytestmark = pytest.mark.skipif(not has_node(), reason="node is not installed")

SCRIPT = """
import { readFileSync } from "node:fs";
import { Client, Refused } from "%s";
const samples = new Float32Array(new Uint8Array(readFileSync("samples")).buffer);
const client = new Client({ url: "%s", key: () => "amser_secret", deviceId: "kitchen", language: "de", step: "low" });
try {
  console.log(JSON.stringify(await client.recognize(samples, %d)));
} catch (error) {
  console.log(JSON.stringify({ refused: error instanceof Refused, status: error.status, message: error.message }));
}
"""


@pytest.fixture
def served() -> Iterator[Site]:
    with site() as running:
        yield running


def recognize(served: Site, folder: Path, samples: Waveform) -> dict[str, Any]:
    """What the client returns or throws."""
    (folder / "samples").write_bytes(samples.astype("<f4").tobytes())
    module = (ROOT / "web" / "amser-client.js").as_uri()
    (folder / "client.mjs").write_text(SCRIPT % (module, served.url, SAMPLE_RATE))
    done = subprocess.run(["node", "client.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_samples_become_an_envelope_and_an_answer(served: Site, tmp_path: Path, speech: list[Waveform]) -> None:
    answer = recognize(served, tmp_path, speech[0])
    assert answer["transcript"]["text"] == "Utterance 1 was heard."
    assert served.keys == ["Bearer amser_secret"]
    (envelope,) = served.received
    assert (envelope.device_id, envelope.language, envelope.codec) == ("kitchen", "de", "klt")
    assert wire.decode_mel(envelope).shape == log_mel(speech[0]).shape


def test_a_busy_cluster_is_asked_again_with_the_same_utterance(
    served: Site, tmp_path: Path, speech: list[Waveform]
) -> None:
    served.refuse += [429, 503]
    assert recognize(served, tmp_path, speech[0])["emotion"] == "happy"
    assert len(served.keys) == 3


def test_a_refusal_says_why(served: Site, tmp_path: Path, speech: list[Waveform]) -> None:
    served.refuse.append(401)
    refused = recognize(served, tmp_path, speech[0])
    assert refused == {"refused": True, "status": 401, "message": "this needs a valid key"}
    short = recognize(served, tmp_path, speech[0][:200])
    assert not short["refused"]


def test_the_example_of_the_page_prints_the_words(served: Site, tmp_path: Path, speech: list[Waveform]) -> None:
    examples = [block.content for block in blocks("docs/browser.md") if block.language == "javascript"]
    (example,) = [each for each in examples if "amser-client.js" in each]
    module = (ROOT / "web" / "amser-client.js").as_uri()
    example = example.replace("./amser-client.js", module).replace("http://localhost:8000/", served.url)
    (tmp_path / "samples").write_bytes(resample(speech[0], SAMPLE_RATE, 48_000).astype("<f4").tobytes())
    read = "const samples = new Float32Array(new Uint8Array(readFileSync('samples')).buffer);\n"
    (tmp_path / "example.mjs").write_text(f"import {{ readFileSync }} from 'node:fs';\n{read}{example}")
    done = subprocess.run(["node", "example.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "Utterance 1 was heard. happy\n"


def test_the_example_of_a_stream_prints_the_words(served: Site, tmp_path: Path, speech: list[Waveform]) -> None:
    node = ["node", "--experimental-websocket"]  # which Node 20 wants, and later ones take
    if subprocess.run([*node, "-e", "WebSocket"], capture_output=True).returncode:
        pytest.skip("this node has no WebSocket: 20.10 or later has one")
    examples = [block.content for block in blocks("docs/browser.md") if block.language == "javascript"]
    (example,) = [each for each in examples if "amser-stream.js" in each]
    for name in ("amser-codec.js", "amser-stream.js"):
        example = example.replace(f"./{name}", (ROOT / "web" / name).as_uri())
    example = example.replace("http://localhost:8000/", served.url)
    (tmp_path / "samples").write_bytes(resample(speech[0], SAMPLE_RATE, 48_000).astype("<f4").tobytes())
    read = "const samples = new Float32Array(new Uint8Array(readFileSync('samples')).buffer);\n"
    (tmp_path / "example.mjs").write_text(f"import {{ readFileSync }} from 'node:fs';\n{read}{example}")
    done = subprocess.run([*node, "example.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "Utterance 1 was heard. happy"
