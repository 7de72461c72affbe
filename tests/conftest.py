"""Real speech, and a real cluster, for the tests that need them."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from drills import MODELS
from hypothesis import settings
from otlp import Receiver, receiver
from recordings import Waveform, speakers, waveform_of

from benchmarks.drills.redis_server import COMMAND, RedisServer
from deployments.intake.limits import ENVIRONMENT
from deployments.local_cluster import DEFAULT_CONFIG, LocalCluster
from models.weights import model_path

CLIPS = 8
SHORT_QUEUES = {
    "Ingress": {"max_ongoing_requests": 10, "max_queued_requests": 6},
    "WhisperASR": {"max_ongoing_requests": 4, "max_queued_requests": 3},
}

# A shell's background job ignores SIGINT, and so would every command that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: hypothesis would otherwise count every example that takes more than 200 ms as one.
settings.register_profile("amser", deadline=None)
settings.load_profile("amser")


@pytest.fixture(scope="session")
def speech() -> list[Waveform]:
    """LibriSpeech utterances of as many speakers: float32, 16 kHz."""
    return [waveform_of(row["path"]) for row in speakers(CLIPS)]


@pytest.fixture(autouse=True)
def no_given_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as without a terminal, also where a shell or a test runner has set its width."""
    monkeypatch.delenv("COLUMNS", raising=False)


FOLDERS = ("unit", "local", "e2e", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is quick to fail comes first, and no idle cluster slows it down."""

    def place(item: pytest.Item) -> int:
        return FOLDERS.index(item.path.relative_to(Path(__file__).parent).parts[0])

    items.sort(key=place)
    for item in items:
        if FOLDERS[place(item)] == "cluster":
            item.add_marker("slow")


@pytest.fixture(scope="session")
def collector() -> Iterator[Receiver]:
    """Takes the spans of the cluster."""
    with receiver() as running:
        yield running


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, collector: Receiver) -> Iterator[LocalCluster]:
    """The distributed application on a real Ray, ready: one for all tests.

    As serve_config.yaml says, but with short queues and one replica each, so that a small burst fills it, and with
    little patience for slow clients.
    """
    for name in MODELS:
        model_path(name)  # where it is missing: an error that names the command, before a cluster starts
    folder = tmp_path_factory.mktemp("cluster")
    config = yaml.safe_load(DEFAULT_CONFIG.read_text())
    config["http_options"]["request_timeout_s"] = 100
    for deployment in config["applications"][0]["deployments"]:
        del deployment["autoscaling_config"]
        deployment |= {"num_replicas": 1, **SHORT_QUEUES.get(deployment["name"], {})}
    path = folder / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config))
    traced = {"traces": {"endpoint": collector.endpoint, "sampling": 0}}  # what comes with a trace, and nothing else
    overrides = {"requests": {"deadline_s": 90, "max_rank": 40}, "telemetry": traced}
    log = folder / "cluster.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, json.dumps({"bodies": {"grace_s": 2}, "connections": {"head_s": 2}}))
        with LocalCluster(path, log=log, num_gpus=0, http_port=0, overrides=overrides) as running:
            running.wait_until_ready()
            yield running


@pytest.fixture(scope="session")
def client(cluster: LocalCluster) -> Iterator[httpx.Client]:
    """Of that cluster."""
    with httpx.Client(base_url=cluster.url, timeout=120) as opened:
        yield opened


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A real Redis, where one is installed."""
    if shutil.which(COMMAND) is None:
        pytest.skip(f"{COMMAND} is not installed: apt-get install {COMMAND}")
    with RedisServer() as running:
        yield running
