"""A corpus as one of several that a network learns from: what a recipe says about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from training.corpora.manifest import CLASSES, NO_EMOTION


@dataclass(frozen=True, slots=True)
class Teacher:
    """One entry of a recipe's `corpora`.

    Attributes:
        source: a manifest, or NAME=FOLDER, as `training.corpora.catalogue.open_corpus` takes it.
        weight: factor on how often its utterances are drawn.
        label: the class of every utterance whatever the corpus says, such as `neutral` for readings; `none` for sounds
            without an emotion, which are taught equal probabilities; None for the corpus's own labels.
        always: it stays in training when another corpus is left out, and is never left out itself.

    Raises:
        ValueError: the weight is not a finite number above 0, or the label is neither a class nor `none`.
    """

    source: str
    weight: float = 1.0
    label: str | None = None
    always: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"{self.source}: a weight is a number above 0; got {self.weight}")
        if self.label is not None and self.label not in (*CLASSES, NO_EMOTION):
            raise ValueError(f"{self.source}: the label {self.label!r} is none of {', '.join(CLASSES)}, {NO_EMOTION}")

    @property
    def name(self) -> str:
        """What the corpus is called: its adapter's name, or its manifest's file name without the ending."""
        name, equals, _ = self.source.partition("=")
        return name if equals else Path(self.source).stem
