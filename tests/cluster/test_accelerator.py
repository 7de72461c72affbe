"""GPUs where the cluster has them and none where it has none; and the fused profile, which answers the same."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from recordings import envelope_of, silence, speakers, waveform_of

from amser import wire
from deployments.accelerator import SHARES
from deployments.local_cluster import DEFAULT_CONFIG, ClusterFailed, LocalCluster

FUSED_CONFIG = DEFAULT_CONFIG.with_name("serve_config.fused.yaml")
ON_GPU = {"WhisperASR", "Roberta", "FusionClassifier"}


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    """Speech of three speakers, and silence."""
    speech = [wire.pack(envelope_of(waveform_of(row["path"]), rate=0.25)) for row in speakers(3)]
    return [*speech, wire.pack(envelope_of(silence(1)))]


@pytest.fixture(scope="module")
def answers(cluster: LocalCluster, bodies: list[bytes]) -> list[dict[str, Any]]:
    """Of the distributed profile."""
    return [ask(cluster, body) for body in bodies]


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """The fused profile on a cluster without a GPU."""
    log = tmp_path_factory.mktemp("fused") / "cluster.log"
    with LocalCluster(FUSED_CONFIG, log=log, num_gpus=0, http_port=0) as running:
        running.wait_until_ready()
        yield running


def ask(cluster: LocalCluster, body: bytes) -> dict[str, Any]:
    headers = {"Content-Type": wire.MEDIA_TYPE, "Cache-Control": "no-store"}  # computed each time
    response = httpx.post(f"{cluster.url}/v1/emotion", content=body, headers=headers, timeout=120)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def gpus_asked_for(cluster: LocalCluster) -> dict[str, float]:
    """By the replicas of each deployment that asks for any."""
    asked = {
        name: deployment["deployment_config"]["ray_actor_options"].get("num_gpus") or 0.0
        for name, deployment in cluster.status()["deployments"].items()
    }
    return {name: count for name, count in asked.items() if count}


def assert_same_answer(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["transcript"]["text"] == other["transcript"]["text"]
    assert one["transcript"]["language"] == other["transcript"]["language"]
    assert one["emotion"] == other["emotion"]
    assert one["probabilities"] == pytest.approx(other["probabilities"], abs=0.02)
    assert one["input"] == other["input"]
    assert one["models"] == other["models"]


def words_apart(one: dict[str, Any], other: dict[str, Any]) -> int:
    """How many words of the first text the second does not have at their place."""
    texts = [answer["transcript"]["text"].split() for answer in (one, other)]
    matching = SequenceMatcher(None, *texts).get_matching_blocks()
    return len(texts[0]) - sum(block.size for block in matching)


def test_no_replica_asks_for_a_gpu_where_there_is_none(cluster: LocalCluster) -> None:
    assert set(cluster.status()["deployments"]) == set(SHARES)
    assert gpus_asked_for(cluster) == {}


def test_the_models_share_a_gpu_where_there_is_one(
    tmp_path: Path, bodies: list[bytes], answers: list[dict[str, Any]]
) -> None:
    """A GPU that Ray counts and CUDA does not see: replicas are given their shares, and compute on the CPU."""
    with LocalCluster(log=tmp_path / "cluster.log", num_gpus=1, http_port=0) as cluster:
        cluster.wait_until_ready()
        assert gpus_asked_for(cluster) == {name: SHARES[name].num_gpus for name in ON_GPU}
        for body, expected in zip(bodies, answers, strict=True):
            answer = ask(cluster, body)
            # Given a share, CTranslate2 hears the words, and the voice is encoded apart: rounded otherwise
            assert answer["models"] == {**expected["models"], "asr": "whisper-base-short (ctranslate2)"}
            assert words_apart(answer, expected) <= 1
            assert answer["emotion"] == expected["emotion"]
            assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=0.2)


def test_the_fused_profile_answers_as_the_distributed_one(
    fused: LocalCluster, bodies: list[bytes], answers: list[dict[str, Any]]
) -> None:
    assert set(fused.status()["deployments"]) == {"Ingress"}
    for body, expected in zip(bodies, answers, strict=True):
        answer = ask(fused, body)
        assert_same_answer(answer, expected)
        assert answer["timings_ms"].keys() == expected["timings_ms"].keys()


def test_insisting_on_a_gpu_that_is_not_there_fails_and_says_so(fused: LocalCluster) -> None:
    config = yaml.safe_load(FUSED_CONFIG.read_text())
    config["applications"][0]["args"] |= {"accelerator": "gpu", "auth": "none"}
    assert httpx.put(f"{fused.dashboard}/api/serve/applications/", json=config).is_success
    with pytest.raises(ClusterFailed, match="accelerator: gpu, but no node of the cluster has a GPU"):
        fused.wait_until_ready()
