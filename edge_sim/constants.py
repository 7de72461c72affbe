"""Constants with their sources: how `radios.yaml` and `devices.yaml` are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeVar

import yaml

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ASSUMPTION: Final = "assumption: "

Constants = TypeVar("Constants", bound="DataclassInstance")


class UnknownName(KeyError):  # noqa: N818 - an error by its base class
    """No radio or device of that name. The message lists those there are."""

    def __init__(self, kind: str, name: str, known: Mapping[str, Any]) -> None:
        self.name = name
        super().__init__(f"no {kind} {name!r}; there are {', '.join(known)}")

    def __str__(self) -> str:
        return str(self.args[0])


class BadConstants(ValueError):  # noqa: N818 - an error by its base class
    """A constant that is missing, unknown, no number, negative, or without a source."""


@cache
def read_yaml(file: str) -> dict[str, Any]:
    """A YAML file of this package."""
    document: dict[str, Any] = yaml.safe_load(files("edge_sim").joinpath(file).read_text(encoding="utf-8"))
    return document


def sourced(kind: type[Constants], section: Mapping[str, Any], sources: Mapping[str, str], where: str) -> Constants:
    """A dataclass of numbers, from a mapping of `{value, source}`.

    Args:
        kind: the dataclass; its numeric fields are those of the section.
        section: name → value and source; keys that are no mapping are left to the caller.
        sources: what a source may name, beside an assumption with its reason.
        where: for the error.

    Raises:
        BadConstants: as named.
    """
    values: dict[str, float] = {}
    for name, entry in section.items():
        if not isinstance(entry, dict):
            continue
        if entry.keys() != {"value", "source"}:
            raise BadConstants(f"{where}.{name}: needs a value and a source")
        source = str(entry["source"])
        if source not in sources and not source.startswith(ASSUMPTION):
            raise BadConstants(f"{where}.{name}: its source {source!r} is neither in `sources` nor an assumption")
        value = entry["value"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise BadConstants(f"{where}.{name}: {value!r} is no number from 0 on")
        values[name] = value
    known = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    if unknown := values.keys() - known:
        raise BadConstants(f"{where}: no constant {', '.join(sorted(unknown))}")
    if missing := needed - values.keys():
        raise BadConstants(f"{where}: lacks {', '.join(sorted(missing))}")
    return kind(**values)
