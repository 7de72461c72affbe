"""What a device pays for each transport: milliseconds of CPU for a second of speech, log-Mel and encoding apart.

    python -m benchmarks.edge --manifest SPEECH.tsv

CPU time of one thread, in one process: each repeat measures every row and both yardsticks once, one after the other,
and what is reported is the median of the repeats, or of their ratios. The yardsticks are log-Mel and its full SVD by
NumPy, and Opus at the bit rate nearest to the row's. Encoding is `Transport.encode` less the log-Mel in it. Memory is
measured in a process of its own (`benchmarks.measuring.peak_memory`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import kaldi_native_fbank
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray
from rich.table import Table
from threadpoolctl import threadpool_limits

from amser.client.frontend import DEFAULT_FRONTEND, FRONTENDS, StreamingLogMel, log_mel
from amser.errors import SignalError
from amser.features import HOP_LENGTH, SAMPLE_RATE, WINDOW_LENGTH, Float32, clamp_to_floor
from benchmarks.measuring import command, manifest
from benchmarks.measuring.console import output, progress, table
from benchmarks.measuring.peak_memory import peak_mib
from benchmarks.measuring.report import write_rows
from edge_sim.transports import TRANSPORTS, Transport, by_name
from edge_sim.transports.base import ROUTE_OF_FEATURES
from load_tests.commands import count

mpl.use("Agg")
Row = dict[str, Any]
Cost = NDArray[np.float64]

LIBRARIES: Final = ("asrfront", "av", "kaldi-native-fbank", "scipy")
REPEATS: Final = 7
TARGET_MS: Final = 0.5  # per second of speech, log-Mel and encoding
YARDSTICK: Final = "opus"
STREAMED_PIECES_MS: Final = (20, 100)
WORDS: Final = ("transport", "frontend")  # columns that hold no numbers
COLUMNS: Final = {
    "transport": "transport",
    "frontend": "front end",
    "kbit_per_s": "kbit/s",
    "encode_ms_per_s": "encode",
    "total_ms_per_s": "with\nlog-Mel",
    "peak_mib": "MiB",
    "ratio_to_svd": "of\nSVD",
    "ratio_to_opus": "of\nOpus",
}
COLUMNS_OF_FRONTENDS: Final = {"frontend": "front end", "log_mel_ms_per_s": "log-Mel, ms/s"}


class Costs(NamedTuple):
    """Of each repeat, milliseconds of CPU for a second of speech: arrays (repeats,)."""

    encoded: list[Cost]  # of each transport, `Transport.encode` with its own log-Mel
    log_mel: dict[str, Cost]  # of each front end
    svd: Cost  # full, without the log-Mel


def cpu_ms(work: Callable[[Float32], object], inputs: Sequence[Float32], seconds: float) -> float:
    """Milliseconds of CPU for a second of speech; the inputs last `seconds` together."""
    started = time.process_time()
    for each in inputs:
        work(each)
    return 1000 * (time.process_time() - started) / seconds


def kaldi_log_mel(waveform: Float32) -> Float32:
    """kaldi-native-fbank's Whisper filters. Its frames are centred 80 samples later: aligned, and mirrored, here."""
    lead = HOP_LENGTH - (WINDOW_LENGTH - HOP_LENGTH) // 2
    mirrored = np.pad(np.pad(waveform, WINDOW_LENGTH // 2, mode="reflect"), (lead, 0))
    extractor = kaldi_native_fbank.OnlineWhisperFbank(kaldi_native_fbank.WhisperFeatureOptions())
    extractor.accept_waveform(SAMPLE_RATE, mirrored)
    extractor.input_finished()
    frames = [extractor.get_frame(1 + frame) for frame in range(waveform.size // HOP_LENGTH)]
    power = np.maximum(np.stack(frames, axis=1), np.float32(1e-10))
    return clamp_to_floor((np.log10(power) + np.float32(4)) / np.float32(4))


def streamed(piece_ms: int, frontend: str) -> Callable[[Float32], object]:
    """A log-Mel of pieces that arrive one by one."""
    size = piece_ms * SAMPLE_RATE // 1000

    def work(waveform: Float32) -> None:
        stream = StreamingLogMel(frontend=frontend)
        for start in range(0, waveform.size, size):
            stream.push(waveform[start : start + size])
        stream.finish()

    return work


def front_ends() -> dict[str, Callable[[Float32], object]]:
    """Everything that makes a log-Mel, by the name it has in the table."""
    whole: dict[str, Callable[[Float32], object]] = {name: partial(log_mel, frontend=name) for name in FRONTENDS}
    pieces = {f"{name}, {ms} ms pieces": streamed(ms, name) for name in FRONTENDS for ms in STREAMED_PIECES_MS}
    return {**whole, **pieces, "kaldi-native-fbank": kaldi_log_mel}


def own_frontend(transport: Transport) -> str | None:
    """The front end inside `Transport.encode`, NumPy where the transport names none; None where it sends audio."""
    return str(getattr(transport, "frontend", "numpy")) if transport.route == ROUTE_OF_FEATURES else None


def full_svd(mel: Float32) -> object:
    """The whole decomposition, as the AMSER papers have the device compute it."""
    return np.linalg.svd(mel, full_matrices=False)


def measure(waveforms: Sequence[Float32], seconds: float, transports: Sequence[Transport], repeats: int) -> Costs:
    """Everything once in each repeat, one after the other, so that a busy machine slows all alike."""
    mels = [log_mel(waveform) for waveform in waveforms]
    frontends = front_ends()
    costs = np.empty((repeats, len(transports) + len(frontends) + 1))
    for repeat in progress(range(repeats), "CPU time"):
        costs[repeat] = [
            *(cpu_ms(transport.encode, waveforms, seconds) for transport in transports),
            *(cpu_ms(work, waveforms, seconds) for work in frontends.values()),
            cpu_ms(full_svd, mels, seconds),
        ]
    columns = list(costs.T)
    return Costs(
        columns[: len(transports)], dict(zip(frontends, columns[len(transports) : -1], strict=True)), columns[-1]
    )


def median(cost: Cost) -> float:
    return round(float(np.median(cost)), 4)


def rows_of(
    waveforms: Sequence[Float32], transports: Sequence[Transport], repeats: int, frontends: Sequence[str]
) -> list[Row]:
    """One row for each transport and front end, then one for each front end alone."""
    seconds = sum(waveform.size for waveform in waveforms) / SAMPLE_RATE
    longest = max(waveforms, key=len)
    kbits = [  # per second; and what a first call alone does
        sum(8 * len(transport.encode(waveform)) for waveform in waveforms) / 1000 / seconds
        for transport in progress(transports, "bit rates")
    ]
    costs = measure(waveforms, seconds, transports, repeats)
    opus = [i for i, transport in enumerate(transports) if transport.name == YARDSTICK]
    rows: list[Row] = []
    peaks = [peak_mib(transport.name, transport.setting, longest) for transport in progress(transports, "peak memory")]
    for i, (transport, kbit, peak) in enumerate(zip(transports, kbits, peaks, strict=True)):
        own = own_frontend(transport)
        near = opus[int(np.argmin([abs(kbits[j] - kbit) for j in opus]))]
        encode = np.maximum(costs.encoded[i] - costs.log_mel[own], 0) if own else costs.encoded[i]
        for frontend in frontends if own else [None]:
            before = costs.log_mel[frontend] if frontend else np.zeros(repeats)
            total = before + encode
            rows.append(
                {
                    "transport": transport.name,
                    "setting": transport.setting,
                    "frontend": frontend,
                    "kbit_per_s": round(kbit, 3),
                    "log_mel_ms_per_s": median(before),
                    "encode_ms_per_s": median(encode),
                    "total_ms_per_s": median(total),
                    "peak_mib": peak if frontend == own else None,
                    "ratio_to_svd": median(total / (costs.log_mel[frontend or DEFAULT_FRONTEND] + costs.svd)),
                    "ratio_to_opus": median(total / costs.encoded[near]),
                    "svd_ms_per_s": median(costs.svd),
                    "opus_kbit_per_s": round(kbits[near], 3),
                }
            )
    alone = {name: median(cost) for name, cost in costs.log_mel.items()}
    return rows + [
        {"transport": None, "frontend": name, "log_mel_ms_per_s": cost, "total_ms_per_s": cost}
        for name, cost in alone.items()
    ]


def plot(rows: Sequence[Row], frontend: str, file: Path) -> None:
    """CPU against bit rate, one line a transport; those that send a log-Mel by this front end."""
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name in dict.fromkeys(row["transport"] for row in rows if row["transport"]):
        shown = [row for row in rows if row["transport"] == name and row["frontend"] in (None, frontend)]
        points = sorted((row["kbit_per_s"], row["total_ms_per_s"]) for row in shown)
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.axhline(TARGET_MS, color="grey", linestyle=":", label=f"{TARGET_MS} ms")
    axes.set(xscale="log", yscale="log", xlabel="kbit/s, envelope or container included")
    axes.set(
        ylabel="CPU for a second of speech, ms", title=f"log-Mel ({frontend}) and encoding on the device, one thread"
    )
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def rows_table(rows: Sequence[Row], title: str, columns: Mapping[str, str]) -> Table:
    """Some columns of some rows, to three digits."""
    made = table(title, tuple(columns.values()), words=sum(name in WORDS for name in columns))
    for row in rows:
        named = row | {"transport": f"{row['transport']}:{row.get('setting')}"}
        values = (named[column] for column in columns)
        made.add_row(*(f"{value:.3g}" if isinstance(value, float) else value for value in values))
    return made


def tables(rows: Sequence[Row], title: str) -> Iterator[Table]:
    """The transports, and the front ends alone."""
    yield rows_table([row for row in rows if row["transport"]], title, COLUMNS)
    yield rows_table([row for row in rows if not row["transport"]], "front ends alone", COLUMNS_OF_FRONTENDS)


def chosen_transports(names: Sequence[str]) -> list[Transport]:
    """ "opus" is all its settings, "opus:16k" is one; Opus comes along at all of them, as the yardstick.

    Raises:
        UnknownTransport, UnknownSetting: as named.
    """
    transports = [
        by_name(name, setting)
        for name, _, one in (choice.partition(":") for choice in names)
        for setting in ([one] if one or name not in TRANSPORTS else TRANSPORTS[name].settings)
    ]
    there = {(transport.name, transport.setting) for transport in transports}
    missing = [setting for setting in TRANSPORTS[YARDSTICK].settings if (YARDSTICK, setting) not in there]
    return transports + [by_name(YARDSTICK, setting) for setting in missing]


@command.benchmark("edge")
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = command.parser("edge", __doc__, plot=True)
    manifest.add_options(parser)
    add = parser.add_argument
    add("--limit", type=count, metavar="N", help="first N clips only")
    add("--transport", nargs="+", default=list(TRANSPORTS), metavar="T", help="name or name:setting (default: all)")
    add("--frontend", choices=FRONTENDS, nargs="+", default=list(FRONTENDS), help="default: all")
    add("--repeats", type=count, default=REPEATS, metavar="N", help="default: %(default)s")
    options = command.parse(parser, arguments)
    try:
        transports = chosen_transports(options.transport)
    except SignalError as error:
        parser.error(str(error))

    recordings = manifest.recordings_of(options)[: options.limit]
    waveforms = [each.waveform() for each in progress(recordings, "reading")]
    with threadpool_limits(1):
        rows = rows_of(waveforms, transports, options.repeats, options.frontend)
    seconds = round(sum(waveform.size for waveform in waveforms) / SAMPLE_RATE, 2)
    write_rows(
        options.json,
        rows,
        utterances=len(waveforms),
        audio_seconds=seconds,
        repeats=options.repeats,
        libraries={name: version(name) for name in LIBRARIES},
    )
    plot(rows, options.frontend[0], options.json.with_suffix(".png"))
    for made in tables(rows, f"{options.manifest.name}, {seconds} s of speech; ms of CPU for a second of it"):
        output().print(made)


if __name__ == "__main__":
    main()
