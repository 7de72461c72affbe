"""The dashboard of ops/grafana under load: a fused cluster, Prometheus, devices that ask, and a picture of every panel.

Grafana is in no package registry, so the panels are drawn here, from the queries, places and units that the dashboard's
file has. Prometheus has to be installed (Debian: `prometheus`). Panels that show nothing are named: a counter is there
from its first event on.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import matplotlib as mpl
import yaml
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from PIL import Image

from deployments.local_cluster import DEFAULT_CONFIG, LOOPBACK, LocalCluster, free_port

mpl.use("Agg")
ROOT: Final = DEFAULT_CONFIG.parent
DASHBOARD: Final = ROOT / "ops" / "grafana" / "amser.json"
RULES: Final = ROOT / "ops" / "prometheus" / "alerts.yml"
FUSED: Final = ROOT / "serve_config.fused.yaml"
LOAD: Final = ((1.5, 75), (12.0, 30), (1.5, 75))  # requests a second, seconds
SCRAPE_S: Final = 5
STEP_S: Final = 5
COLUMNS: Final = 24  # of Grafana's grid
CELL: Final = 0.62, 0.27  # inches
MOST_LINES: Final = 9  # in a legend
COLOURS: Final = 64
Series = list[tuple[str, list[float], list[float]]]  # name, seconds, values


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots.dashboard", description=__doc__.splitlines()[0])
    parser.add_argument("--png", type=Path, default=Path("dashboard.png"), help="where it goes (default: %(default)s)")
    parser.add_argument("--prometheus", metavar="URL", help="one that has seen a load already: starts nothing")
    parser.add_argument("--minutes", type=float, default=5, help="back from now (default: %(default)s)")
    options = parser.parse_args()
    if options.prometheus:
        empty = draw(options.prometheus, time.time() - 60 * options.minutes, options.png)
    else:
        empty = under_load(options.png)
    for title in empty:
        print(f"no data: {title}")
    print(f"{options.png}: {options.png.stat().st_size / 1e3:.0f} kB")
    return 0


def under_load(png: Path) -> list[str]:
    """Start everything, draw, end everything. Returns the titles of panels without data."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dashboard-")))
        cluster = stack.enter_context(LocalCluster(FUSED, log=folder / "ray.log", http_port=0))
        prometheus = stack.enter_context(Prometheus(cluster.dashboard, folder))
        cluster.wait_until_ready()
        started = time.time()
        for rate, seconds in LOAD:
            subprocess.run(
                [sys.executable, "-m", "load_tests", "run", "mixed-devices", "--url", cluster.url, "--rate", str(rate)]
                + ["--seconds", str(seconds)],
                check=False,
            )
        time.sleep(10 + SCRAPE_S)  # until the last values are there
        return draw(prometheus.url, started, png)


class Prometheus:
    """A Prometheus on loopback with the rules of ops/. A context manager.

    Args:
        dashboard: of Ray, which says where the metric endpoints are.
        folder: for its files.
    """

    def __init__(self, dashboard: str, folder: Path) -> None:
        self.url = f"http://{LOOPBACK}:{free_port()}"
        self._config = {
            "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {
                    "job_name": "ray",
                    "http_sd_configs": [{"url": f"{dashboard}/api/prometheus/sd", "refresh_interval": "5s"}],
                }
            ],
        }
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Prometheus:
        program = shutil.which("prometheus")
        if program is None:
            raise SystemExit("prometheus is not installed (Debian: apt-get install prometheus)")
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config), encoding="utf-8")
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
                + [f"--web.listen-address={self.url.removeprefix('http://')}"],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait()


def draw(prometheus: str, since: float, png: Path) -> list[str]:
    """The dashboard from `since` (Unix time) to now. Returns the titles of panels without data."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = pyplot.figure(figsize=(COLUMNS * CELL[0], height * CELL[1]))
    empty = []
    with httpx.Client(base_url=prometheus, timeout=30) as client:
        for panel in panels:
            place = panel["gridPos"]
            left, bottom = place["x"] / COLUMNS, 1 - (place["y"] + place["h"]) / height
            if panel["type"] == "row":
                figure.text(left + 0.005, bottom + 0.2 / height, panel["title"], weight="bold", size=11)
                continue
            series = [each for target in panel["targets"] for each in query(client, target, since)]
            if not series:
                empty.append(panel["title"])
            width, tall = place["w"] / COLUMNS, place["h"] / height
            axes = figure.add_axes((left + 0.035, bottom + 0.9 / height, width - 0.045, tall - 2.1 / height))
            _panel(axes, panel, series, since)
    note = (
        "Seconds since the load began. Drawn from ops/grafana/amser.json by benchmarks.plots.dashboard, not by Grafana."
    )
    figure.text(0.995, 0.999, note, size=7, color="grey", ha="right", va="top")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=72)
    pyplot.close(figure)
    Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=COLOURS).save(png, optimize=True)
    return empty


def query(client: httpx.Client, target: Mapping[str, Any], since: float) -> Series:
    """A target's series over time, NaN left out."""
    expression = target["expr"].replace("$__rate_interval", "1m")
    asked = {"query": expression, "start": since, "end": time.time(), "step": STEP_S}
    answer = client.post("/api/v1/query_range", data=asked).raise_for_status().json()
    found = []
    for result in answer["data"]["result"]:
        points = [(at, float(value)) for at, value in result["values"] if value not in ("NaN", "+Inf", "-Inf")]
        if points:
            name = target["legendFormat"]
            for label, value in result["metric"].items():
                name = name.replace("{{" + label + "}}", value)
            found.append((name, [at - since for at, _ in points], [value for _, value in points]))
    return found


def _panel(axes: Axes, panel: Mapping[str, Any], series: Series, since: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_title(panel["title"], loc="left", size=9)
    if panel["type"] == "stat":
        axes.axis("off")
        value = series[0][2][-1] if series else None
        names = {key: each["text"] for mapping in defaults["mappings"] for key, each in mapping["options"].items()}
        shown = "no data" if value is None else names.get(f"{value:g}", shortly(value, defaults["unit"]))
        axes.text(0.02, 0.3, shown, size=17, color="tab:green" if shown == "RUNNING" else "black")
        return
    if defaults["custom"]["stacking"]["mode"] == "normal" and series:
        times = sorted({at for _, moments, _ in series for at in moments})
        rows = [[dict(zip(moments, values, strict=True)).get(at, 0.0) for at in times] for _, moments, values in series]
        axes.stackplot(times, rows, labels=[name for name, _, _ in series], alpha=0.7)
    else:
        for name, moments, values in series:
            axes.plot(moments, values, label=name, linewidth=1.2)
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color="tab:red", linestyle="--", linewidth=0.8)
    if not series:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="grey")
    axes.set_xlim(0, time.time() - since)
    axes.set_ylim(bottom=0, top=defaults.get("max"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shortly(value, defaults["unit"])))
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, linewidth=0.3)
    if 0 < len(series) <= MOST_LINES and any(name for name, _, _ in series):
        axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def shortly(value: float, unit: str) -> str:
    """With its unit, as Grafana names units."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1000 * value:.3g} ms"
    if unit in ("bytes", "Bps"):
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if value >= size:
                return f"{value / size:.3g} {name}" + "/s" * (unit == "Bps")
    return (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}") + {"reqps": "/s", "ops": "/s"}.get(unit, "")


if __name__ == "__main__":
    sys.exit(main())
