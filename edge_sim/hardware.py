"""What a device is made of: radios, battery, and what computing costs it. Read from `devices.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from edge_sim.constants import BadConstants, UnknownName, read_yaml, sourced
from edge_sim.radio import Radio, load_radio, radio_names

DEVICES: Final = "devices.yaml"


@dataclass(frozen=True, slots=True)
class Supply:
    """Battery and processor.

    Attributes:
        battery_joules: when it is full.
        compute_watts: what one busy core draws.
        cpu_slowdown: CPU seconds here for one on the machine of the measurement.
    """

    battery_joules: float
    compute_watts: float
    cpu_slowdown: float

    def compute_seconds(self, measured_cpu_s: float) -> float:
        """CPU seconds on this device, from those on the machine of the measurement."""
        return self.cpu_slowdown * measured_cpu_s

    def compute_joules(self, measured_cpu_s: float) -> float:
        """Joules of the same."""
        return self.compute_watts * self.compute_seconds(measured_cpu_s)

    def battery_share(self, joules: float) -> float:
        """Share of a full battery."""
        return joules / self.battery_joules


@dataclass(frozen=True, slots=True)
class Hardware:
    """A kind of device.

    Attributes:
        name: in devices.yaml.
        radios: their names; the first is its default.
        codec: name of a transport, and its setting.
        supply: battery and processor.
    """

    name: str
    radios: tuple[str, ...]
    codec: tuple[str, str]
    supply: Supply

    def radio(self, name: str | None = None) -> Radio:
        """One of its radios, or its default.

        Raises:
            edge_sim.constants.UnknownName: it has no such radio.
        """
        chosen = name or self.radios[0]
        if chosen not in self.radios:
            raise UnknownName(f"{self.name} radio", chosen, dict.fromkeys(self.radios))
        return load_radio(chosen)


def hardware_names() -> tuple[str, ...]:
    """The devices of devices.yaml."""
    return tuple(read_yaml(DEVICES)["devices"])


def load_hardware(name: str) -> Hardware:
    """A device of devices.yaml.

    Raises:
        edge_sim.constants.UnknownName: there is none of that name.
        edge_sim.constants.BadConstants: what stands there cannot be used.
    """
    document = read_yaml(DEVICES)
    devices: dict[str, Any] = document["devices"]
    if name not in devices:
        raise UnknownName("device", name, devices)
    section = devices[name]
    radios, codec = tuple(section.get("radios", ())), section.get("codec", {})
    if not radios or not set(radios) <= set(radio_names()):
        raise BadConstants(f"{name}.radios: {', '.join(radios) or 'none'}; there are {', '.join(radio_names())}")
    if not isinstance(codec, dict) or codec.keys() != {"name", "setting"}:
        raise BadConstants(f"{name}.codec: needs a name and a setting")
    constants = {key: entry for key, entry in section.items() if key not in ("radios", "codec")}
    supply = sourced(Supply, constants, document["sources"], name)
    return Hardware(name, radios, (str(codec["name"]), str(codec["setting"])), supply)
