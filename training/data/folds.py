"""Speaker-independent folds: which utterances train a network, which validate it and which test it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol


class Spoken(Protocol):
    """Anything with a speaker in a fold; `dialogue` is shared by those who talk with each other."""

    @property
    def speaker(self) -> str: ...

    @property
    def fold(self) -> int | None: ...

    @property
    def dialogue(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of one fold's utterances; no speaker is in two parts, nor are two who talk with each other."""

    fold: int
    training: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def split(utterances: Sequence[Spoken]) -> tuple[Split, ...]:
    """One split a fold: it is the test part, speakers of the next fold validate, the rest trains.

    Half of the next fold is enough to validate, and training needs speakers: the second half, in the order of names,
    trains. Speakers who talk with each other are never parted: where the next fold is one dialogue, all of it validates
    (leave one session out). Nor is a fold of one speaker divided.

    Raises:
        ValueError: an utterance has no fold, a speaker or people who talk with each other are in two folds, or there
            are fewer than three folds.
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
    units = _units(utterances, fold_of)
    splits = []
    for fold in folds:
        test = {speaker for speaker, of in fold_of.items() if of == fold}
        candidates = [unit for unit in units if fold_of[unit[0]] == following[fold]]
        validation = {speaker for unit in candidates[: (len(candidates) + 1) // 2] for speaker in unit}
        training = fold_of.keys() - test - validation
        splits.append(Split(fold, *(_members(utterances, part) for part in (training, validation, test))))
    return tuple(splits)


def _units(utterances: Sequence[Spoken], fold_of: Mapping[str, int]) -> list[list[str]]:
    """Sorted speakers who talk with each other, directly or through others; one who speaks alone is a unit alone."""
    unit_of = {speaker: {speaker} for speaker in fold_of}
    first_in: dict[str, str] = {}
    for utterance in utterances:
        if utterance.dialogue is None:
            continue
        first = first_in.setdefault(utterance.dialogue, utterance.speaker)
        if fold_of[first] != fold_of[utterance.speaker]:
            raise ValueError(
                f"speakers {first} and {utterance.speaker} talk with each other (dialogue {utterance.dialogue}), "
                f"but are in folds {fold_of[first]}, {fold_of[utterance.speaker]}"
            )
        if unit_of[first] is not unit_of[utterance.speaker]:
            unit_of[first] |= unit_of[utterance.speaker]
            for speaker in unit_of[utterance.speaker]:
                unit_of[speaker] = unit_of[first]
    return sorted({min(unit): sorted(unit) for unit in unit_of.values()}.values())


def _members(utterances: Sequence[Spoken], speakers: Set[str]) -> tuple[int, ...]:
    return tuple(index for index, utterance in enumerate(utterances) if utterance.speaker in speakers)
