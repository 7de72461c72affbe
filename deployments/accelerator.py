"""Where the stages run: on GPUs where the cluster has them, on CPUs where it has none.

A replica that asks for a GPU on a cluster without one waits for ever and says nothing, so the cluster is asked first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import ray

logger = logging.getLogger("ray.serve")  # the logger that Serve writes to its files

GB: Final = 1e9  # bytes

Kind = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica of a stage is given. All of it is logical: it decides what fits beside what, and limits nothing.

    Attributes:
        num_cpus: in proportion to the work, and small enough that one replica of each stage fits on two cores. Those
            are full then: another replica would take seconds to start, and no core would be there for it.
        memory_gb: the most that a replica of the models that ship held under load (docs/decisions/0014), in 10^9 bytes.
        num_gpus: of one GPU, on a cluster that has any; 0 for stages that would not use it. Powers of two, so that
            whatever stands on a card, what is left of it is used (docs/decisions/0010).
    """

    num_cpus: float
    memory_gb: float
    num_gpus: float = 0.0

    @property
    def memory(self) -> float:
        """Bytes."""
        return self.memory_gb * GB


SHARES: Final = {
    "Ingress": Share(0.1, 0.8),  # with its two decoders
    "MelReconstruction": Share(0.1, 0.25),
    "WhisperASR": Share(1.0, 1.1, 0.25),
    "TextEmbedding": Share(0.1, 0.8),
    "Roberta": Share(0.3, 0.9, 0.125),
    "FusionClassifier": Share(0.3, 0.8, 0.125),
}
FUSED_SHARE: Final = Share(1.0, 2.3, 0.5)


class NoGpu(RuntimeError):  # noqa: N818 - an error by its base class
    """GPUs were insisted on, and the cluster has none."""


def cluster_has_gpus(kind: Kind) -> bool:
    """Whether replicas should ask for GPUs.

    Raises:
        NoGpu: `gpu` on a cluster without one.
    """
    if kind == "cpu":
        return False
    available = ray.is_initialized() and ray.cluster_resources().get("GPU", 0) > 0
    if kind == "gpu" and not available:
        raise NoGpu("accelerator: gpu, but no node of the cluster has a GPU; set accelerator: auto or cpu")
    return bool(available)


def reserves_memory(shares: Sequence[Share]) -> bool:
    """Whether replicas should ask for memory: where the nodes have room for one of each and one more of the largest,
    which an upgrade starts before it stops the old one.

    On a smaller cluster none asks, since it would wait for ever; what happens then is up to the machine.
    """
    if not ray.is_initialized():
        return False
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    free = [each.get("memory", 0.0) for each in resources if each.get("CPU")]  # a head without any runs no replica
    needed = sorted([*(share.memory for share in shares), max(share.memory for share in shares)], reverse=True)
    for asked in needed:
        place = next((index for index, left in enumerate(free) if left >= asked), None)
        if place is None:
            logger.warning(
                "no replica reserves memory: one of each stage and one to replace the largest take %.1f GB, "
                "the cluster has %.1f GB for replicas",
                sum(needed) / GB,
                ray.cluster_resources().get("memory", 0.0) / GB,
            )
            return False
        free[place] -= asked
    return True


def actor_options(share: Share, gpus: bool, memory: bool = False) -> dict[str, float]:
    """Ray's resources for one replica."""
    options = {"num_cpus": share.num_cpus}
    if memory:
        options["memory"] = share.memory
    if gpus and share.num_gpus:
        options["num_gpus"] = share.num_gpus
    return options
