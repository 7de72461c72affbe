"""Every stage on a GPU: whether it answers as the CPU does, how fast, and how much memory it takes, by batch size.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --device cpu --stages network --batch-sizes 1 --seconds 1

PyTorch, SciPy and safetensors are enough to begin. A stage that needs a package, or weights, that this machine lacks is
skipped and named. Answers are compared with those of the CPU: emotions have equal labels and probabilities within 0.02.
Exit codes: 0 all that ran agree, 1 one does not or fails, 2 wrong usage, no such device, or no stage could run.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.measuring.on_device import STAGES, Run, Stage
from load_tests.report.environment import environment

DISAGREES, CANNOT_RUN = 1, 2  # exit codes
PACKAGES: Final = ("amser", "ctranslate2", "numpy", "openai-whisper", "torch", "transformers")
MISSING: Final = ("WeightsMissing", "UnknownModel")  # of models.weights, which may not import here
MIB: Final = 2**20
FEWEST_BATCHES: Final = 5

Row = dict[str, Any]


def memory_mib(device: str) -> float:
    """What is taken of the GPU, by whomever; on a CPU the most that this process has had."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    free, total = torch.cuda.mem_get_info()
    return float(total - free) / MIB


def time_batches(run: Run, items: Sequence[Any], size: int, seconds: float) -> list[float]:
    """Milliseconds of each batch, over and over for so many seconds; the first one is not counted."""
    endless = cycle(items)
    run(list(islice(endless, size)))
    took: list[float] = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(took) < FEWEST_BATCHES:
        batch = list(islice(endless, size))
        started = time.perf_counter()
        run(batch)  # answers lie in the CPU's memory, so the device is done
        took.append(1000 * (time.perf_counter() - started))
    return took


def measure(name: str, stage: Stage, device: str, sizes: Sequence[int], seconds: float) -> list[Row]:
    """The rows of one stage, one for each batch size."""
    items = stage.items()
    expected = stage.load("cpu", True)(items)
    before = memory_mib(device)
    run = stage.load(device, False)
    agreement = stage.compare(run(items), expected)
    rows: list[Row] = []
    for size in sizes if stage.batched else (1,):
        took = time_batches(run, items, size, seconds)
        p50, p95, p99 = np.percentile(took, (50, 95, 99))
        rows.append(
            {
                "stage": name,
                "device": device,
                "batch_size": size,
                "utterances_per_s": round(1000 * size * len(took) / sum(took), 1),
                "p50_ms": round(float(p50), 2),
                "p95_ms": round(float(p95), 2),
                "p99_ms": round(float(p99), 2),
                "memory_mib": round(memory_mib(device) - before),
                "batches": len(took),
                "agrees": agreement.agrees,
                "agreement": agreement.said,
            }
        )
    return rows


def why_skipped(error: Exception) -> str | None:
    """What is missing here; None where the stage itself failed."""
    if isinstance(error, ImportError):
        return f"needs {error.name or error}"
    return str(error) if type(error).__name__ in MISSING else None


def print_rows(rows: Sequence[Row]) -> None:
    """A table that needs no package."""
    columns = ("stage", "batch_size", "utterances_per_s", "p50_ms", "p95_ms", "p99_ms", "memory_mib")
    heads = ("stage", "batch", "utt/s", "p50 ms", "p95 ms", "p99 ms", "MiB")
    print("{:18}{:>6}{:>9}{:>10}{:>10}{:>10}{:>8}  against the CPU".format(*heads))
    for row in rows:
        cells = "{:18}{:>6}{:>9}{:>10}{:>10}{:>10}{:>8}".format(*(row[column] for column in columns))
        print(f"{cells}  {'' if row['agrees'] else 'DIFFERS: '}{row['agreement']}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    add("--stages", nargs="+", choices=tuple(STAGES), default=list(STAGES), help="default: all")
    add("--batch-sizes", nargs="+", type=int, default=[1, 8, 32], metavar="N", help="default: 1 8 32")
    add("--seconds", type=float, default=5.0, metavar="S", help="for each stage and batch size (%(default)s)")
    add("--json", type=Path, metavar="FILE", default=Path("runs/gpu.json"), help="where the rows go (%(default)s)")
    options = parser.parse_args(arguments)
    if min(options.batch_sizes) < 1 or options.seconds <= 0:
        parser.error("--batch-sizes and --seconds are above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu: PyTorch sees no CUDA device; --device cpu runs the same there", file=sys.stderr)
        raise SystemExit(CANNOT_RUN)
    hardware = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    rows: list[Row] = []
    failed = False
    for name in options.stages:
        try:
            rows += measure(name, STAGES[name], options.device, sorted(options.batch_sizes), options.seconds)
        except Exception as error:
            missing = why_skipped(error)
            failed |= missing is None
            print(f"{name}: {'failed: ' + repr(error) if missing is None else 'skipped: ' + missing}", file=sys.stderr)
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
    if rows:
        print_rows(rows)
        about = environment(PACKAGES) | {"accelerator": hardware}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([about | row for row in rows], indent=1) + "\n", encoding="utf-8")
    if failed or not all(row["agrees"] for row in rows):
        raise SystemExit(DISAGREES)
    if not rows:
        print("benchmarks.gpu: no stage could run", file=sys.stderr)
        raise SystemExit(CANNOT_RUN)


if __name__ == "__main__":
    main()
