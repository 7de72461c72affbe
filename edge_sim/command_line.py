"""The command line of `python -m edge_sim`: recordings × transports × radios of a device, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from amser.audio import FORMATS
from amser.client.commands.inputs import check_inputs, read_audio, reason
from amser.client.commands.terminal import OK, Parser, columns, complain, guarded
from amser.client.frontend import FrontendMissing
from amser.errors import SignalError
from amser.features import Float32
from amser.wire import Limits
from edge_sim.constants import UnknownName
from edge_sim.costs import CONNECTIONS, MODES, PAUSE_S, SERVER_S, Connection, Costs, Mode, costs, encode
from edge_sim.hardware import Hardware, hardware_names, load_hardware
from edge_sim.radio import Radio
from edge_sim.transports import TRANSPORTS, Transport, parse

PROGRAM: Final = "edge_sim"
DEFAULT_DEVICE: Final = "phone"
DEFAULT_TRANSPORTS: Final = ("klt:standard", "svd-f16:0.125", "opus:16k", "pcm:16-bit")

DESCRIPTION = """\
Sends recordings, each as one utterance, from a simulated device and prints what
an utterance costs it: bytes over the radio with all headers, seconds from its
end to the answer, joules of the radio and of computing, and the share of a full
battery. Payloads and CPU time are measured; radio, link and cluster are
simulated (radios.yaml and devices.yaml in edge_sim/ have every constant with
its source)."""

EPILOG = f"""\
modes:
  alone         an utterance every {PAUSE_S["alone"]:.0f} s: each pays for waking the radio up
  conversation  {PAUSE_S["conversation"]:.0f} s between one utterance and the next
  batch         all at once, one after the other; the cluster takes no time

examples:
  python -m edge_sim speech.wav
  python -m edge_sim speech.wav --device ear-bud --transport klt svd-f16:0.125
  python -m edge_sim *.flac --radio wifi lte --mode conversation --json
  python -m edge_sim --list

exit codes: 0 everything was simulated, 1 a recording could not be used, 2 wrong
usage, 130 stopped by Ctrl-C"""


@dataclass(frozen=True, slots=True)
class Row:
    """What an utterance costs by one transport over one radio."""

    transport: Transport
    radio: Radio
    costs: Costs

    @property
    def name(self) -> str:
        """As `--transport` takes it."""
        return f"{self.transport.name}:{self.transport.setting}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the simulation; returns its exit code."""
    return guarded(lambda: _run(arguments), PROGRAM)


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console(highlight=False, width=columns())
    if options.list:
        for part in _offers():
            console.print(part)
        return OK
    try:
        if not options.files:
            raise ValueError("no recordings: name them first, before --radio and --transport")
        check_inputs(options.files)
        hardware = load_hardware(options.device)
        radios = [hardware.radio(name) for name in options.radio or hardware.radios]
        transports = [transport for text in options.transport for transport in parse(text)]
    except (ValueError, UnknownName) as error:
        parser.error(str(error))
    try:
        return _simulate(options, hardware, radios, transports, console)
    except FrontendMissing as error:
        return complain(str(error), program=PROGRAM)


