"""The parts of a scorer beside its trees: linear models of features, of words and of the prompt's embedding. Each is a few plain
arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from farthing_router.calibration.forest import Floats
from farthing_router.calibration.texts import BUCKETS, Counts

WAVES = 2048
"""Random Fourier features (Rahimi and Recht, 2007) of an embedding: a kernel machine of fixed size."""
_SHARPNESS = 4.0
"""Of the kernel exp(sharpness · (cosine − 1))."""


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear model of standardised features; one that is missing counts as average."""

    mean: Floats
    deviation: Floats
    weights: Floats
    intercept: Floats

    def scores(self, rows: Floats) -> Floats:
        """The score of each head (columns) for each row."""
        return np.asarray(standard(rows, self.mean, self.deviation) @ self.weights + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        return {name: getattr(self, name).tolist() for name in ("mean", "deviation", "weights", "intercept")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Linear:
        """From what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        made = cls(**{name: np.asarray(data[name], dtype=np.float64) for name in ("mean", "deviation", "weights", "intercept")})
        if made.weights.shape != (len(made.mean), len(made.intercept)) or made.mean.shape != made.deviation.shape:
            raise ValueError("a linear model's arrays do not fit")
        return made


def standard(rows: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Standardised features, within five deviations; 0 where missing."""
    scaled = (rows - mean) / deviation
    return np.clip(np.where(np.isnan(scaled), 0.0, scaled), -5, 5)


@dataclass(frozen=True, slots=True, eq=False)
class Wording:
    """A linear model of words and pairs of words, weighted by how rare they are (tf-idf), of the prompt and of each answer."""

    rarity: Sequence[Floats]
    weights: Sequence[Floats]
    intercept: Floats

    def score(self, texts: Sequence[Counts]) -> Floats:
        """The score of each head for the words of the prompt and of the answers."""
        parts = []
        for (buckets, counts), rarity, weights in zip(texts, self.rarity, self.weights, strict=True):
            values = counts * rarity[buckets]
            length = max(float(np.sqrt(values @ values)), 1e-9)
            parts.append((values / length) @ weights[buckets])
        return np.asarray(np.sum(parts, axis=0) + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """As plain lists; of each text only the buckets that count."""
        blocks = []
        for rarity, weights in zip(self.rarity, self.weights, strict=True):
            known = np.flatnonzero((rarity != 0) | (weights != 0).any(axis=1))
            blocks.append({"buckets": known.tolist(), "rarity": rarity[known].tolist(), "weights": weights[known].tolist()})
        return {"blocks": blocks, "intercept": self.intercept.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Wording:
        """From what `to_json` gave. Raises KeyError, TypeError, ValueError or IndexError for anything else."""
        intercept = np.asarray(data["intercept"], dtype=np.float64)
        rarities, weights = [], []
        for block in data["blocks"]:
            rarity, weight = np.zeros(BUCKETS), np.zeros((BUCKETS, len(intercept)))
            buckets = np.asarray(block["buckets"], dtype=np.int64)
            rarity[buckets] = block["rarity"]
            weight[buckets] = np.reshape(block["weights"], (-1, len(intercept)))  # there may be none
            rarities.append(rarity)
            weights.append(weight)
        return cls(rarities, weights, intercept)


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A linear model of the waves of an embedding, a unit vector."""

    weights: Floats
    intercept: Floats

    def scores(self, embeddings: Floats) -> Floats:
        """The score of each head (columns) for each embedding."""
        return np.asarray(waves(embeddings) @ self.weights + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        return {"weights": self.weights.tolist(), "intercept": self.intercept.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kernel:
        """From what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        made = cls(np.asarray(data["weights"], dtype=np.float64), np.asarray(data["intercept"], dtype=np.float64))
        if made.weights.shape != (WAVES, len(made.intercept)):
            raise ValueError("a kernel's weights do not fit")
        return made


def waves(embeddings: Floats) -> Floats:
    """The random Fourier features of embeddings (rows)."""
    directions, phases = _directions(embeddings.shape[1])
    return np.asarray(np.sqrt(2 / WAVES) * np.cos(embeddings @ directions + phases))


@lru_cache(maxsize=4)
def _directions(dimensions: int) -> tuple[Floats, Floats]:
    """The same on every machine and with every version of numpy: from a counter, by splitmix64 (Steele et al., 2014) and Box and
    Muller."""
    count = dimensions * WAVES
    state = np.arange(1, 2 * count + WAVES + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    uniform = ((state ^ (state >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / 2**53
    radius = np.sqrt(-2 * np.log(np.maximum(uniform[:count], 1e-300)))
    normal = radius * np.cos(2 * np.pi * uniform[count : 2 * count])
    return np.sqrt(_SHARPNESS) * normal.reshape(dimensions, WAVES), 2 * np.pi * uniform[2 * count :]
