"""Real speech for the tests that need it; where it is absent they skip and say why."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

Waveform = NDArray[np.float32]

CLIPS = 8

# A busy machine is no failure: hypothesis would otherwise count every example that takes more than 200 ms as one.
settings.register_profile("amser", deadline=None)
settings.load_profile("amser")


def find_data() -> Path | None:
    """The folder of shared data: AMSER_DATA, or shared/data beside the repository or above it."""
    if configured := os.environ.get("AMSER_DATA"):
        return Path(configured) if Path(configured).is_dir() else None
    folders = (parent / "shared" / "data" for parent in Path(__file__).resolve().parents)
    return next((folder for folder in folders if folder.is_dir()), None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of manifests and audio that README.md describes."""
    folder = find_data()
    if folder is None:
        pytest.skip("no shared data: set AMSER_DATA to the folder that holds speech/librispeech.tsv")
    return folder


@pytest.fixture(scope="session")
def speech(shared_data: Path) -> list[Waveform]:
    """A few LibriSpeech utterances of as many readers: float32, 16 kHz."""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: reads the FLAC clips")
    manifest = shared_data / "speech" / "librispeech.tsv"
    if not manifest.is_file():
        pytest.skip(f"no real speech: {manifest} is missing")
    with manifest.open(encoding="utf-8", newline="") as lines:
        clip_of_each_reader = {row["speaker"]: row["path"] for row in csv.DictReader(lines, delimiter="\t")}
    waveforms = []
    for path in list(clip_of_each_reader.values())[:CLIPS]:
        waveform, rate = soundfile.read(shared_data / path, dtype="float32")
        assert rate == 16_000, f"{path} is at {rate} Hz"
        waveforms.append(waveform)
    return waveforms
