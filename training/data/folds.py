"""Which utterances train a network, which validate it and which test it: folds of speakers, or corpora left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from training.corpora.teacher import Teacher

LEAST_CORPORA = 3  # to leave each out in turn


class Spoken(Protocol):
    """Anything with a speaker in a fold; `dialogue` is shared by those who talk with each other."""

    @property
    def speaker(self) -> str: ...

    @property
    def fold(self) -> int | None: ...

    @property
    def dialogue(self) -> str | None: ...


class OfCorpus(Spoken, Protocol):
    """A speaker of a named corpus."""

    @property
    def corpus(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of utterances; no speaker is in two parts, nor are two who talk with each other.

    Attributes:
        fold: its number, from 1; 0 where nothing is tested.
        training: what a network learns from.
        validation: what chooses its epoch and temperature; may be empty.
        test: what judges it.
        name: the fold or the corpus that is tested, in file names and on the screen; `fold K` where it is not given.
    """

    fold: int
    training: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"fold {self.fold}")


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
        groups = [_members(utterances, part) for part in (training, validation, test)]
        splits.append(Split(fold, groups[0], groups[1], groups[2]))
    return tuple(splits)


def folds_within(utterances: Sequence[OfCorpus], corpus: str) -> tuple[Split, ...]:
    """The folds of one corpus, as `split` makes them, with all utterances of the other corpora in training.

    Raises:
        ValueError: as `split`.
    """
    members = [index for index, each in enumerate(utterances) if each.corpus == corpus]
    others = tuple(index for index, each in enumerate(utterances) if each.corpus != corpus)
    return tuple(
        Split(
            each.fold,
            (*(members[index] for index in each.training), *others),
            tuple(members[index] for index in each.validation),
            tuple(members[index] for index in each.test),
            f"{corpus} {each.name}",
        )
        for each in split([utterances[index] for index in members])
    )


def leave_one_corpus_out(utterances: Sequence[OfCorpus], teachers: Sequence[Teacher]) -> tuple[Split, ...]:
    """One split a corpus that is not always in training: it is the test part, everything else trains.

    Raises:
        ValueError: fewer than three corpora can be left out: two others calibrate what is said about one.
    """
    names = [each.name for each in teachers if not each.always]
    if not can_leave_corpora_out(teachers):
        listed = ", ".join(names) or "none"
        raise ValueError(f"corpora that can be left out: {listed}; {LEAST_CORPORA} are needed")
    splits = []
    for number, name in enumerate(names, start=1):
        test = tuple(index for index, each in enumerate(utterances) if each.corpus == name)
        splits.append(Split(number, _all_but(test, len(utterances)), (), test, name))
    return tuple(splits)


def two_halves_of_speakers(utterances: Sequence[OfCorpus], corpora: Set[str], name: str) -> tuple[Split, Split]:
    """Two splits: every second speaker of the corpora, in the order of names, is tested, or the others are.

    All other utterances are in training.

    Raises:
        ValueError: the corpora have fewer than two speakers.
    """
    speakers = sorted({each.speaker for each in utterances if each.corpus in corpora})
    if len(speakers) < 2:
        raise ValueError(f"{', '.join(sorted(corpora))}: two speakers are needed to judge one by the other")
    halves = []
    for number in (1, 2):
        tested = set(speakers[number - 1 :: 2])
        test = tuple(i for i, each in enumerate(utterances) if each.corpus in corpora and each.speaker in tested)
        halves.append(Split(number, _all_but(test, len(utterances)), (), test, f"{name} {number}"))
    return halves[0], halves[1]


def can_leave_corpora_out(teachers: Sequence[Teacher]) -> bool:
    """Whether there are enough corpora to leave each out in turn."""
    return sum(not each.always for each in teachers) >= LEAST_CORPORA


def _all_but(test: Sequence[int], count: int) -> tuple[int, ...]:
    tested = set(test)
    return tuple(index for index in range(count) if index not in tested)


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
