"""What `serve deploy` is given: complete, bounded, and consistent with the settings and with Ray's own rules."""

from __future__ import annotations

from math import log2
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from deployments.accelerator import FUSED_SHARE, SHARES, actor_options
from deployments.access.settings import AuthSettings
from deployments.intake.limits import ProxySettings
from deployments.local_cluster import DEFAULT_CONFIG
from deployments.settings import Settings

FUSED_CONFIG = DEFAULT_CONFIG.with_name("serve_config.fused.yaml")
CORES = 2
STAGES = {"Ingress", "MelReconstruction", "WhisperASR", "TextEmbedding", "Roberta", "FusionClassifier"}


@pytest.fixture(params=[DEFAULT_CONFIG, FUSED_CONFIG], ids=["distributed", "fused"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.param
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def application(config: dict[str, Any]) -> dict[str, Any]:
    (only,) = config["applications"]
    return dict(only)


def settings_of(config: dict[str, Any]) -> Settings:
    return Settings.model_validate(application(config)["args"])


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    schema = ServeDeploySchema.model_validate(config)
    assert schema.applications[0].import_path == "deployments.app:build"
    assert schema.applications[0].route_prefix == "/"


def test_its_arguments_are_settings(config: dict[str, Any]) -> None:
    assert settings_of(config).accelerator == "auto"


def test_it_wants_keys(config: dict[str, Any]) -> None:
    assert settings_of(config).auth == AuthSettings(mode="keys")


def test_it_names_the_deployments_of_its_profile(config: dict[str, Any]) -> None:
    expected = {"distributed": STAGES, "fused": {"Ingress"}}[settings_of(config).profile]
    assert {deployment["name"] for deployment in application(config)["deployments"]} == expected
    assert expected <= SHARES.keys()


def test_it_listens_on_loopback(config: dict[str, Any]) -> None:
    assert config["http_options"]["host"] == "127.0.0.1"


def test_no_proxy_is_a_bottleneck_for_a_cluster() -> None:
    assert yaml.safe_load(DEFAULT_CONFIG.read_text())["proxy_location"] == "EveryNode"


def test_every_deployment_scales(config: dict[str, Any]) -> None:
    for deployment in ServeDeploySchema.model_validate(config).applications[0].deployments:
        scaling = deployment.autoscaling_config
        assert scaling["min_replicas"] >= 1, deployment.name
        assert scaling["max_replicas"] > scaling["min_replicas"], deployment.name
        # An interval that is no shorter than the window leaves the autoscaler without a figure
        assert scaling["metrics_interval_s"] < scaling["look_back_period_s"], deployment.name
        # A request is never moved to another replica, so a replica must take more than the target
        assert deployment.max_ongoing_requests >= 1.2 * scaling["target_ongoing_requests"], deployment.name


def test_every_queue_ends_and_says_when_to_come_back(config: dict[str, Any]) -> None:
    for deployment in application(config)["deployments"]:
        assert 0 < deployment["max_queued_requests"] <= 1000, deployment["name"]
        assert deployment["backpressure_config"]["status_code"] == 429, deployment["name"]
        assert deployment["backpressure_config"]["retry_after_s"] >= 1, deployment["name"]


def test_every_deployment_is_watched_and_ends_in_order(config: dict[str, Any]) -> None:
    deadline = settings_of(config).requests.deadline_s
    for deployment in application(config)["deployments"]:
        assert 0 < deployment["health_check_period_s"] <= 10, deployment["name"]
        assert deployment["health_check_timeout_s"] > deployment["health_check_period_s"], deployment["name"]
        assert deployment["graceful_shutdown_timeout_s"] > deadline, deployment["name"]


def test_the_application_gives_up_before_the_proxy_does(config: dict[str, Any]) -> None:
    requests = settings_of(config).requests
    assert config["http_options"]["request_timeout_s"] > requests.deadline_s > requests.bodies.grace_s


def test_readiness_finds_room_beside_requests_and_bodies(config: dict[str, Any]) -> None:
    requests = settings_of(config).requests
    (ingress,) = (each for each in application(config)["deployments"] if each["name"] == "Ingress")
    quick = ingress["max_ongoing_requests"] - requests.at_once - requests.bodies.at_once
    assert quick >= requests.at_once  # for what is refused or answered at once


def test_a_wav_over_a_slow_link_keeps_the_pace(config: dict[str, Any]) -> None:
    """20 s of 16 kHz WAV at 400 kbit/s take 12.8 s; ten seconds for a whole body never let it arrive."""
    bodies = settings_of(config).requests.bodies
    assert 2 * bodies.pace < 400_000 / 8
    assert ProxySettings().bodies.pace == bodies.pace
    assert ProxySettings().bodies.grace_s == bodies.grace_s
    assert ProxySettings().largest_body >= settings_of(config).requests.max_audio_bytes


def test_batches_can_fill() -> None:
    config = yaml.safe_load(DEFAULT_CONFIG.read_text())
    settings = settings_of(config)
    recognizer = settings.recognizer
    ongoing = {entry["name"]: entry["max_ongoing_requests"] for entry in application(config)["deployments"]}
    assert ongoing["WhisperASR"] >= 3 * recognizer.batches * recognizer.batch_size
    assert ongoing["Roberta"] >= 3 * settings.text_encoder.batch_size


def test_one_replica_of_each_deployment_fits_two_cores(config: dict[str, Any]) -> None:
    shares = {"Ingress": FUSED_SHARE} if settings_of(config).profile == "fused" else SHARES
    asked = sum(
        deployment["autoscaling_config"]["min_replicas"] * shares[deployment["name"]].num_cpus
        for deployment in application(config)["deployments"]
    )
    assert asked <= CORES


def test_a_successor_finds_room_beside_the_fused_replica_on_two_cores() -> None:
    """The replica fills both: that is why the policy grows it by `cores` and not by its share."""
    policy = application(yaml.safe_load(FUSED_CONFIG.read_text()))["autoscaling_policy"]
    assert policy["policy_kwargs"]["spare"] == {"Ingress": 1}
    assert 2 * FUSED_SHARE.num_cpus <= CORES <= Settings().recognizer.cores


def test_one_gpu_holds_the_pipeline_and_two_more_recognisers_and_is_full_then() -> None:
    shares = {name: share.num_gpus for name, share in SHARES.items()}
    assert sum(shares.values()) + 2 * shares["WhisperASR"] == 1
    assert FUSED_SHARE.num_gpus == sum(shares.values())


def test_what_is_left_of_a_gpu_is_always_room_for_something() -> None:
    """Powers of two: first-fit, the largest first, leaves nothing that adds up to a card unused."""
    for share in (*SHARES.values(), FUSED_SHARE):
        assert share.num_gpus == 0 or log2(share.num_gpus).is_integer()


def test_only_models_that_use_a_gpu_ask_for_a_share_of_one() -> None:
    asking = {name for name, share in SHARES.items() if "num_gpus" in actor_options(share, gpus=True)}
    assert asking == {"WhisperASR", "Roberta", "FusionClassifier"}
    assert not any("num_gpus" in actor_options(share, gpus=False) for share in SHARES.values())
