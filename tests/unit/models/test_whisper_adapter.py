"""The file of a Whisper is read and written without a changed byte, and an adapter changes what it names alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from small_whisper import write_whisper

from models.weights import model_path
from models.whisper.adapter import adapt
from models.whisper.arrays import Arrays, layers_of, read_arrays, renamed, write_arrays
from models.whisper.conversion import load_openai_whisper

WIDTH, RANK = 64, 4
QUERY, MLP, CROSS_VALUE = (
    "encoder.blocks.1.attn.query.weight",
    "encoder.blocks.1.mlp.2.weight",
    "decoder.blocks.0.cross_attn.value.weight",
)
CHANGED = {  # (outputs, inputs), by openai-whisper's names
    QUERY: (WIDTH, WIDTH),
    MLP: (WIDTH, 4 * WIDTH),
    CROSS_VALUE: (WIDTH, WIDTH),
}
ALIAS = "decoder/projection/weight"

Changes = dict[str, NDArray[np.float16]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Whisper's folder: an encoder of two layers, a decoder of one, half precision as the served one has."""
    folder = write_whisper(tmp_path_factory.mktemp("small") / "whisper", WIDTH, layers=2, decoder_layers=1)
    arrays = read_arrays(folder / "model.bin")
    halves = {id(values): values.astype(np.float16) if values.ndim else values for values in arrays.values()}
    write_arrays(folder / "model.bin", {name: halves[id(values)] for name, values in arrays.items()})
    return folder


@pytest.fixture(scope="module")
def changes() -> Changes:
    draw = np.random.default_rng(1)
    made: Changes = {}
    for name, (outputs, inputs) in CHANGED.items():
        made[f"{name}.up"] = draw.standard_normal((outputs, RANK)).astype(np.float16)
        made[f"{name}.down"] = (0.02 * draw.standard_normal((RANK, inputs))).astype(np.float16)
    return made


@pytest.fixture(scope="module")
def adapted(base: Path, changes: Changes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the adapted model."""
    folder = tmp_path_factory.mktemp("adapted")
    save_file(changes, folder / "adapter.safetensors")
    adapt(base / "model.bin", folder / "adapter.safetensors", folder / "model.bin")
    return folder / "model.bin"


def product(changes: Changes, name: str) -> NDArray[np.float64]:
    return changes[f"{name}.up"].astype(np.float64) @ changes[f"{name}.down"].astype(np.float64)


def by_name(arrays: Arrays) -> Arrays:
    return dict(renamed(arrays))


def test_the_served_model_is_written_as_it_was_read(tmp_path: Path) -> None:
    file = model_path("whisper-base") / "model.bin"
    write_arrays(tmp_path / "model.bin", read_arrays(file))
    assert (tmp_path / "model.bin").read_bytes() == file.read_bytes()


def test_layers_are_counted_in_each_stack(base: Path) -> None:
    arrays = read_arrays(base / "model.bin")
    assert (layers_of(arrays, "encoder"), layers_of(arrays, "decoder")) == (2, 1)


def test_the_matrices_that_are_named_are_changed_and_rounded_once(base: Path, adapted: Path, changes: Changes) -> None:
    before, after = (by_name(read_arrays(file)) for file in (base / "model.bin", adapted))
    for name in CHANGED:
        expected = (before[name].astype(np.float64) + product(changes, name)).astype(np.float16)
        np.testing.assert_array_equal(after[name], expected)
        assert np.any(after[name] != before[name])


def test_everything_else_stays_as_it_was(base: Path, adapted: Path) -> None:
    """Also the key and the value that stand in one array with a query that is changed."""
    before, after = (read_arrays(file) for file in (base / "model.bin", adapted))
    assert list(after) == list(before)
    assert all(after[name].dtype == values.dtype for name, values in before.items())
    ours, theirs = by_name(before), by_name(after)
    for name in ours.keys() - CHANGED.keys():
        np.testing.assert_array_equal(theirs[name], ours[name])
    joined = {
        "encoder/layer_1/self_attention/linear_0",
        "encoder/layer_1/ffn/linear_1",
        "decoder/layer_0/attention/linear_1",
    }
    different = {name for name, values in before.items() if not np.array_equal(after[name], values)}
    assert different == {f"{name}/weight" for name in joined}


def test_what_shares_an_array_shares_it_still(base: Path, adapted: Path) -> None:
    for file in (base / "model.bin", adapted):
        arrays = read_arrays(file)
        assert arrays[ALIAS] is arrays["decoder/embeddings/weight"]
    assert adapted.stat().st_size == (base / "model.bin").stat().st_size


def test_a_change_of_a_shared_array_reaches_both_names(base: Path, tmp_path: Path) -> None:
    name = "decoder.token_embedding.weight"
    rows = len(by_name(read_arrays(base / "model.bin"))[name])
    changes = {f"{name}.up": np.ones((rows, 1), np.float16), f"{name}.down": np.ones((1, WIDTH), np.float16)}
    save_file(changes, tmp_path / "adapter.safetensors")
    adapt(base / "model.bin", tmp_path / "adapter.safetensors", tmp_path / "model.bin")
    before, after = (read_arrays(file) for file in (base / "model.bin", tmp_path / "model.bin"))
    assert after[ALIAS] is after["decoder/embeddings/weight"]
    expected = (before[ALIAS].astype(np.float64) + 1).astype(np.float16)
    np.testing.assert_array_equal(after[ALIAS], expected)


def test_openai_whisper_of_the_adapted_file_is_the_base_and_the_product(
    base: Path, adapted: Path, changes: Changes
) -> None:
    (adapted.parent / "config.json").write_bytes((base / "config.json").read_bytes())
    ours, theirs = (load_openai_whisper(folder).state_dict() for folder in (base, adapted.parent))
    for name, values in ours.items():
        wanted = values + torch.from_numpy(product(changes, name)).float() if name in CHANGED else values
        torch.testing.assert_close(theirs[name], wanted, rtol=0, atol=1e-3 if name in CHANGED else 0)


def test_the_base_is_not_touched_and_the_same_bytes_come_twice(base: Path, adapted: Path, tmp_path: Path) -> None:
    before = (base / "model.bin").read_bytes()
    adapt(base / "model.bin", adapted.parent / "adapter.safetensors", tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == adapted.read_bytes()
    assert (base / "model.bin").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "up", "down"),
    [
        ("encoder.blocks.2.attn.query.weight", (WIDTH, RANK), (RANK, WIDTH)),  # there are two layers
        ("encoder/layer_1/ffn/linear_1/weight", (WIDTH, RANK), (RANK, 4 * WIDTH)),  # CTranslate2's name
        (QUERY, (WIDTH, RANK), (RANK, 2 * WIDTH)),
        (QUERY, (WIDTH, RANK), (RANK + 1, WIDTH)),
        (QUERY, (3 * WIDTH, RANK), (RANK, WIDTH)),  # of query, key and value together
        ("encoder.ln_post.weight", (WIDTH, RANK), (RANK, WIDTH)),  # no matrix
    ],
)
def test_an_adapter_of_another_model_is_refused_and_writes_nothing(
    base: Path, tmp_path: Path, name: str, up: tuple[int, int], down: tuple[int, int]
) -> None:
    changes = {f"{name}.up": np.zeros(up, np.float16), f"{name}.down": np.zeros(down, np.float16)}
    save_file(changes, tmp_path / "adapter.safetensors")
    with pytest.raises(ValueError, match=name):
        adapt(base / "model.bin", tmp_path / "adapter.safetensors", tmp_path / "model.bin")
    assert not (tmp_path / "model.bin").exists()
