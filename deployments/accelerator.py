"""Where the stages run: on GPUs where the cluster has them, on CPUs where it has none.

A replica that asks for a GPU on a cluster without one waits for ever and says nothing, so the cluster is asked first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import ray

Kind = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica of a stage is given. Both are logical: they decide what fits beside what, and limit nothing.

    Attributes:
        num_cpus: in proportion to the work, and small enough that one replica of each stage fits on two cores. Those
            are full then: another replica would take seconds to start, and no core would be there for it.
        num_gpus: of one GPU, on a cluster that has any; 0 for stages that would not use it. Powers of two, so that
            whatever stands on a card, what is left of it is used (docs/decisions/0010).
    """

    num_cpus: float
    num_gpus: float = 0.0


SHARES: Final = {
    "Ingress": Share(0.1),
    "MelReconstruction": Share(0.1),
    "WhisperASR": Share(1.0, 0.25),
    "TextEmbedding": Share(0.1),
    "Roberta": Share(0.3, 0.125),
    "FusionClassifier": Share(0.3, 0.125),
}
FUSED_SHARE: Final = Share(1.0, 0.5)


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


def actor_options(share: Share, gpus: bool) -> dict[str, float]:
    """Ray's resources for one replica."""
    options = {"num_cpus": share.num_cpus}
    if gpus and share.num_gpus:
        options["num_gpus"] = share.num_gpus
    return options
