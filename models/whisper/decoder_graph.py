"""Whisper's decoder as ONNX graphs, from a folder in CTranslate2's format: the weights of most products in 8 bits.

Two graphs. `cross` makes keys and values of the encoder's states, once an utterance. `step` takes tokens, what was
kept of those before them, and these keys and values; it gives logits and what is to be kept.

Weights have a scale for each block of 128 and activations another for each row's block (ONNX Runtime's `MatMulNBits`),
so that no row sets the scale of the rows beside it; that many rows are computed by another kernel than one still shows
in the last digits. Keys and values of the states stay in 32 bits: they are made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.whisper.arrays import Arrays, layers_of

BLOCK: Final = 128  # weights that share a scale; every Whisper's width is a multiple
HEAD_WIDTH: Final = 64  # of every attention head, in every size of Whisper
_OPSET, _IR = 21, 10
_FLOAT, _INTEGER = TensorProto.FLOAT, TensorProto.INT64


def kept_names(layers: int) -> list[str]:
    """Of what a step keeps: each layer's keys (B, heads, d, n) and values (B, heads, n, d)."""
    return [f"{part}{layer}" for layer in range(layers) for part in ("key", "value")]


def cross_names(layers: int) -> list[str]:
    """Of each layer's keys (B, heads, d, s) and values (B, heads, s, d) of the encoder's states."""
    return [f"cross_{name}" for name in kept_names(layers)]


