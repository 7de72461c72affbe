"""Every network by the name that `FusionConfig.model` and checkpoints give it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fusion.amser_states import AmserStates, TextNetwork, VoiceNetwork
from fusion.baselines.umons import Umons
from fusion.baselines.xu import Xu
from fusion.baselines.yoon import Yoon
from fusion.network import Amser, AmserPlus, FusionConfig, FusionNetwork

MODELS: Mapping[str, type[FusionNetwork]] = MappingProxyType(
    {
        "amser": Amser,
        "amser-plus": AmserPlus,
        "amser-states": AmserStates,
        "voice": VoiceNetwork,
        "text": TextNetwork,
        "umons": Umons,
        "xu": Xu,
        "yoon": Yoon,
    }
)


def build(config: FusionConfig) -> FusionNetwork:
    """The network that a config names, with fresh weights.

    Raises:
        ValueError: there is no network of that name.
    """
    if config.model not in MODELS:
        raise ValueError(f"no network is called {config.model!r}; there are {', '.join(sorted(MODELS))}")
    return MODELS[config.model](config)
