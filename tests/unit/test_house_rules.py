"""Who may import whom, and how long a file may be: the rules of the house, held by `ast`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("amser", "training.klt", "deployments", "fusion", "edge_sim", "load_tests", "benchmarks", "demo")
OURS = {*PACKAGES, "tests"}
LONGEST_FILE = 400  # lines
MAY_IMPORT = {  # of ours
    "amser": set(),
    "training.klt": {"amser", "deployments"},  # it asks the recogniser what its words depend on
    "edge_sim": {"amser"},
    "load_tests": {"amser", "edge_sim"},
    "fusion": {"amser", "deployments"},  # its extraction runs the stages that are served
    "deployments": {"amser", "fusion"},
}
RUN_SERVED_STAGES = {"training.data.extraction", "training.data.texts"}
READS_SERVED_WEIGHTS = {"training.fitting.curriculum"}  # layers of the network begin as Whisper's
NETWORK = {  # a checkpoint, and every network that one can hold
    "models.emotion.checkpoint",
    "models.emotion.registry",
    "models.emotion.network",
    "models.emotion.amser_states",
    "models.emotion.attention",
    "models.emotion.batch",
    "models.emotion.branches",
    "models.emotion.published.frames",
    "models.emotion.published.umons",
    "models.emotion.published.xu",
    "models.emotion.published.yoon",
}
SIGNAL_PATH_NEEDS = {"numpy", "scipy", "constriction", "google_crc32c"}


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "__pycache__" not in path.parts)


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it: `from a import b` counts as `a.b` where that is a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            assert node.module is not None
            for alias in node.names:
                inner = ROOT.joinpath(*node.module.split("."), alias.name)
                is_module = inner.with_suffix(".py").is_file() or inner.is_dir()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def package_of(module: str) -> str:
    return module.partition(".")[0]


def ours(file: Path) -> set[str]:
    """What a file imports of ours, beyond its own package."""
    return {module for module in imports(file) if package_of(module) in OURS - {file.relative_to(ROOT).parts[0]}}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_no_other_than_it_may(package: str) -> None:
    assert modules(package)
    forbidden = {
        name_of(file): foreign
        for file in modules(package)
        if (foreign := {module for module in ours(file) if package_of(module) not in MAY_IMPORT[package]})
    }
    assert forbidden == {}


def test_the_training_runs_the_served_stages_in_few_places() -> None:
    """The others ask `models.weights` alone: where a model is, and which it is exactly."""
    using = {
        name_of(file): served
        for file in modules("fusion")
        if (served := {each for each in ours(file) if package_of(each) == "deployments"} - {"models.weights"})
    }
    assert using.keys() == RUN_SERVED_STAGES | READS_SERVED_WEIGHTS
    for module in READS_SERVED_WEIGHTS:
        assert using[module] <= {"models.whisper.conversion", "models.whisper.voice"}


def test_the_signal_path_needs_numpy_scipy_and_a_checksum_alone() -> None:
    needed = {package_of(module) for file in modules("amser") for module in imports(file)}
    optional = {"httpx"} if (ROOT / "amser" / "client.py").is_file() else set()
    assert needed - set(sys.stdlib_module_names) - {"amser"} <= SIGNAL_PATH_NEEDS | optional


def test_what_is_served_of_the_training_is_the_network_alone() -> None:
    served = {module for file in modules("deployments") for module in ours(file) if package_of(module) == "fusion"}
    assert served <= NETWORK
    assert "models.emotion.checkpoint" in served


def test_the_network_imports_nothing_of_ours_but_the_signal_path_and_itself() -> None:
    reached, ahead = set[str](), {"models.emotion.checkpoint"}
    while ahead:
        module = ahead.pop()
        reached.add(module)
        file = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        of_ours = {imported for imported in imports(file) if package_of(imported) in OURS}
        ahead |= {imported for imported in of_ours if package_of(imported) != "amser"} - reached
    assert reached == NETWORK


def test_nothing_imports_benchmarks_tests_or_demo() -> None:
    ends = {"benchmarks", "tests", "demo"}
    for package in set(PACKAGES) - ends:
        for file in modules(package):
            assert not {module for module in ours(file) if package_of(module) in ends}, file


@pytest.mark.parametrize("package", PACKAGES)
def test_a_file_is_short_enough_to_be_read(package: str) -> None:
    too_long = {
        name_of(file): lines
        for file in modules(package)
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }
    assert too_long == {}


def test_the_test_command_of_the_readme_exists() -> None:
    readme, makefile = ROOT / "README.md", ROOT / "Makefile"
    if not readme.is_file():
        pytest.skip("there is no README.md yet")
    commands = set(re.findall(r"\bmake ([a-z]+)", readme.read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z]+):", makefile.read_text(encoding="utf-8"), re.MULTILINE))
    assert "test" in commands
    assert commands <= targets
