"""Predicts, from a prompt and the answers bought for it, how good they are, what a further answer would gain, and what it would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.calibration.features import PROMPT_NAMES, features_of, features_of_parts, parts_of
from farthing_router.calibration.forest import Floats, Forest
from farthing_router.calibration.members import Kernel, Linear, Wording

MEMBERS = ("forest", "linear", "wording", "kernel", "embedded")
"""What predicts gains, each in its way; `kernel` and `embedded` need the prompt's embedding."""


@dataclass(frozen=True, slots=True)
class Scores:
    """By model: the expected quality of answers that were bought; the expected gain over the served one, and the price in
    proportion to its usual one, of those that could be."""

    quality: Mapping[str, float]
    gain: Mapping[str, float]
    price: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """How much each member counts, and what is added; the second set for where no embedding is known."""

    weights: Mapping[str, float]
    without: Mapping[str, float]
    level: float
    level_without: float

    def mixed(self, members: Mapping[str, Floats], *, embedding: bool) -> Floats:
        """The members' gains as one."""
        weights, level = (self.weights, self.level) if embedding else (self.without, self.level_without)
        mixed = np.full(np.shape(next(iter(members.values()))), level)  # where no member helps, the level alone is left
        for name, weight in weights.items():
            mixed = mixed + weight * members[name]
        return mixed


@dataclass(frozen=True, slots=True, eq=False)
class Scorer:
    """Reads the answers of `reads`, in this order, and would serve that of `serves`.

    The forest's heads: the quality of each answer that it reads, the gain of each model of `prospects`, the logarithm of each
    one's price. The linear model has the first two kinds, the other members gains alone. `coarse` knows, from the prompt's shape
    alone, which of several prospects suits its kind: their gains are too alike to be told apart one by one.
    """

    reads: tuple[str, ...]
    serves: str
    prospects: tuple[str, ...]
    blend: Blend
    forest: Forest
    linear: Linear
    wording: Wording | None = None
    kernel: Kernel | None = None
    embedded: Sequence[Forest] = ()
    coarse: Linear | None = None

    def scores(self, prompt: str, answers: Mapping[str, BoughtAnswer], *, embedding: Floats | None = None) -> Scores:
        """What to expect, with the prompt's embedding where it is known."""
        bought = [answers[model] for model in self.reads]
        asked, said = parts_of(prompt, bought)
        row = features_of_parts(asked, said, bought)
        count, prospects = len(self.reads), len(self.prospects)
        trees, linear = self.forest.score(row), self.linear.scores(row[None, :])[0]
        members = {"forest": trees[count : count + prospects], "linear": linear[count:]}
        if self.wording is not None:
            members["wording"] = self.wording.score([asked.counts, *(parts.counts for parts in said)])
        if embedding is not None and self.kernel is not None:
            members["kernel"] = self.kernel.scores(embedding[None, :])[0]
        if embedding is not None and self.embedded:
            members["embedded"] = class_gains(self.embedded, np.concatenate([row, embedding])[None, :])[0]
        gains = self.blend.mixed(members, embedding=embedding is not None)
        if self.coarse is not None:
            gains = told_apart(gains, self.coarse.scores(row[None, : len(PROMPT_NAMES)])[0])
        quality = np.clip((trees[:count] + linear[:count]) / 2, 0.0, 1.0)
        return Scores(
            dict(zip(self.reads, quality.tolist(), strict=True)),
            dict(zip(self.prospects, gains.tolist(), strict=True)),
            dict(zip(self.prospects, np.exp(np.clip(trees[count + prospects :], -3, 3)).tolist(), strict=True)),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        parts = {name: getattr(self, name) for name in ("forest", "linear", "wording", "kernel", "coarse")}
        return {
            "reads": list(self.reads),
            "serves": self.serves,
            "prospects": list(self.prospects),
            "weights": dict(self.blend.weights),
            "without": dict(self.blend.without),
            "embedded": [forest.to_json() for forest in self.embedded],
            "levels": [self.blend.level, self.blend.level_without],
            **{name: None if part is None else part.to_json() for name, part in parts.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scorer:
        """From what `to_json` gave. Raises KeyError, TypeError, ValueError or IndexError for anything else."""
        made = cls(
            reads=tuple(data["reads"]),
            serves=data["serves"],
            prospects=tuple(data["prospects"]),
            blend=Blend(dict(data["weights"]), dict(data["without"]), *map(float, data["levels"])),
            forest=Forest.from_json(data["forest"]),
            linear=Linear.from_json(data["linear"]),
            wording=None if data["wording"] is None else Wording.from_json(data["wording"]),
            kernel=None if data["kernel"] is None else Kernel.from_json(data["kernel"]),
            embedded=[Forest.from_json(forest) for forest in data["embedded"]],
            coarse=None if data["coarse"] is None else Linear.from_json(data["coarse"]),
        )
        there = {name for name in MEMBERS if getattr(made, name)}
        if not set(made.blend.weights) <= there or not set(made.blend.without) <= there - {"kernel", "embedded"}:
            raise ValueError("a member has a weight and is not there")
        return made


@dataclass(frozen=True, slots=True, eq=False)
class Chooser:
    """Says how much better the last of the answers that it reads is than the one that would be served without it."""

    reads: tuple[str, ...]
    forest: Forest

    def gain(self, prompt: str, answers: Mapping[str, BoughtAnswer]) -> float:
        """The expected gain of serving the last one."""
        return float(self.forest.score(features_of(prompt, [answers[model] for model in self.reads]))[0])

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        return {"reads": list(self.reads), "forest": self.forest.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Chooser:
        """From what `to_json` gave."""
        return cls(tuple(data["reads"]), Forest.from_json(data["forest"]))


def class_gains(forests: Sequence[Forest], rows: Floats) -> Floats:
    """The gain of each prospect (columns) from the classes of its forest: strong alone right, less cheap alone right."""
    columns = []
    for forest in forests:
        raw = forest.scores(rows)
        odds = np.exp(raw - raw.max(axis=1, keepdims=True))
        columns.append((odds[:, 1] - odds[:, 2]) / odds.sum(axis=1))
    return np.stack(columns, axis=1)


def told_apart(gains: Floats, apart: Floats) -> Floats:
    """Gains of several prospects (the last axis), half as predicted one by one, half as their mean and the coarse difference."""
    return np.asarray((gains + gains.mean(axis=-1, keepdims=True) + apart) / 2)
