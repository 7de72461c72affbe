"""Dashboard and alert rules ask for metrics that the code makes, under the names that Ray gives them."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
OPS = ROOT / "ops"
HISTOGRAM_SERIES = ("_bucket", "_sum", "_count")
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OPS / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((OPS / "grafana" / "amser.json").read_text(encoding="utf-8"))["panels"]
    return found


def queries() -> dict[str, str]:
    """Every PromQL expression by where it stands."""
    of_panels = {
        f"{panel['title']}/{target['refId']}": target["expr"]
        for panel in panels()
        for target in panel.get("targets", ())
    }
    return {**of_panels, **{rule.get("alert", rule.get("record")): rule["expr"] for rule in rules()}}


@cache
def metrics_in_code() -> dict[str, str]:
    """Names that `deployments` gives to metrics, without Ray's prefix → counter, gauge or histogram."""
    return {
        name: kind
        for file in sorted((ROOT / "deployments").rglob("*.py"))
        for name, kind in _metrics(ast.parse(file.read_text()))
    }


def _metrics(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name, called = node.args[0].value, node.func
            kind = (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")).lower()
            if isinstance(name, str) and name.startswith("amser_") and kind in ("counter", "gauge", "histogram"):
                yield name, kind


def series_in_code() -> set[str]:
    """What Prometheus sees of them: a counter ends in `_total`, a histogram is three series."""
    ends = {"counter": ("_total",), "gauge": ("",), "histogram": HISTOGRAM_SERIES}
    return {f"ray_{name}{end}" for name, kind in metrics_in_code().items() for end in ends[kind]}


def ours_in(query: str) -> set[str]:
    return set(re.findall(r"\bray_amser_\w+", query))


# Of these packages come the metrics; where one is not here yet, its queries cannot be held against it
PACKAGES = ("access", "intake", "telemetry")
ALL_HERE = all((ROOT / "deployments" / package).is_dir() for package in PACKAGES)
needs_all = pytest.mark.skipif(not ALL_HERE, reason=f"deployments lacks one of {', '.join(PACKAGES)}")


@needs_all
def test_queries_ask_for_metrics_that_the_code_makes() -> None:
    made = series_in_code()
    unknown = {where: ours_in(query) - made for where, query in queries().items()}
    assert {where: names for where, names in unknown.items() if names} == {}


@needs_all
def test_every_metric_of_the_code_is_on_the_dashboard_or_in_an_alert() -> None:
    shown = {name for query in queries().values() for name in ours_in(query)}
    unseen = {
        name
        for name, kind in metrics_in_code().items()
        if not shown & {f"ray_{name}{end}" for end in ("", "_total", *HISTOGRAM_SERIES)}
    }
    # By effort: what admission control decided, which outcomes show better
    assert unseen <= {"amser_requests_admitted"}


def test_metrics_of_ray_exist_in_the_ray_that_is_installed() -> None:
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    ray = Path(spec.origin).parent
    sources = [*(ray / "serve" / "_private").rglob("*.py"), *(ray / "dashboard" / "modules" / "reporter").rglob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in sources)
    asked = {name for query in queries().values() for name in re.findall(r"\bray_(?!amser_)(\w+)", query)}
    assert asked
    made = {name for name in asked if f'"{name}"' in code or f'"{name.removesuffix("_total")}"' in code}
    # Serve puts `serve_` in front of these two, and of `http` or `grpc`, when it runs
    assert asked - made <= {"serve_num_http_requests_total", "serve_num_http_error_requests_total"}


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_dashboard_names_no_data_source_but_the_one_that_is_chosen() -> None:
    text = (OPS / "grafana" / "amser.json").read_text(encoding="utf-8")
    assert set(re.findall(r'"uid": "([^"]+)"', text)) == {"amser", "${source}"}


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_how_bad_it_is_what_happens_and_where_to_read_on(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"


@pytest.mark.skipif(not RUNBOOKS.exists(), reason="docs/runbooks.md is not here yet")
def test_every_alert_has_a_section_in_the_runbooks() -> None:
    headings = re.findall(r"^#+ (.+?)\s*$", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(alerts()) - set(headings) == set()


def test_every_alert_has_a_case() -> None:
    cases = (OPS / "prometheus" / "alerts_test.yml").read_text(encoding="utf-8")
    assert {name for name in alerts() if f'alertname="{name}"' not in cases} == set()


def test_the_bounds_that_an_alert_knows_are_those_of_the_serve_configs() -> None:
    recorded = {
        rule["labels"]["deployment"]: int(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for rule in rules()
        if rule.get("record") == "amser:replicas:max"
    }
    assert recorded == {
        "WhisperASR": most_replicas("serve_config.yaml", "WhisperASR"),
        "Ingress": most_replicas("serve_config.fused.yaml", "Ingress"),
    }
    # The gateway of the distributed profile has to stay below, or its bound would look like the other's
    assert most_replicas("serve_config.yaml", "Ingress") < recorded["Ingress"]


def most_replicas(file: str, deployment: str) -> int:
    deployments = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["applications"][0]["deployments"]
    bounds = {each["name"]: each["autoscaling_config"]["max_replicas"] for each in deployments}
    return int(bounds[deployment])
