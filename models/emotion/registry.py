"""Every network by the name that recipes and checkpoints use (`FusionConfig.model`): ours and the published ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from models.emotion.amser_states import AmserStates, TextNetwork, VoiceNetwork
from models.emotion.config import FusionConfig
from models.emotion.network import FusionNetwork
from models.emotion.published.amser import Amser
from models.emotion.published.amser_plus import AmserPlus
from models.emotion.published.umons import Umons
from models.emotion.published.xu import Xu
from models.emotion.published.yoon import Yoon

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
