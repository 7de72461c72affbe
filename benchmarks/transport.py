"""Time and energy of sending the same speech by transport, radio and device: the papers' Table V, bytes matched.

    python -m benchmarks.transport --manifest SPEECH.tsv

`edge_sim.costs` says what is measured, what is simulated and what each figure is; `python -m edge_sim` prints the same
for any recording. Every transport is taken at the setting whose payload comes nearest to that of `--match`. The mode
`batch` is the papers' case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import Any, Final

from rich.table import Table

from amser.errors import SignalError
from amser.features import Float32
from benchmarks.measuring import command, manifest
from benchmarks.measuring.console import output, progress, table
from benchmarks.measuring.report import write_rows
from benchmarks.plots.transport import plot
from edge_sim.costs import CONNECTIONS, MODES, SERVER_S, Connection, Encoded, Mode, costs, encode
from edge_sim.hardware import Hardware, hardware_names, load_hardware
from edge_sim.radio import Radio
from edge_sim.transports import TRANSPORTS, Transport, by_name
from load_tests.commands import count

Row = dict[str, Any]

MATCH: Final = "svd-f16:0.125"  # the papers' operating point
SIZED_BY: Final = 8  # utterances whose payloads choose the settings

# Amser+, Table V: seconds and kWh of 22,366 files over Wi-Fi.
PAPER_FILES: Final = 22_366
PAPER: Final = {
    "raw": (406.58, 0.0056),
    "MP3": (357.82, 0.0051),
    "AAC": (344.15, 0.0044),
    "interpolation": (276.38, 0.0041),
    "Amser+": (180.75, 0.0025),
}
WHY_THEY_DIFFER: Final = (
    "Why these differ from the papers': kWh over seconds gives about 50 W there, a computer's supply and not a phone's "
    "radio; they measured Wi-Fi alone, which has hardly a tail, where LTE stays awake for 11.6 s after the last byte; "
    "their sizes are not matched (each transport at its own rate), and Opus is left out."
)


def parse_transport(text: str) -> Transport:
    """`name:setting`."""
    name, _, setting = text.partition(":")
    return by_name(name, setting)


def matched(reference: Transport, waveforms: Sequence[Float32]) -> list[Transport]:
    """Each transport at the setting whose payloads are nearest to the reference's, by ratio."""
    target = encode(reference, waveforms).mean_bytes
    chosen = []
    for offer in progress(TRANSPORTS.values(), "settings", len(TRANSPORTS)):
        sized = [encode(offer.factory(setting), waveforms) for setting in offer.settings]
        chosen.append(min(sized, key=lambda each: abs(log(each.mean_bytes / target))).transport)
    return chosen


def row(encoded: Encoded, hardware: Hardware, radio: Radio, mode: Mode, connection: Connection) -> Row:
    """One cell of the table: means over the utterances."""
    cost = costs(encoded, hardware, radio, mode, connection)
    return {
        "transport": encoded.transport.name,
        "setting": encoded.transport.setting,
        "device": hardware.name,
        "radio": radio.name,
        "mode": mode,
        "connection": connection,
        "utterances": cost.utterances,
        "seconds_of_speech": round(cost.seconds_of_speech, 3),
        "payload_bytes": round(cost.payload_bytes, 1),
        "bytes_on_air": round(cost.bytes_over_radio, 1),
        "seconds_per_utterance": round(cost.seconds, 5),
        "queued_seconds": round(cost.queued_seconds, 5),
        "radio_joules": round(cost.radio_joules, 6),
        "compute_joules": round(cost.compute_joules, 6),
        "radio_joules_by_state": {
            state.value: round(joules, 6) for state, joules in cost.radio_joules_by_state.items()
        },
        "utterances_per_battery": round(1 / cost.battery_share),
    }