def cross_graph(arrays: Arrays) -> bytes:
    """`states` (B, s, width) → `cross_names`."""
    graph, heads = _Graph(), int(arrays["decoder/num_heads"])
    names = cross_names(layers_of(arrays, "decoder"))
    for layer in range(len(names) // 2):
        source = f"decoder/layer_{layer}/attention/linear_1"
        weights = np.split(_floats(arrays, f"{source}/weight"), 2)
        biases = np.split(_floats(arrays, f"{source}/bias"), 2)
        for name, weight, bias, axes in zip(
            names[2 * layer :], weights, biases, ([0, 2, 3, 1], [0, 2, 1, 3]), strict=False
        ):
            product = graph.add("MatMul", "states", graph.constant(np.ascontiguousarray(weight.T)))
            split = graph.heads(graph.add("Add", product, graph.constant(bias)), heads)
            graph.add("Transpose", split, perm=axes, output=name)
    return graph.content([("states", _FLOAT, 3)], [(name, 4) for name in names])


def step_graph(arrays: Arrays) -> bytes:
    """The inputs and outputs of a step.

    `tokens` (B, n) and `positions` (n,) integers; `mask` (n, p + n), added to the scores of the p tokens before and of
    the n; `first`, (1,): the token from which logits are wanted; `past_` and each of `kept_names`; each of
    `cross_names` → `logits` (B, n - first, vocabulary), and each of `kept_names` with n tokens more.
    """
    graph, heads = _Graph(), int(arrays["decoder/num_heads"])
    layers = layers_of(arrays, "decoder")
    embeddings = _floats(arrays, "decoder/embeddings/weight")
    words = graph.add("Gather", graph.constant(embeddings.astype(np.float16)), "tokens")
    places = graph.add("Gather", graph.constant(_floats(arrays, "decoder/position_encodings/encodings")), "positions")
    rows = graph.add("Add", graph.add("Cast", words, to=_FLOAT), places)
    for layer in range(layers):
        rows = _self_attention(graph, arrays, layer, heads, rows)
        rows = _cross_attention(graph, arrays, layer, heads, rows)
        source = f"decoder/layer_{layer}/ffn"
        inner = graph.add("Gelu", graph.linear(arrays, f"{source}/linear_0", graph.norm(arrays, source, rows)))
        rows = graph.add("Add", rows, graph.linear(arrays, f"{source}/linear_1", inner))
    end, axis = graph.constant(np.array([np.iinfo(np.int64).max])), graph.constant(np.array([1]))
    wanted = graph.add("Slice", graph.norm(arrays, "decoder", rows), "first", end, axis)
    graph.narrow_product(embeddings, wanted, output="logits")
    kept, cross = kept_names(layers), cross_names(layers)
    inputs = [("tokens", _INTEGER, 2), ("positions", _INTEGER, 1), ("mask", _FLOAT, 2), ("first", _INTEGER, 1)]
    inputs += [(name, _FLOAT, 4) for name in (*(f"past_{each}" for each in kept), *cross)]
    return graph.content(inputs, [("logits", 3), *((name, 4) for name in kept)])


def _self_attention(graph: _Graph, arrays: Arrays, layer: int, heads: int, rows: str) -> str:
    source = f"decoder/layer_{layer}/self_attention"
    joined = graph.linear(arrays, f"{source}/linear_0", graph.norm(arrays, source, rows))
    queries, keys, values = graph.split(joined, 3)
    keys = graph.add("Transpose", graph.heads(keys, heads), perm=[0, 2, 3, 1])
    values = graph.add("Transpose", graph.heads(values, heads), perm=[0, 2, 1, 3])
    keys = graph.add("Concat", f"past_key{layer}", keys, axis=3, output=f"key{layer}")
    values = graph.add("Concat", f"past_value{layer}", values, axis=2, output=f"value{layer}")
    heard = graph.attention(queries, keys, values, heads, "mask")
    return graph.add("Add", rows, graph.linear(arrays, f"{source}/linear_1", heard))


def _cross_attention(graph: _Graph, arrays: Arrays, layer: int, heads: int, rows: str) -> str:
    source = f"decoder/layer_{layer}/attention"
    queries = graph.linear(arrays, f"{source}/linear_0", graph.norm(arrays, source, rows))
    heard = graph.attention(queries, f"cross_key{layer}", f"cross_value{layer}", heads, None)
    return graph.add("Add", rows, graph.linear(arrays, f"{source}/linear_2", heard))


class _Graph:
    """Nodes and constants of a graph under construction; values are called by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """A node with one output."""
        name = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def split(self, value: str, parts: int) -> list[str]:
        """Equal parts along the last axis."""
        names = [f"n{len(self._nodes)}_{part}" for part in range(parts)]
        self._nodes.append(helper.make_node("Split", [value], names, axis=-1, num_outputs=parts))
        return names

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def linear(self, arrays: Arrays, source: str, rows: str) -> str:
        product = self.narrow_product(_floats(arrays, f"{source}/weight"), rows)
        return self.add("Add", product, self.constant(_floats(arrays, f"{source}/bias")))

    def narrow_product(self, weight: NDArray[np.float32], rows: str, output: str = "") -> str:
        """`rows` times a transposed weight (out, in) that is rounded to 8 bits."""
        out, inner = weight.shape
        blocks = weight.reshape(out, inner // BLOCK, BLOCK)
        scales = np.maximum(np.abs(blocks).max(axis=2), np.finfo(np.float32).tiny) / 127
        numbers = (np.rint(blocks / scales[:, :, None]) + 128).astype(np.uint8)  # 128 stands for zero
        weights, scaling = self.constant(numbers), self.constant(scales.ravel())
        sizes = {"K": inner, "N": out, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        return self.add("MatMulNBits", rows, weights, scaling, domain="com.microsoft", output=output, **sizes)

    def norm(self, arrays: Arrays, source: str, rows: str) -> str:
        gamma, beta = (self.constant(_floats(arrays, f"{source}/layer_norm/{part}")) for part in ("gamma", "beta"))
        return self.add("LayerNormalization", rows, gamma, beta, axis=-1, epsilon=1e-5)

    def heads(self, rows: str, heads: int) -> str:
        """(B, n, width) → (B, n, heads, d)."""
        return self.add("Reshape", rows, self.constant(np.array([0, 0, heads, -1])))

    def attention(self, queries: str, keys: str, values: str, heads: int, mask: str | None) -> str:
        """softmax(q kᵀ / √d) v, joined: (B, n, width)."""
        split = self.add("Transpose", self.heads(queries, heads), perm=[0, 2, 1, 3])
        scale = self.constant(np.array(HEAD_WIDTH**-0.5, np.float32))
        scores = self.add("Mul", self.add("MatMul", split, keys), scale)
        scores = scores if mask is None else self.add("Add", scores, mask)
        heard = self.add("MatMul", self.add("Softmax", scores, axis=-1), values)
        joined = self.add("Transpose", heard, perm=[0, 2, 1, 3])
        return self.add("Reshape", joined, self.constant(np.array([0, 0, -1])))

    def content(self, inputs: Sequence[tuple[str, int, int]], outputs: Sequence[tuple[str, int]]) -> bytes:
        """The model as a file holds it; inputs and outputs by name, type and number of axes."""
        given = [helper.make_tensor_value_info(name, kind, [None] * axes) for name, kind, axes in inputs]
        made = [helper.make_tensor_value_info(name, _FLOAT, [None] * axes) for name, axes in outputs]
        graph = helper.make_graph(self._nodes, "decoder", given, made, self._constants)
        versions = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=_IR)
        return bytes(model.SerializeToString())


def _floats(arrays: Arrays, name: str) -> NDArray[np.float32]:
    return arrays[name].astype(np.float32)
