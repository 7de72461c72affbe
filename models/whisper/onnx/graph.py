"""An ONNX graph under construction, with products of 8-bit integers.

Each row of activations has its own scale, and so has each column of weights: no row sets the scale of the rows beside
it, as it would with ONNX Runtime's own dynamic quantisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.whisper.arrays import Arrays

FLOAT, INTEGER = TensorProto.FLOAT, TensorProto.INT64
MICROSOFT: Final = "com.microsoft"  # domain of ONNX Runtime's own operators
ACTIVATION_LIMIT: Final = 127  # 8 bits, around ZERO
ZERO: Final = 128
LARGE: Final = 3  # standard deviations
_OPSET, _IR = 21, 10


class Graph:
    """Nodes and constants; values are called by their names.

    Args:
        arrays: the weights.
        bits: of a weight in products. 7 are faster with many rows: processors without VNNI add two products of 8 by 7
            bits in one step, and two of 8 by 8 would overflow. With few rows it is memory that takes the time.
    """

    def __init__(self, arrays: Arrays, bits: Literal[7, 8]) -> None:
        self._arrays = arrays
        self._weight_limit = 2 ** (bits - 1) - 1
        self._weight_zero = np.uint8(ZERO) if bits == 8 else np.int8(0)
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

    def constant(self, values: NDArray[np.generic] | np.generic) -> str:
        """A value that never changes."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def floats(self, name: str) -> NDArray[np.float32]:
        """An array of the weights."""
        return self._arrays[name].astype(np.float32)

    def narrow(self, rows: str) -> tuple[str, str]:
        """Rows in 8 bits, and the largest magnitude of each, (B, n, 1)."""
        peaks = self.add("ReduceMax", self.add("Abs", rows), self.constant(np.array([-1])), keepdims=1)
        peaks = self.add("Max", peaks, self.constant(np.float32(1e-30)))
        filled = self.add("Mul", rows, self.add("Div", self.constant(np.float32(ACTIVATION_LIMIT)), peaks))
        return self.add("QuantizeLinear", filled, self.constant(np.float32(1)), self.constant(np.uint8(ZERO))), peaks

    def product(self, weight: NDArray[np.float32], narrowed: tuple[str, str], output: str = "") -> str:
        """Narrowed rows times a transposed weight (out, in)."""
        rows, peaks = narrowed
        scales = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny) / self._weight_limit
        numbers = np.rint(weight / scales[:, None]) + float(self._weight_zero)
        matrix = self.constant(np.ascontiguousarray(numbers.T.astype(self._weight_zero.dtype)))
        scaling = self.constant((scales / ACTIVATION_LIMIT).astype(np.float32))
        zeros = self.constant(np.uint8(ZERO)), self.constant(self._weight_zero)
        product = self.add(
            "MatMulIntegerToFloat", rows, matrix, self.constant(np.float32(1)), scaling, *zeros, domain=MICROSOFT
        )
        return self.add("Mul", product, peaks, output=output)

    def linear(self, source: str, rows: str) -> str:
        """A linear layer."""
        product = self.product(self.floats(f"{source}/weight"), self.narrow(rows))
        return self.add("Add", product, self.constant(self.floats(f"{source}/bias")))

    def norm(self, source: str, rows: str, output: str = "") -> str:
        """A layer norm."""
        gamma, beta = (self.floats(f"{source}/layer_norm/{part}") for part in ("gamma", "beta"))
        return self._norm(gamma, beta, rows, output)

    def normed_product(self, source: str, weight: NDArray[np.float32], rows: str, output: str = "") -> str:
        """A layer norm, and its rows times a transposed weight.

        A few large channels would take most of a row's bits, so the weight takes their size, if it has 8 bits itself.
        """
        if self._weight_limit < ACTIVATION_LIMIT:
            return self.product(weight, self.narrow(self.norm(source, rows)), output)
        gamma, beta = (self.floats(f"{source}/layer_norm/{part}") for part in ("gamma", "beta"))
        levels = np.maximum(np.abs(beta) + LARGE * np.abs(gamma), np.finfo(np.float32).tiny)
        return self.product(weight * levels, self.narrow(self._norm(gamma / levels, beta / levels, rows)), output)

    def normed_linear(self, source: str, rows: str, scale: float | NDArray[np.float32] = 1.0) -> str:
        """The layer norm of a block and its first linear layer; `scale`, of the outputs, is best a power of two."""
        factors = np.asarray(scale, np.float32)
        weight = self.floats(f"{source}/linear_0/weight") * factors.reshape(-1, 1)
        bias = self.constant(self.floats(f"{source}/linear_0/bias") * factors)
        return self.add("Add", self.normed_product(source, weight, rows), bias)

    def feed_forward(self, source: str, rows: str) -> str:
        """The second half of a layer."""
        inner = self.add("Gelu", self.normed_linear(source, rows))
        return self.add("Add", rows, self.linear(f"{source}/linear_1", inner))

    def _norm(self, gamma: NDArray[np.float32], beta: NDArray[np.float32], rows: str, output: str = "") -> str:
        parts = self.constant(gamma), self.constant(beta)
        return self.add("LayerNormalization", rows, *parts, axis=-1, epsilon=1e-5, output=output)

    def content(self, inputs: Sequence[tuple[str, int, int]], outputs: Sequence[tuple[str, int]]) -> bytes:
        """The model as a file holds it; inputs and outputs by name, type and number of axes."""
        given = [helper.make_tensor_value_info(name, kind, [None] * axes) for name, kind, axes in inputs]
        made = [helper.make_tensor_value_info(name, FLOAT, [None] * axes) for name, axes in outputs]
        graph = helper.make_graph(self._nodes, "whisper", given, made, self._constants)
        versions = [helper.make_opsetid("", _OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=_IR)
        return bytes(model.SerializeToString())
