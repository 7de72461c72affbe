"""`plan`: how large a cluster has to be for so many devices, from measured service times and a simulation."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from rich import box
from rich.console import Console
from rich.table import Table

from load_tests.commands import FAILED, OK, complain
from load_tests.simulation.application import GPU_SPEED_UP, Profile
from load_tests.simulation.planning import Demand, NoPlan, Offer, Plan, plan, predict
from load_tests.simulation.service_times import MEASURED, ServiceTimes, read

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DESCRIPTION = """\
Says how many replicas, nodes and GPUs a fleet needs so that 99 of 100 answers keep an objective at
the busiest moment, and what they cost. It simulates the cluster with the service times that
benchmarks/service_times.py measured. With --validate it predicts what was measured instead."""

EPILOG = """\
examples:
  python -m load_tests plan --devices 1_000_000 --slo-p99-ms 3000
  python -m load_tests plan --devices 20000 --utterances-per-hour 30 --slo-p99-ms 1500 --gpu 1
  python -m load_tests plan --validate benchmarks/results/prediction.json

exit codes: 0 there is a plan, 1 there is none or a file cannot be read, 2 wrong usage"""

VALIDATED_S: Final = 600.0  # simulated for each row: the prediction is to be surer than the measurement
PERCENTILES: Final = ("p50_ms", "p95_ms", "p99_ms")


def add_to(commands: Commands) -> None:
    """Makes `plan` known."""
    parser = commands.add_parser(
        "plan",
        help="how large a cluster has to be",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_plan, parser=parser)
    offer, add = Offer(), parser.add_argument
    add("--devices", type=int, metavar="N", help="of the fleet")
    add("--utterances-per-hour", type=float, default=6.0, metavar="N", help="of a device (default: %(default)g)")
    add(
        "--speech-seconds",
        type=float,
        metavar="S",
        help="mean of an utterance (default: as in the sample conversation)",
    )
    add("--slo-p99-ms", type=float, default=3000.0, metavar="MS", help="the objective (default: %(default)g)")
    add("--peak-factor", type=float, default=2.5, metavar="X", help="busiest moment to average (default: %(default)g)")
    add("--profile", choices=get_args(Profile), default="distributed", help="default: %(default)s")
    add("--cores-per-node", type=int, default=offer.cores_per_node, metavar="N", help="default: %(default)s")
    add("--gpu", type=int, default=0, metavar="N", help="GPUs of a node (default: none, models run on cores)")
    add(
        "--gpu-speed-up",
        type=float,
        metavar="X",
        help="of every model on a GPU against one core; assumed, not measured",
    )
    add("--price-core-hour", type=float, default=offer.price_core_hour, metavar="P", help="example: %(default)s")
    add("--price-gpu-hour", type=float, default=offer.price_gpu_hour, metavar="P", help="example: %(default)s")
    add("--service-times", type=Path, default=MEASURED, metavar="FILE", help="default: as measured for this version")
    add("--validate", type=Path, metavar="FILE", help="rows of rate, measured_p50_ms, measured_p95_ms, measured_p99_ms")
    add("--seed", type=int, default=1, metavar="N", help="of the simulation (default: %(default)s)")
    add("--json", action="store_true", help="one JSON object instead of the table")


def _plan(options: argparse.Namespace) -> int:
    try:
        times = read(options.service_times)
        if options.validate:
            return _validate(options, times)
    except (OSError, ValueError) as error:
        return complain(str(error))
    if not options.devices:
        options.parser.error("--devices: of how many devices? Or give --validate FILE")
    speed_up = options.gpu_speed_up
    try:
        demand = Demand(
            options.devices,
            options.utterances_per_hour,
            options.speech_seconds or times.mean_speech_s,
            options.slo_p99_ms,
            options.peak_factor,
        )
        offer = Offer(
            options.cores_per_node,
            options.gpu,
            dict.fromkeys(GPU_SPEED_UP, speed_up) if speed_up else GPU_SPEED_UP,
            options.price_core_hour,
            options.price_gpu_hour,
        )
    except ValueError as error:
        options.parser.error(str(error))
    try:
        with Console(stderr=True).status("simulating"):
            found = plan(demand, offer, times, profile=options.profile, seed=options.seed)
    except NoPlan as error:
        return complain(str(error))
    said = _assumptions(demand, offer, times, found)
    if options.json:
        print(json.dumps({**asdict(found), "assumptions": said}))
        return OK
    console = Console(highlight=False)
    console.print(f"{demand.devices:,} devices, {found.rate:,.1f} requests a second at the peak")
    console.print(_table(found))
    for line in _sums(demand, found):
        console.print(line)
    console.print("\nAssumed:")
    for line in said:
        console.print(f"  · {line}")
    return OK


def _table(found: Plan) -> Table:
    table = Table("deployment", "replicas", "busy %", box=box.SIMPLE_HEAD)
    for name, count in found.replicas.items():
        table.add_row(name, f"{count:,}", f"{100 * found.prediction.busy[name]:.0f}")
    return table


def _sums(demand: Demand, found: Plan) -> list[str]:
    at_peak = found.prediction
    gpus = f" and {found.gpus:,} GPUs" if found.gpus else ""
    return [
        f"{found.nodes:,} nodes{gpus}, cores {100 * at_peak.utilization:.0f} % used at the peak",
        f"p50 {at_peak.p50_ms:.0f} ms, p95 {at_peak.p95_ms:.0f} ms, p99 {at_peak.p99_ms:.0f} ms; "
        f"objective {demand.slo_p99_ms:.0f} ms",
        f"{found.cost_per_hour:,.2f} an hour, {found.cost_per_million:,.2f} a million utterances",
    ]


def _assumptions(demand: Demand, offer: Offer, times: ServiceTimes, found: Plan) -> list[str]:
    """What the plan rests on, a sentence each."""
    hardware = times.about.get("hardware", {})
    overhead = ", ".join(f"{profile} {milliseconds:g}" for profile, milliseconds in times.overhead_ms.items())
    said = [
        f"CPU seconds as measured on {hardware.get('processor', 'an unnamed machine')}, {times.about.get('measured')}; "
        "other cores need their own: python -m benchmarks.service_times",
        f"{demand.speech_s:.1f} s of speech on average, spread as in the sample conversation",
        f"Poisson arrivals at {demand.peak_factor:g} times the average, and a cluster that stays that large all day",
        f"overhead of a request outside the stages, in ms of CPU: {overhead}; {times.overhead_source}",
        f"CPU time stretches by {times.contention:g} when every core is busy, as on the measured node",
        f"prices are examples unless given: {offer.price_core_hour:g} a core-hour, {offer.price_gpu_hour:g} a GPU-hour",
        "no network, no failures, no spare node; nothing is refused or left out",
    ]
    if offer.gpus_per_node:
        speed_up = offer.gpu_speed_up or GPU_SPEED_UP
        listed = ", ".join(f"{name} {factor:g}×" for name, factor in speed_up.items())
        said.append(f"GPUs are assumed, not measured: against one core {listed}; replicas share one in time slices")
    if found.cells > 1:
        said.append(
            f"{found.cells} equal cells, each with its share of the arrivals; {found.simulated:,} requests of one "
            "were simulated"
        )
    return said


def _validate(options: argparse.Namespace, times: ServiceTimes) -> int:
    """Predicted beside measured, for one node with a replica of each deployment."""
    rows = json.loads(options.validate.read_text(encoding="utf-8"))
    try:
        compared = [_compared(row, options, times) for row in rows]
    except (KeyError, TypeError, AttributeError) as error:
        return complain(f"{options.validate}: each row needs rate and measured_p50_ms, _p95_ms, _p99_ms ({error})")
    if options.json:
        print(json.dumps(compared))
        return OK
    table = Table("profile", "cores", "requests/s", box=box.SIMPLE_HEAD)
    for percentile in PERCENTILES:
        table.add_column(f"{percentile[:3]} measured → predicted ms", justify="right")
    for row in compared:
        cells = [
            f"{row[f'measured_{each}']:.0f} → {row[f'predicted_{each}']:.0f} ({row[f'error_{each}_percent']:+.0f} %)"
            for each in PERCENTILES
        ]
        table.add_row(row["profile"], str(row["cores"]), f"{row['rate']:g}", *cells)
    Console(highlight=False).print(table)
    return OK if compared else FAILED


def _compared(row: Mapping[str, Any], options: argparse.Namespace, times: ServiceTimes) -> dict[str, Any]:
    profile, cores = row.get("profile", options.profile), row.get("cores", 2)
    predicted = predict(
        row["rate"],
        VALIDATED_S,
        profile,
        cores,
        service_times=times,
        seed=options.seed,
        speech_s=row.get("speech_s", options.speech_seconds),
    )
    compared = {"rate": row["rate"], "profile": profile, "cores": cores}
    for percentile in PERCENTILES:
        measured, of_model = row[f"measured_{percentile}"], getattr(predicted, percentile)
        compared |= {
            f"measured_{percentile}": measured,
            f"predicted_{percentile}": round(of_model, 1),
            f"error_{percentile}_percent": round(100 * (of_model / measured - 1), 1),
        }
    return compared
