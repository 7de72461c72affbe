"""What Ray gave this replica. It says so to the autoscaling policy, which has to know it from nobody else."""

from __future__ import annotations

from typing import Final

import ray

NUM_CPUS, NUM_GPUS, MEMORY = "num_cpus", "num_gpus", "memory"
CORES = "cores"  # that it computes on when it is busy, where that is more than its share

_NAMES: Final = {"CPU": NUM_CPUS, "GPU": NUM_GPUS, "memory": MEMORY}  # by Ray's own


def assigned() -> dict[str, float]:
    """Logical CPUs, GPUs and bytes of memory of this replica; empty outside a Ray worker."""
    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return {}
    given = ray.get_runtime_context().get_assigned_resources()
    return {name: float(given.get(resource, 0.0)) for resource, name in _NAMES.items()}