def _simulate(
    options: argparse.Namespace,
    hardware: Hardware,
    radios: Sequence[Radio],
    transports: Sequence[Transport],
    console: Console,
) -> int:
    code = OK
    waveforms: list[Float32] = []
    for file in options.files:
        try:
            waveforms.append(read_audio(file, Limits().max_frames))
        except (OSError, SignalError) as error:
            code = complain(f"{file}: {reason(error)}", program=PROGRAM)
    if not waveforms:
        return code
    rows = []
    bars = Console(stderr=True)
    for transport in track(transports, "transports", console=bars, transient=True, disable=not bars.is_terminal):
        encoded = encode(transport, waveforms)
        for radio in radios:
            connection: Connection = "gateway" if radio.has_gateway else options.connection
            rows.append(Row(transport, radio, costs(encoded, hardware, radio, options.mode, connection)))
    rows.sort(key=lambda row: [radio.name for radio in radios].index(row.radio.name))
    if options.json:
        for row in rows:
            print(_as_json(row, hardware, options.mode, options.connection))
    else:
        for part in _report(rows, hardware, options.mode):
            console.print(part)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m edge_sim",
        usage="python -m edge_sim FILE... [OPTION]...",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help=f"{FORMATS}, up to 30 s each; - is standard input"
    )
    parser.add_argument(
        "--device", default=DEFAULT_DEVICE, metavar="NAME", help="battery and processor (default: %(default)s)"
    )
    parser.add_argument("--radio", nargs="+", metavar="NAME", help="of the device (default: all that it has)")
    parser.add_argument(
        "--transport",
        nargs="+",
        default=DEFAULT_TRANSPORTS,
        metavar="NAME[:SETTING]",
        help=f"without a setting all of them (default: {' '.join(DEFAULT_TRANSPORTS)})",
    )
    parser.add_argument("--mode", choices=MODES, default="alone", help="default: %(default)s")
    parser.add_argument(
        "--connection",
        choices=CONNECTIONS,
        default="keep-alive",
        help="to the cluster, of a radio without a gateway (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a row, a line each, instead of the table")
    parser.add_argument("--list", action="store_true", help="list devices, radios and transports, and end")
    return parser


def _report(rows: Sequence[Row], hardware: Hardware, mode: Mode) -> Iterator[Table | str]:
    first = rows[0].costs
    count = "1 utterance" if first.utterances == 1 else f"{first.utterances} utterances"
    yield f"{hardware.name}, mode {mode}: means over {count} of {first.seconds_of_speech:.1f} s"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("radio", no_wrap=True)
    table.add_column("transport", no_wrap=True)
    for heading in ("payload\nbytes", "radio\nbytes", "answer\ns", "radio\nmJ", "compute\nmJ", "battery\n% / 1000"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cost = row.costs
        table.add_row(
            row.radio.name,
            row.name,
            f"{cost.payload_bytes:,.0f}",
            f"{cost.bytes_over_radio:,.0f}",
            _figure(cost.seconds),
            _figure(1000 * cost.radio_joules),
            _figure(1000 * cost.compute_joules),
            _figure(1000 * 100 * cost.battery_share),
        )
    yield table
    supply = hardware.supply
    yield "Battery: per cent of a full one that a thousand utterances take, radio and computing."
    yield (
        f"Computing is the CPU time here × {supply.cpu_slowdown:g}, an assumption about this device, at "
        f"{supply.compute_watts:g} W; a full battery has {supply.battery_joules:,.0f} J."
    )
    if mode != "batch" and (slow := dict.fromkeys(row.radio.name for row in rows if row.costs.queued_seconds > 0)):
        yield f"Utterances had to wait for those before them on {', '.join(slow)}; that wait is not in the seconds."


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{decimals}f}"


def _as_json(row: Row, hardware: Hardware, mode: Mode, connection: Connection) -> str:
    where: dict[str, Any] = {
        "device": hardware.name,
        "radio": row.radio.name,
        "transport": row.transport.name,
        "setting": row.transport.setting,
        "mode": mode,
        "connection": "gateway" if row.radio.has_gateway else connection,
        "server_seconds": 0.0 if mode == "batch" else SERVER_S,
    }
    return json.dumps(where | asdict(row.costs))


def _offers() -> Iterator[Table]:
    devices = _grid("device", "radios (the first is its default)", "codec", "battery J")
    for name in hardware_names():
        hardware = load_hardware(name)
        battery = f"{hardware.supply.battery_joules:,.0f}"
        devices.add_row(name, " ".join(hardware.radios), ":".join(hardware.codec), battery)
    yield devices
    transports = _grid("transport", "settings, coarsest first")
    for name, offer in TRANSPORTS.items():
        transports.add_row(name, " ".join(offer.settings))
    yield transports


def _grid(*headings: str) -> Table:
    return Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
