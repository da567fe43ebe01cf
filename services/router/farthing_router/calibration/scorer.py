"""Predicts the quality of the answers one has and of those one could buy, from a prompt and what was bought for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.features import features_of
from farthing_router.calibration.forest import Floats, Forest


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """A linear model of standardised features; one that is missing counts as average."""

    mean: Floats
    deviation: Floats
    weights: Floats
    intercept: Floats

    def scores(self, rows: Floats) -> Floats:
        """The score of each head (columns) for each row."""
        standard = np.clip(np.nan_to_num((rows - self.mean) / self.deviation), -5, 5)
        return np.asarray(standard @ self.weights + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        return {name: getattr(self, name).tolist() for name in ("mean", "deviation", "weights", "intercept")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Linear:
        """From what `to_json` gave."""
        return cls(**{name: np.asarray(data[name], dtype=np.float64) for name in ("mean", "deviation", "weights", "intercept")})


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """Reads the answers of `reads`, in this order, and would serve that of `serves`. Its heads: the quality of each answer that it reads,
    then how much better than the served one the answer of each model of `prospects` would be."""

    reads: tuple[str, ...]
    serves: str
    prospects: tuple[str, ...]
    forest: Forest
    linear: Linear

    def scores(
        self, prompt: str, answers: Mapping[str, BoughtAnswer], *, embedding: Floats | None = None
    ) -> tuple[dict[str, float], dict[str, float]]:
        """The expected quality of each answer that was bought, and the expected gain of each that could be."""
        heads = self.of_rows(features_of(prompt, [answers[model] for model in self.reads])[None, :])[0]
        quality = np.clip(heads[: len(self.reads)], 0.0, 1.0)
        return (
            dict(zip(self.reads, quality.tolist(), strict=True)),
            dict(zip(self.prospects, heads[len(self.reads) :].tolist(), strict=True)),
        )

    def of_rows(self, rows: Floats) -> Floats:
        """The heads (columns) of rows of features."""
        return (self.forest.scores(rows) + self.linear.scores(rows)) / 2

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        return {
            "reads": list(self.reads),
            "serves": self.serves,
            "prospects": list(self.prospects),
            "forest": self.forest.to_json(),
            "linear": self.linear.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scorer:
        """From what `to_json` gave."""
        return cls(
            tuple(data["reads"]),
            data["serves"],
            tuple(data["prospects"]),
            Forest.from_json(data["forest"]),
            Linear.from_json(data["linear"]),
        )
