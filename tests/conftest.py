"""Real speech for the tests that need it; where it is absent they skip and say why."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from hypothesis import settings
from numpy.typing import NDArray

from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster
from deployments.weights import WeightsMissing, model_path

Waveform = NDArray[np.float32]

CLIPS = 8
SHORT_QUEUES = {
    "Ingress": {"max_ongoing_requests": 10, "max_queued_requests": 6},
    "WhisperASR": {"max_ongoing_requests": 4, "max_queued_requests": 3},
}

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


FOLDERS = ("unit", "local", "e2e", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is quick to fail comes first, and no idle cluster slows it down."""
    items.sort(key=lambda item: FOLDERS.index(item.path.relative_to(Path(__file__).parent).parts[0]))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """The distributed application on a real Ray, ready: one for all tests.

    As serve_config.yaml says, but with short queues and one replica each, so that a small burst fills it, and with
    little patience for slow clients.
    """
    for name in ("whisper-base", "spacy-en-core-web-md", "all-mpnet-base-v2"):
        try:
            model_path(name)
        except WeightsMissing as error:
            pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("cluster")
    config = yaml.safe_load(DEFAULT_CONFIG.read_text())
    config["http_options"]["request_timeout_s"] = 100
    for deployment in config["applications"][0]["deployments"]:
        del deployment["autoscaling_config"]
        deployment |= {"num_replicas": 1, **SHORT_QUEUES.get(deployment["name"], {})}
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    patience = {"body_timeout_s": 2, "deadline_s": 90, "max_rank": 40}
    log = folder / "cluster.log"
    with LocalCluster(path, log=log, num_gpus=0, http_port=0, overrides={"requests": patience}) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="session")
def client(cluster: LocalCluster) -> Iterator[httpx.Client]:
    """Of that cluster."""
    with httpx.Client(base_url=cluster.url, timeout=120) as opened:
        yield opened
