"""Whisper's encoder as an ONNX graph, from a folder in CTranslate2's format: its last states and those on the way."""

from __future__ import annotations

import numpy as np

from models.whisper.arrays import Arrays, layers_of
from models.whisper.engine import LOWER_LAYERS
from models.whisper.onnx.graph import FLOAT, MICROSOFT, Graph


def lower_names() -> list[str]:
    """Of the sums behind each of the first layers: (1, n, width)."""
    return [f"lower{layer}" for layer in range(LOWER_LAYERS)]


def encoder_graph(arrays: Arrays) -> bytes:
    """`log_mel` (1, bands, T) → `states` (1, ⌈T / 2⌉, width), and `lower_names`."""
    graph, heads = Graph(arrays, bits=7), int(arrays["encoder/num_heads"])
    rows = "log_mel"
    for number in (1, 2):
        weight, bias = (graph.constant(graph.floats(f"encoder/conv{number}/{part}")) for part in ("weight", "bias"))
        convolved = graph.add("Conv", rows, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[number])
        rows = graph.add("Gelu", convolved)
    rows = graph.add("Transpose", rows, perm=[0, 2, 1])
    places = graph.constant(graph.floats("encoder/position_encodings/encodings"))
    start, axis, end = (graph.constant(np.array([value])) for value in (0, 0, 2))
    count = graph.add("Slice", graph.add("Shape", rows), graph.constant(np.array([1])), end)
    rows = graph.add("Add", rows, graph.add("Slice", places, start, count, axis))
    for layer in range(layers_of(arrays, "encoder")):
        source = f"encoder/layer_{layer}/self_attention"
        joined = graph.normed_linear(source, rows)
        heard = graph.add("MultiHeadAttention", *graph.split(joined, 3), domain=MICROSOFT, num_heads=heads)
        rows = graph.add("Add", rows, graph.linear(f"{source}/linear_1", heard))
        rows = graph.feed_forward(f"encoder/layer_{layer}/ffn", rows)
        if layer < LOWER_LAYERS:
            graph.add("Identity", rows, output=lower_names()[layer])
    graph.norm("encoder", rows, output="states")
    return graph.content([("log_mel", FLOAT, 3)], [(name, 3) for name in ("states", *lower_names())])
