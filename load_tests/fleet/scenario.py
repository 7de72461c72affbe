"""A scenario: when requests arrive, from which devices, how some of them misbehave, and what is to be kept.

Those that come with the package are `scenarios/*.yaml`; one's own is named by its path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edge_sim.hardware import hardware_names
from load_tests.fleet.arrivals import AnyRateProfile, Replay, at_rate

FOLDER: Final = "scenarios"
ROUNDING: Final = 1e-6  # that shares may miss 1 by
MOST_DEVICES: Final = 1_000_000

Share = Annotated[float, Field(ge=0, le=1)]


class BadScenario(ValueError):  # noqa: N818 - an error by its base class
    """No scenario of that name, or one that cannot be run. The message names file and field."""


class Misbehaviour(StrEnum):
    """What a bad client does. It counts as `ok` where the cluster answers as it should."""

    BROKEN = "broken"  # random bytes, a cut envelope, a flipped bit: 400 (415 where not even the format is told)
    SLOW = "slow"  # trickles its body: 408, or an answer
    OVERSIZED = "oversized"  # a body above the limit: 413
    VANISHING = "vanishing"  # closes once it has sent: nothing to answer
    MISLEADING = "misleading"  # a wrong hint: another language than is spoken, one that nobody speaks, no deadline
    FLOODING = "flooding"  # many utterances at once; all such devices have one address: answers, or 429


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(_Strict):
    """The way between device and cluster."""

    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the attempts whose connection is cut in the middle of the body."""
    resend_after_s: Annotated[float, Field(ge=0)] = 0.5
    """What the device then waits before it sends again, with the same utterance id."""


class Scenario(_Strict):
    """What `run_scenario` runs."""

    name: str
    """Of its file."""
    description: Annotated[str, Field(min_length=1)]
    """A sentence."""
    arrivals: AnyRateProfile
    """When requests arrive, and for how many seconds; rates are requests a second."""
    devices: Annotated[int, Field(ge=1, le=MOST_DEVICES)] = 200
    """In the fleet."""
    mix: Mapping[str, Share] = {"phone": 1.0}
    """Shares of the kinds in edge_sim/devices.yaml; they add up to 1."""
    misbehaviour: Mapping[Misbehaviour, Share] = {}
    """Shares of the devices that are bad clients; the others are good."""
    link: Link = Link()
    objective_ms: Annotated[float, Field(gt=0)] = 2000.0
    """Latency from the scheduled time that 99 of 100 answers are to keep."""
    deadline_ms: Annotated[int, Field(gt=0)] | None = None
    """Sent as `Amser-Deadline-Ms`; none where it is left out."""
    strict: bool = False
    """Asks for a whole answer or none: `Prefer: handling=strict` (RFC 7240, 4.4)."""
    addresses: bool = False
    """Each device names an address of its own in `X-Forwarded-For`, as if this generator were the proxy in front. The
    cluster believes it where it trusts this machine: on loopback, or by `FORWARDED_ALLOW_IPS`."""

    @property
    def seconds(self) -> float:
        """Of the schedule."""
        return self.arrivals.seconds

    @field_validator("mix")
    @classmethod
    def _of_known_devices(cls, mix: Mapping[str, float]) -> Mapping[str, float]:
        if unknown := mix.keys() - set(hardware_names()):
            raise ValueError(f"no device {', '.join(sorted(unknown))}; there are {', '.join(hardware_names())}")
        if not math.isclose(total := sum(mix.values()), 1, abs_tol=ROUNDING):
            raise ValueError(f"the shares add up to {total:g}, not to 1")
        return mix

    @field_validator("misbehaviour")
    @classmethod
    def _of_some(cls, shares: Mapping[Misbehaviour, float]) -> Mapping[Misbehaviour, float]:
        if (total := sum(shares.values())) > 1 + ROUNDING:
            raise ValueError(f"the shares add up to {total:g}, to more than 1")
        return shares

    def adjusted(self, *, rate: float | None = None, seconds: float | None = None, devices: int | None = None) -> Self:
        """The same scenario with another rate, length or fleet; None leaves it.

        Args:
            rate: requests a second, of the base or the mean; a spike, a ramp and a day grow alike.
            seconds: of the schedule, whose shape is stretched or squeezed.
            devices: in the fleet.

        Raises:
            BadScenario: a number that is not above 0, or no arrivals to scale.
        """
        arrivals = self.arrivals
        for name, value in (("rate", rate), ("seconds", seconds), ("devices", devices)):
            if value is not None and not 0 < value < math.inf:
                raise BadScenario(f"{self.name}: {name} is {value:g}; it must be above 0")
        try:
            if seconds is not None:
                arrivals = arrivals.lasting(seconds)
            if rate is not None:
                arrivals = at_rate(arrivals, rate)
        except (ValueError, OSError) as error:
            raise BadScenario(f"{self.name}: arrivals: {error}") from None
        return self.model_copy(update={"arrivals": arrivals, "devices": devices or self.devices})


def scenario_names() -> tuple[str, ...]:
    """The scenarios that come with the package."""
    folder = files("load_tests").joinpath(FOLDER)
    return tuple(sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml")))


def load_scenario(name: str) -> Scenario:
    """A scenario by its name, or by the path of a YAML file.

    Raises:
        BadScenario: there is none, or it cannot be run.
    """
    if name in scenario_names():
        where, text = f"{FOLDER}/{name}.yaml", files("load_tests").joinpath(FOLDER, f"{name}.yaml").read_text("utf-8")
        folder = Path()
    else:
        if not Path(name).is_file():
            raise BadScenario(f"no scenario {name!r}; there are {', '.join(scenario_names())}, or the path of a file")
        where, text, folder = name, Path(name).read_text("utf-8"), Path(name).parent
    return _read(text, where, Path(where).stem, folder)


def _read(text: str, where: str, name: str, folder: Path) -> Scenario:
    try:
        document = yaml.safe_load(text)
        if not isinstance(document, dict):
            raise BadScenario(f"{where}: is no mapping of fields")
        scenario = Scenario(name=name, **document)
        if isinstance(scenario.arrivals, Replay):  # a relative path is one beside the scenario
            replay = scenario.arrivals.model_copy(update={"file": folder / scenario.arrivals.file})
            replay.rows  # noqa: B018 - read now, so that what is wrong is said before the run
            return scenario.model_copy(update={"arrivals": replay})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadScenario(f"{where}: {field}: {first['msg'].removeprefix('Value error, ')}") from None
    except (yaml.YAMLError, TypeError, ValueError, OSError) as error:
        raise error if isinstance(error, BadScenario) else BadScenario(f"{where}: {error}") from None
    return scenario
