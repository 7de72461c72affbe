"""Speaker-independent folds: who is tested, who decides when training stops, who is learnt from."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol


class Spoken(Protocol):
    """Anything with a speaker in a fold."""

    @property
    def speaker(self) -> str: ...

    @property
    def fold(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of one fold's utterances; no speaker is in two groups, and the validation group is never the test."""

    fold: int
    training: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def split(utterances: Sequence[Spoken]) -> tuple[Split, ...]:
    """One split a fold: it is the test group, speakers of the next one the validation group, the rest is for training.

    Half of the next fold's speakers are enough to end a training, and speakers to learn from are dear: the second half,
    in the order of their names, is for training. A fold of one speaker is not divided.

    Raises:
        ValueError: an utterance has no fold, a speaker is in two folds, or there are fewer than three folds.
    """
    fold_of: dict[str, int] = {}
    for utterance in utterances:
        if utterance.fold is None:
            raise ValueError(f"speaker {utterance.speaker} has no fold: the manifest needs a column `fold`")
        if fold_of.setdefault(utterance.speaker, utterance.fold) != utterance.fold:
            raise ValueError(f"speaker {utterance.speaker} is in folds {fold_of[utterance.speaker]}, {utterance.fold}")
    folds = sorted(set(fold_of.values()))
    if len(folds) < 3:
        raise ValueError(f"folds {folds}: test, validation and training need three")
    following = dict(zip(folds, folds[1:] + folds[:1], strict=True))
    speakers = {fold: sorted(name for name, of in fold_of.items() if of == fold) for fold in folds}
    splits = []
    for fold in folds:
        test = set(speakers[fold])
        validation = set(speakers[following[fold]][: (len(speakers[following[fold]]) + 1) // 2])
        training = fold_of.keys() - test - validation
        splits.append(Split(fold, *(_members(utterances, group) for group in (training, validation, test))))
    return tuple(splits)


def _members(utterances: Sequence[Spoken], speakers: Set[str]) -> tuple[int, ...]:
    return tuple(index for index, utterance in enumerate(utterances) if utterance.speaker in speakers)
