"""Whisper's decoder as ONNX graphs, from a folder in CTranslate2's format.

Two graphs. `cross` makes keys and values of the encoder's states, once an utterance. `step` takes tokens, what was
kept of those before them, and these keys and values; it gives logits and what is to be kept. Keys and values stay in 32
bits.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from models.whisper.arrays import Arrays, layers_of
from models.whisper.onnx.graph import FLOAT, INTEGER, Graph

HEAD_WIDTH: Final = 64  # of every attention head, in every size of Whisper
SCALE: Final = HEAD_WIDTH**-0.5  # of queries: a power of two


def kept_names(layers: int) -> list[str]:
    """Of what a step keeps: each layer's keys (B, heads, d, n) and values (B, heads, n, d)."""
    return [f"{part}{layer}" for layer in range(layers) for part in ("key", "value")]


def cross_names(layers: int) -> list[str]:
    """Of each layer's keys (B, heads, d, s) and values (B, heads, s, d) of the encoder's states."""
    return [f"cross_{name}" for name in kept_names(layers)]


def cross_graph(arrays: Arrays) -> bytes:
    """`states` (B, s, width) → `cross_names`."""
    graph, heads = Graph(arrays, bits=7), int(arrays["decoder/num_heads"])
    names = cross_names(layers_of(arrays, "decoder"))
    states = graph.narrow("states")
    for layer in range(len(names) // 2):
        source = f"decoder/layer_{layer}/attention/linear_1"
        bias = graph.constant(graph.floats(f"{source}/bias"))
        joined = graph.add("Add", graph.product(graph.floats(f"{source}/weight"), states), bias)
        for part, name, axes in zip(
            graph.split(joined, 2), names[2 * layer :], ([0, 2, 3, 1], [0, 2, 1, 3]), strict=False
        ):
            graph.add("Transpose", _heads(graph, part, heads), perm=axes, output=name)
    return graph.content([("states", FLOAT, 3)], [(name, 4) for name in names])


def step_graph(arrays: Arrays) -> bytes:
    """The inputs and outputs of a step.

    `tokens` (B, n) and `positions` (n,) integers; `mask` (n, p + n), added to the scores of the p tokens before and of
    the n; `first`, (1,): the token from which logits are wanted; `past_` and each of `kept_names`; each of
    `cross_names` → `logits` (B, n - first, vocabulary), and each of `kept_names` with n tokens more.
    """
    graph, heads = Graph(arrays, bits=8), int(arrays["decoder/num_heads"])
    layers = layers_of(arrays, "decoder")
    embeddings = graph.floats("decoder/embeddings/weight")
    words = graph.add("Gather", graph.constant(embeddings.astype(np.float16)), "tokens")
    places = graph.add("Gather", graph.constant(graph.floats("decoder/position_encodings/encodings")), "positions")
    rows = graph.add("Add", graph.add("Cast", words, to=FLOAT), places)
    for layer in range(layers):
        rows = _self_attention(graph, layer, heads, rows)
        rows = _cross_attention(graph, layer, heads, rows)
        rows = graph.feed_forward(f"decoder/layer_{layer}/ffn", rows)
    end, axis = graph.constant(np.array([np.iinfo(np.int64).max])), graph.constant(np.array([1]))
    graph.normed_product("decoder", embeddings, graph.add("Slice", rows, "first", end, axis), output="logits")
    kept, cross = kept_names(layers), cross_names(layers)
    inputs = [("tokens", INTEGER, 2), ("positions", INTEGER, 1), ("mask", FLOAT, 2), ("first", INTEGER, 1)]
    inputs += [(name, FLOAT, 4) for name in (*(f"past_{each}" for each in kept), *cross)]
    return graph.content(inputs, [("logits", 3), *((name, 4) for name in kept)])


def _self_attention(graph: Graph, layer: int, heads: int, rows: str) -> str:
    source = f"decoder/layer_{layer}/self_attention"
    width = heads * HEAD_WIDTH
    scales = np.repeat(np.array([SCALE, 1, 1], np.float32), width)
    queries, keys, values = graph.split(graph.normed_linear(source, rows, scales), 3)
    keys = graph.add("Transpose", _heads(graph, keys, heads), perm=[0, 2, 3, 1])
    values = graph.add("Transpose", _heads(graph, values, heads), perm=[0, 2, 1, 3])
    keys = graph.add("Concat", f"past_key{layer}", keys, axis=3, output=f"key{layer}")
    values = graph.add("Concat", f"past_value{layer}", values, axis=2, output=f"value{layer}")
    heard = _attention(graph, queries, keys, values, heads, "mask")
    return graph.add("Add", rows, graph.linear(f"{source}/linear_1", heard))


def _cross_attention(graph: Graph, layer: int, heads: int, rows: str) -> str:
    source = f"decoder/layer_{layer}/attention"
    queries = graph.normed_linear(source, rows, SCALE)
    heard = _attention(graph, queries, f"cross_key{layer}", f"cross_value{layer}", heads, None)
    return graph.add("Add", rows, graph.linear(f"{source}/linear_2", heard))


def _attention(graph: Graph, queries: str, keys: str, values: str, heads: int, mask: str | None) -> str:
    """softmax(q kᵀ) v of queries that are scaled already, joined: (B, n, width)."""
    split = graph.add("Transpose", _heads(graph, queries, heads), perm=[0, 2, 1, 3])
    scores = graph.add("MatMul", split, keys)
    scores = scores if mask is None else graph.add("Add", scores, mask)
    heard = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), values)
    joined = graph.add("Transpose", heard, perm=[0, 2, 1, 3])
    return graph.add("Reshape", joined, graph.constant(np.array([0, 0, -1])))


def _heads(graph: Graph, rows: str, heads: int) -> str:
    """(B, n, width) → (B, n, heads, d)."""
    return graph.add("Reshape", rows, graph.constant(np.array([0, 0, heads, -1])))