def rows_of(encoded: Encoded, devices: Sequence[str]) -> Iterator[Row]:
    """All radios, modes and connections of the devices."""
    for hardware in map(load_hardware, devices):
        for radio in map(hardware.radio, hardware.radios):
            connections: tuple[Connection, ...] = ("gateway",) if radio.has_gateway else CONNECTIONS
            for mode in MODES:
                for connection in connections:
                    yield row(encoded, hardware, radio, mode, connection)


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """What was simulated, for the modes that differ most: a table for each mode, device and radio."""
    columns = ("transport", "payload B", "radio B", "s", "radio mJ", "compute mJ")
    for mode in ("alone", "batch"):
        chosen = [each for each in rows if each["mode"] == mode and each["connection"] in ("keep-alive", "gateway")]
        for device, radio in dict.fromkeys((each["device"], each["radio"]) for each in chosen):
            made = table(f"{device}, {radio}: {mode}, connection kept; means of an utterance", columns)
            for each in chosen:
                if (each["device"], each["radio"]) == (device, radio):
                    made.add_row(
                        f"{each['transport']}:{each['setting']}",
                        f"{each['payload_bytes']:.0f}",
                        f"{each['bytes_on_air']:.0f}",
                        f"{each['seconds_per_utterance']:.3f}",
                        f"{1000 * each['radio_joules']:.2f}",
                        f"{1000 * each['compute_joules']:.2f}",
                    )
            yield made


def papers_table() -> Table:
    """Table V of Amser+, and what it implies."""
    made = table(f"Amser+, {PAPER_FILES} files", ("transport", "s", "kWh", "ms a file", "J a file", "implied W"))
    for name, (seconds, kwh) in PAPER.items():
        joules = 3.6e6 * kwh
        a_file = f"{1000 * seconds / PAPER_FILES:.1f}", f"{joules / PAPER_FILES:.3f}"
        made.add_row(name, f"{seconds:.2f}", f"{kwh:.4f}", *a_file, f"{joules / seconds:.0f}")
    return made


def gains(rows: Sequence[Row], reference: str) -> Iterator[str]:
    """How much faster and cheaper than uncompressed 16-bit PCM, in the papers' case."""
    name, _, setting = reference.partition(":")
    in_batch = [each for each in rows if each["mode"] == "batch" and each["connection"] in ("keep-alive", "gateway")]
    for device, radio in dict.fromkeys((each["device"], each["radio"]) for each in in_batch):
        here = [each for each in in_batch if (each["device"], each["radio"]) == (device, radio)]
        pcm = next((each for each in here if each["transport"] == "pcm"), None)
        ours = next((each for each in here if (each["transport"], each["setting"]) == (name, setting)), None)
        if pcm and ours:
            faster = pcm["seconds_per_utterance"] / ours["seconds_per_utterance"]
            joules = [each["radio_joules"] + each["compute_joules"] for each in (ours, pcm)]
            saved = 100 * (1 - joules[0] / joules[1])
            yield f"{device}, {radio}: {reference} is {faster:.2f}× as fast as PCM, and takes {saved:.0f} % less energy"
    (raw_s, raw_kwh), (amser_s, amser_kwh) = PAPER["raw"], PAPER["Amser+"]
    saved = 100 * (1 - amser_kwh / raw_kwh)
    yield f"the papers, Wi-Fi: Amser+ is {raw_s / amser_s:.2f}× as fast as raw, and takes {saved:.0f} % less energy"


@command.benchmark("transport")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command.parser("transport", __doc__, plot=True)
    manifest.add_options(parser)
    add = parser.add_argument
    add("--limit", type=count, metavar="N", help="first N utterances only")
    add("--match", default=MATCH, metavar="T:S", help="payloads come near to its (default: %(default)s)")
    add("--transport", nargs="+", metavar="T:S", help="these, instead of one setting of each")
    add("--device", nargs="+", choices=hardware_names(), default=hardware_names(), help="default: all")
    options = command.parse(parser, arguments)
    try:
        reference, named = parse_transport(options.match), [parse_transport(text) for text in options.transport or ()]
    except SignalError as error:
        parser.error(str(error))

    recordings = manifest.recordings_of(options)[: options.limit]
    waveforms = [each.waveform() for each in progress(recordings, "reading")]
    transports = named or matched(reference, waveforms[:SIZED_BY])
    rows: list[Row] = []
    for transport in progress(transports, "transports"):
        rows += rows_of(encode(transport, waveforms), options.device)
    rows.sort(key=lambda each: (each["device"], each["radio"], -each["payload_bytes"]))
    write_rows(options.json, rows, corpus=options.manifest.stem, server_seconds=SERVER_S)
    plot(rows, options.json.with_suffix(".png"))
    console = output()
    for made in tables(rows):
        console.print(made)
    console.print(papers_table())
    for line in gains(rows, options.match):
        console.print(line)
    console.print(WHY_THEY_DIFFER)


if __name__ == "__main__":
    main()
