"""The application as a DAG to simulate: which deployment holds each stage, and what each one costs."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final, Literal

from load_tests.simulation.dag import Dag
from load_tests.simulation.service_times import ServiceTimes
from load_tests.simulation.stage import Deployment, Stage

Profile = Literal["distributed", "fused"]

DEPLOYMENTS: Final = {  # what runs each stage in the distributed profile
    "ingress": "Ingress",
    "mel": "MelReconstruction",
    "asr": "WhisperASR",
    "text_embedding": "TextEmbedding",
    "text_encoder": "Roberta",
    "fusion": "FusionClassifier",
}
AFTER: Final[Mapping[str, tuple[str, ...]]] = {  # the order of deployments/pipeline.py
    "mel": ("ingress",),
    "asr": ("mel",),
    "text_embedding": ("asr",),
    "text_encoder": ("asr",),
    "fusion": ("text_embedding", "text_encoder"),
}
GPU_SPEED_UP: Final = {
    "asr": 15.0,
    "text_encoder": 20.0,
    "fusion": 10.0,
}  # assumed, against one core of the measured kind


def build(
    times: ServiceTimes,
    profile: Profile,
    *,
    nodes: int = 1,
    cores: int = 2,
    gpus: int = 0,
    gpu_speed_up: Mapping[str, float] | None = None,
    replicas: Mapping[str, int] | None = None,
    cold_start_s: float = 10.0,
) -> Dag:
    """The application as a DAG to simulate.

    Args:
        times: measured.
        profile: a deployment for each stage, or all in one.
        nodes: each with so many `cores`.
        gpus: in all; the stages of `gpu_speed_up` run there where there are any.
        gpu_speed_up: by stage, against one core.
        replicas: by deployment; one where none is named.
        cold_start_s: of a replica.
    """
    faster, counts = (gpu_speed_up or GPU_SPEED_UP) if gpus else {}, replicas or {}
    stages = {}
    for name, time in times.stages.items():
        serving = times.serving[name]
        size = serving.gpu_batch_size if name in faster else serving.batch_size
        speed_up = faster.get(name, 1.0)
        service, second_pass = time.service(speed_up), time.second_pass(speed_up)
        stages[name] = Stage(name, serving.threads, size, service, serving.budget_s or inf, second_pass)
    if profile == "fused":
        hop_s = times.overhead_ms["fused"] / 1000.0
        together = Deployment(
            "Ingress", tuple(stages.values()), counts.get("Ingress", 1), 1.0, hop_s, cold_start_s=cold_start_s
        )
        if faster:
            raise ValueError("the fused profile is simulated on cores alone: plan GPUs with the distributed one")
        deployments: tuple[Deployment, ...] = (together,)
    else:
        hop_s = times.overhead_ms["distributed"] / 1000.0 / len(stages)
        deployments = tuple(
            Deployment(
                DEPLOYMENTS[name],
                (stage,),
                counts.get(DEPLOYMENTS[name], 1),
                times.serving[name].cpus,
                hop_s,
                cold_start_s,
                gpu=times.serving[name].gpu if name in faster else 0.0,
            )
            for name, stage in stages.items()
        )
    return Dag(deployments, AFTER, nodes, cores, gpus, times.contention)
