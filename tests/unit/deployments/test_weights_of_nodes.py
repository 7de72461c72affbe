"""Each node finds a model by name and fingerprint, wherever it keeps it, and takes nothing else for it."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.gateway import ingress
from deployments.replica.weights import node_name, on_this_node
from deployments.settings import Settings
from deployments.stages.assembly import stage_arguments
from deployments.stages.served import models_of
from models import resolve as resolving
from models.emotion.checkpoint_info import DEFAULT_CHECKPOINT
from models.resolve import OtherWeights, locate, portable, resolve, wanted
from models.weights import UnknownModel, WeightsMissing, default_store, model_path

NAME = "spacy-en-core-web-md"


def test_a_machine_that_keeps_its_weights_elsewhere_finds_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, here = wanted(NAME), model_path(NAME)
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))
    default_store().mkdir(parents=True)
    (default_store() / NAME).symlink_to(here)
    assert locate(model) == on_this_node(model) == tmp_path / "weights" / NAME


def test_a_machine_without_them_says_where_it_looked_and_what_brings_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wanted(NAME)
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing) as caught:
        on_this_node(model)
    assert str(caught.value) == (
        f"on node {node_name()}: {NAME}: not fetched (looked in {tmp_path / 'weights' / NAME}). "
        f"Bring it with: python -m models.weights fetch {NAME}"
    )


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "folder"])
def test_other_weights_under_the_same_name_are_refused(tmp_path: Path, as_file: bool) -> None:
    path = tmp_path / "encoder"
    content = path if as_file else path / "weights.bin"
    content.parent.mkdir(exist_ok=True)
    content.write_bytes(b"one")
    model = wanted(str(path))
    assert locate(model) == path
    content.write_bytes(b"two")
    with pytest.raises(OtherWeights, match="is another one here"):
        locate(model)
    with pytest.raises(WeightsMissing, match=f"on node {node_name()}: {path} is another one here"):
        on_this_node(model)


def test_packages_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their catalogue may mean other weights by the same name."""
    model = wanted(NAME)
    monkeypatch.setattr(resolving, "fingerprint", lambda _: "0" * 64)
    with pytest.raises(WeightsMissing, match=r"is another one here \(000000000000…\) than where the application was"):
        on_this_node(model)


def test_a_path_that_is_not_there_is_no_id_of_hugging_face(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        resolve(str(tmp_path / "encoder"))
    assert resolve("sentence-transformers/any").location == "sentence-transformers/any"


def test_the_network_that_ships_is_found_in_each_machines_own_packages(tmp_path: Path) -> None:
    assert portable(DEFAULT_CHECKPOINT) == "models:emotion/checkpoints/amser-states.safetensors"
    assert resolve(portable(DEFAULT_CHECKPOINT)).location == DEFAULT_CHECKPOINT
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"a network")
    assert resolve(portable(own)).location == own


def test_no_path_of_the_machine_that_builds_reaches_a_replica() -> None:
    models = models_of(Settings())
    told = pickle.dumps([arguments for _, arguments in stage_arguments(Settings(), False, models).values()])
    for path in (default_store(), DEFAULT_CHECKPOINT.parent):
        assert str(path).encode() not in told + pickle.dumps(models)


def test_a_gateway_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = models_of(Settings())
    monkeypatch.setenv("AMSER_CACHE", str(tmp_path))
    handle = SimpleNamespace(describe=SimpleNamespace(remote=None))
    handles = dict.fromkeys(stage_arguments(Settings(), False, models), handle)
    gateway: Any = ingress.Ingress.func_or_class.__mro__[1]  # type: ignore[attr-defined]
    gateway(Settings(), handles, False, models)
    with pytest.raises(WeightsMissing, match="python -m models.weights fetch"):
        models_of(Settings())
