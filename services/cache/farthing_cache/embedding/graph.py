"""The ONNX graph of all-MiniLM-L6-v2, written node by node from its weights.

The model (sentence-transformers/all-MiniLM-L6-v2, Apache-2.0): a BERT encoder of 6 layers (Wang et al., MiniLM, 2020). Texts stand in one
row, one after another, and read only themselves: whatever is in `bias` is added to what each word piece thinks of each other one. So no
padding is computed.

Quantised, weights are int8 by output channel and what they are multiplied with is int8 by word piece, each with a scale of its own: a
text's vector does not depend on its company, and one loud word does not drown the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

DIMENSIONS = 384
TOKENS_MAX = 128
_LAYERS, _HEADS = 6, 12
_EPSILON = 1e-12
_INT8_MAX = 127.0
_MIDDLE = 128
"""Activations are kept unsigned around this: processors multiply unsigned by signed."""
_Array = np.ndarray[Any, Any]


class GraphWriter:
    """Writes the graph."""

    def __init__(self, weights: Path, *, quantised: bool) -> None:
        from safetensors.numpy import load_file

        self._weights = load_file(str(weights))
        self._quantised = quantised
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> Any:
        """The whole graph: input_ids, positions (pieces) and bias (1 × 1 × pieces × pieces) to hidden (pieces × 384)."""
        from onnx import TensorProto, helper

        hidden = self._embeddings()
        self._pieces = self._node("Slice", self._node("Shape", "input_ids"), self._ints(0), self._ints(1))
        self._middles = self._filled(_MIDDLE) if self._quantised else ""
        self._in_one_row = self._node("Concat", self._ints(1), self._pieces, self._ints(DIMENSIONS), axis=0)
        for layer in range(_LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}", hidden)
        self._node("Identity", hidden, output="hidden")
        graph = helper.make_graph(
            self._nodes,
            "minilm",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["pieces"]),
                helper.make_tensor_value_info("positions", TensorProto.INT64, ["pieces"]),
                helper.make_tensor_value_info("bias", TensorProto.FLOAT, [1, 1, "pieces", "pieces"]),
            ],
            [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["pieces", DIMENSIONS])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def _embeddings(self) -> str:
        table = self._weights["embeddings.word_embeddings.weight"]
        if self._quantised:
            scales = np.abs(table).max(axis=1, keepdims=True) / _INT8_MAX
            small = self._node("Gather", self._constant(np.rint(table / scales).astype(np.int8)), "input_ids")
            words = self._node(
                "Mul", self._node("Cast", small, to=1), self._node("Gather", self._constant(scales), "input_ids")
            )
        else:
            words = self._node("Gather", self._constant(table), "input_ids")
        places = self._weights["embeddings.position_embeddings.weight"][:TOKENS_MAX]
        places = places + self._weights["embeddings.token_type_embeddings.weight"][0]
        summed = self._node("Add", words, self._node("Gather", self._constant(places), "positions"))
        scale, shift = self._norm("embeddings.LayerNorm")
        return self._node("LayerNormalization", summed, scale, shift, axis=-1, epsilon=_EPSILON)

    def _layer(self, name: str, hidden: str) -> str:
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._weights[f"{part}.weight"] for part in parts])
        bias = np.concatenate([self._weights[f"{part}.bias"] for part in parts])
        asked = self._node("Add", self._times(hidden, weight), self._constant(bias))
        split = self._split(asked, len(parts))
        rows = [self._node("Reshape", part, self._in_one_row) for part in split]
        mixed = self._fused("MultiHeadAttention", *rows, "", "", "bias", num_heads=_HEADS)
        joined = self._node("Reshape", mixed, self._ints(-1, DIMENSIONS))
        hidden = self._added(f"{name}.attention.output", joined, hidden)
        inner = self._times(hidden, self._weights[f"{name}.intermediate.dense.weight"])
        active = self._fused("BiasGelu", inner, self._constant(self._weights[f"{name}.intermediate.dense.bias"]))
        return self._added(f"{name}.output", active, hidden)

    def _added(self, name: str, values: str, hidden: str) -> str:
        """A linear step, what went in before it added, and both normalised."""
        product = self._times(values, self._weights[f"{name}.dense.weight"])
        scale, shift = self._norm(f"{name}.LayerNorm")
        bias = self._constant(self._weights[f"{name}.dense.bias"])
        return self._fused("SkipLayerNormalization", product, hidden, scale, shift, bias, epsilon=_EPSILON)

    def _times(self, values: str, weight: _Array) -> str:
        """The values (pieces × inputs) times a weight (outputs × inputs)."""
        if not self._quantised:
            return self._node("MatMul", values, self._constant(np.ascontiguousarray(weight.T)))
        scales = np.abs(weight).max(axis=1) / _INT8_MAX
        small = np.rint(weight / scales[:, None]).astype(np.int8).T
        loudest = self._node("ReduceMax", self._node("Abs", values), self._ints(1), keepdims=0)
        steps = self._node("Mul", loudest, self._number(1 / _INT8_MAX))
        rounded = self._node("QuantizeLinear", values, steps, self._middles, axis=0)
        product = self._fused(
            "MatMulIntegerToFloat",
            rounded,
            self._constant(np.ascontiguousarray(small)),
            self._number(1.0),
            self._constant(scales),
            self._constant(np.array(_MIDDLE, dtype=np.uint8)),
        )
        return self._node("Mul", product, self._node("Unsqueeze", steps, self._ints(1)))

    def _filled(self, value: int) -> str:
        """A byte for each piece."""
        from onnx import TensorProto, helper

        return self._node("ConstantOfShape", self._pieces, value=helper.make_tensor("value", TensorProto.UINT8, [1], [value]))

    def _norm(self, name: str) -> tuple[str, str]:
        return self._constant(self._weights[f"{name}.weight"]), self._constant(self._weights[f"{name}.bias"])

    def _split(self, values: str, count: int) -> list[str]:
        from onnx import helper

        outputs = [self._name() + f"_{number}" for number in range(count)]
        sizes = self._ints(*[DIMENSIONS] * count)
        self._nodes.append(helper.make_node("Split", [values, sizes], outputs, name=f"Split_{len(self._nodes)}", axis=-1))
        return outputs

    def _fused(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """An operator that ONNX Runtime has beyond the standard."""
        return self._node(kind, *inputs, domain="com.microsoft", **attributes)

    def _node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or self._name()
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{kind}_{len(self._nodes)}", **attributes))
        return output

    def _name(self) -> str:
        return f"n{len(self._nodes)}"

    def _ints(self, *values: int) -> str:
        return self._constant(np.array(values, dtype=np.int64))

    def _number(self, value: float) -> str:
        return self._constant(np.array(value, dtype=np.float32))

    def _constant(self, value: _Array) -> str:
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name
