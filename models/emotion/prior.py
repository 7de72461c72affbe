"""How often each emotion is to be expected where the network is used.

Training is balanced by class, so its probabilities hold where every class is equally frequent. In conversations most
speech is neutral; Bayes' rule carries the probabilities over: multiplied by the shares there, divided by those of the
training (which are all equal), and renormalised (Saerens et al., Neural Computation 2002).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, get_args

Setting = Literal["balanced", "acted", "conversation"]
SUM_WITHIN: Final = 1e-3  # shares written with three digits
# Utterances of MELD's training part, 9,989 of a television series (Poria et al., ACL 2019)
MELD: Final = MappingProxyType(
    {"angry": 1109, "disgust": 271, "fear": 268, "happy": 1743, "neutral": 4710, "sad": 683, "surprise": 1205}
)


class PriorError(ValueError):
    """A prior that cannot be used."""


def shares(setting: Setting | Mapping[str, float], classes: Sequence[str]) -> dict[str, float]:
    """The share of each class, in the order of `classes`; they sum to one.

    Args:
        setting: `balanced` or `acted` for equal shares, `conversation` for those of MELD, or a share for each class.
        classes: of the network.

    Raises:
        PriorError: a class is unknown or has no share, a share is not above 0, the sum is not 1 within `SUM_WITHIN`, or
            there is no prior of that name.
    """
    weights: Mapping[str, float]
    if not isinstance(setting, str):
        check(setting)
        weights = setting
    elif setting == "conversation":
        weights = MELD
    elif setting in get_args(Setting):
        weights = dict.fromkeys(classes, 1.0)
    else:
        raise PriorError(f"no prior {setting!r}; known: {', '.join(get_args(Setting))}, or a share for each class")
    known = ", ".join(classes)
    if missing := [name for name in classes if name not in weights]:
        raise PriorError(f"the prior has no share for {', '.join(missing)}; the network knows {known}")
    if not isinstance(setting, str) and (unknown := sorted(weights.keys() - set(classes))):
        raise PriorError(f"the prior has a share for {', '.join(unknown)}; the network knows {known}")
    total = sum(weights[name] for name in classes)
    return {name: weights[name] / total for name in classes}


def check(prior: Mapping[str, float]) -> None:
    """What can be said of shares before the network is known; raises PriorError."""
    if wrong := [name for name, share in prior.items() if not share > 0]:
        raise PriorError(f"the share of {', '.join(wrong)} is not above 0")
    total = sum(prior.values())
    if not abs(total - 1) <= SUM_WITHIN:
        raise PriorError(f"the shares sum to {total:g}, not to 1")
