"""Settings → the bound Serve application: the `import_path` of serve_config.yaml."""

# No `from __future__ import annotations` here: Ray reads the type of `build`'s argument to parse `args` into it.

from typing import Any

from ray import serve

from deployments.accelerator import FUSED_SHARE, SHARES, actor_options, cluster_has_gpus, reserves_memory
from deployments.access import start
from deployments.gateway.ingress import Ingress
from deployments.settings import Settings
from deployments.stages.assembly import stage_arguments
from deployments.stages.served import models_of


def build(settings: Settings) -> serve.Application:
    """The application that these settings describe.

    Raises:
        deployments.access.start.NoAccessRule: the settings do not say who may ask.
        models.weights.WeightsMissing: a model is not on this machine; the text has the command that brings it.
        deployments.accelerator.NoGpu: GPUs were insisted on, and there are none.
    """
    start.check(settings.auth)
    gpus = cluster_has_gpus(settings.accelerator)
    # Models are looked for before any replica starts: what is missing is one message, not six
    models = models_of(settings, gpus)
    stages = stage_arguments(settings, gpus, models)
    ingress: Any = Ingress  # a deployment, which its decorator's type does not say
    if settings.profile == "fused":
        options = actor_options(FUSED_SHARE, gpus, reserves_memory([FUSED_SHARE]))
        return ingress.options(ray_actor_options=options).bind(settings, None, gpus, models)
    memory = reserves_memory(list(SHARES.values()))
    options_of = {name: actor_options(share, gpus, memory) for name, share in SHARES.items()}
    handles = {
        name: stage.options(ray_actor_options=options_of[stage.name]).bind(*arguments)
        for name, (stage, arguments) in stages.items()
    }
    return ingress.options(ray_actor_options=options_of["Ingress"]).bind(settings, handles, gpus, models)
