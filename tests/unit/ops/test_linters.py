"""The tools that know these files best have nothing against them, where they are installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OPS = ROOT / "ops"
BESIDE_PYTHON = str(Path(sys.executable).parent)


def tool(name: str) -> str:
    found = shutil.which(name, path=BESIDE_PYTHON) or shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str, folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_prometheus_accepts_its_configuration_and_rules() -> None:
    assert "rules found" in run(tool("promtool"), "check", "config", "prometheus.yml", folder=OPS / "prometheus")


def test_alerts_fire_and_keep_quiet_as_their_cases_say() -> None:
    assert "SUCCESS" in run(tool("promtool"), "test", "rules", "alerts_test.yml", folder=OPS / "prometheus")


def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    run(tool("hadolint"), "--failure-threshold", "style", str(OPS / "Dockerfile"))


def test_yamllint_has_nothing_against_the_yaml() -> None:
    run(tool("yamllint"), "--strict", "--config-file", str(OPS / ".yamllint"), str(OPS))
