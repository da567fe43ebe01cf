"""The parts of a scorer beside its trees: linear models of features, of words and of the prompt's embedding. Each is a few plain
arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farthing_router.calibration.forest import Floats
from farthing_router.calibration.texts import BUCKETS, Counts

_SHARPNESS = 4.0


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
    """A kernel machine on embeddings, unit vectors: what is known at some of the examples (landmarks, rows) by how near they are."""

    landmarks: Floats
    weights: Floats
    intercept: Floats

    def scores(self, embeddings: Floats) -> Floats:
        """The score of each head (columns) for each embedding."""
        return np.asarray(nearness(embeddings, self.landmarks) @ self.weights + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        return {name: getattr(self, name).tolist() for name in ("landmarks", "weights", "intercept")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Kernel:
        """From what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        made = cls(**{name: np.asarray(data[name], dtype=np.float64) for name in ("landmarks", "weights", "intercept")})
        if made.landmarks.ndim != 2 or made.weights.shape != (len(made.landmarks), len(made.intercept)):
            raise ValueError("a kernel's arrays do not fit")
        return made


def nearness(embeddings: Floats, landmarks: Floats) -> Floats:
    """exp(sharpness · (cosine − 1)) of embeddings (rows) and landmarks (columns)."""
    return np.asarray(np.exp(_SHARPNESS * (embeddings @ landmarks.T - 1)))
