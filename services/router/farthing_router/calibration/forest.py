"""Gradient-boosted trees as flat arrays: grown by LightGBM at fit time, walked by a few numpy steps afterwards.

Ke et al., LightGBM (2017). A leaf is a node that leads to itself, so that all trees are walked together for as many steps as the
deepest needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int32]]
_CELLS_MAX = 4_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees of several heads, one head after the other. `starts` has the number of each head's first tree; a head's score is the
    sum of its trees."""

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: np.ndarray[Any, np.dtype[np.bool_]]
    value: Floats
    roots: Ints
    starts: Ints
    depth: int

    def score(self, row: Floats) -> Floats:
        """The score of each head for one row of features; NaN is missing."""
        return np.asarray(self.scores(row[None, :])[0])

    def scores(self, rows: Floats) -> Floats:
        """The score of each head (columns) for each row."""
        size = max(1, _CELLS_MAX // max(1, len(self.roots)))
        return np.concatenate([self._walk(rows[start : start + size]) for start in range(0, max(1, len(rows)), size)])

    def _walk(self, rows: Floats) -> Floats:
        node = np.broadcast_to(self.roots, (len(rows), len(self.roots)))
        missing = np.isnan(rows).any()
        index = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            seen = rows[index, self.feature[node]]
            goes_left = seen <= self.threshold[node]
            if missing:
                goes_left |= np.isnan(seen) & self.missing_left[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        return np.asarray(np.add.reduceat(self.value[node], self.starts, axis=1))

    @classmethod
    def joined(cls, forests: Sequence[Forest]) -> Forest:
        """The heads of several forests in one."""
        nodes = np.cumsum([0, *(len(forest.feature) for forest in forests)]).astype(np.int32)
        trees = np.cumsum([0, *(len(forest.roots) for forest in forests)]).astype(np.int32)
        pairs = list(zip(forests, nodes, trees, strict=False))
        return cls(
            feature=np.concatenate([forest.feature for forest in forests]),
            threshold=np.concatenate([forest.threshold for forest in forests]),
            left=np.concatenate([forest.left + node for forest, node, _ in pairs]),
            right=np.concatenate([forest.right + node for forest, node, _ in pairs]),
            missing_left=np.concatenate([forest.missing_left for forest in forests]),
            value=np.concatenate([forest.value for forest in forests]),
            roots=np.concatenate([forest.roots + node for forest, node, _ in pairs]),
            starts=np.concatenate([forest.starts + tree for forest, _, tree in pairs]),
            depth=max(forest.depth for forest in forests),
        )

    def to_json(self) -> dict[str, Any]:
        """As plain lists."""
        arrays = ("feature", "threshold", "left", "right", "value", "roots", "starts")
        return {
            **{name: getattr(self, name).tolist() for name in arrays},
            "missing_left": self.missing_left.astype(int).tolist(),
            "depth": self.depth,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Forest:
        """From what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else: every node must lead to a node."""
        forest = cls(
            feature=np.asarray(data["feature"], dtype=np.int32),
            threshold=np.asarray(data["threshold"], dtype=np.float64),
            left=np.asarray(data["left"], dtype=np.int32),
            right=np.asarray(data["right"], dtype=np.int32),
            missing_left=np.asarray(data["missing_left"], dtype=bool),
            value=np.asarray(data["value"], dtype=np.float64),
            roots=np.asarray(data["roots"], dtype=np.int32),
            starts=np.asarray(data["starts"], dtype=np.int32),
            depth=int(data["depth"]),
        )
        size = len(forest.feature)
        sides = (forest.left, forest.right, forest.roots)
        if any(len(each) != size for each in (forest.threshold, forest.left, forest.right, forest.value, forest.missing_left)):
            raise ValueError("the nodes' arrays differ in length")
        if any(len(each) and (each.min() < 0 or each.max() >= size) for each in sides) or not 0 <= forest.depth <= 64:
            raise ValueError("a node leads nowhere")
        if (
            len(forest.starts) == 0
            or forest.starts[0] != 0
            or (np.diff(forest.starts) <= 0).any()
            or forest.starts[-1] >= len(forest.roots)
        ):
            raise ValueError("the heads' trees are not in order")
        return forest


def forest_of(heads: Sequence[Sequence[tuple[Mapping[str, Any], float]]]) -> Forest:
    """The forest of each head's boosters, as LightGBM's `dump_model` describes them, each with the weight that its score has in
    the head's."""
    nodes = _Nodes()
    starts = []
    for boosters in heads:
        starts.append(len(nodes.roots))
        for booster, weight in boosters:
            for tree in booster["tree_info"]:
                nodes.plant(tree["tree_structure"], weight)
    return nodes.forest(starts)


class _Nodes:
    """Collects nodes, parents before their children."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.roots: list[int] = []
        self.depth = 0

    def plant(self, structure: Mapping[str, Any], weight: float) -> None:
        self.roots.append(self._add(structure, weight, 0))

    def _add(self, node: Mapping[str, Any], weight: float, depth: int) -> int:
        here = len(self.rows)
        self.depth = max(self.depth, depth)
        if "split_feature" not in node:
            self.rows.append([0, np.inf, here, here, 1, node["leaf_value"] * weight])
            return here
        threshold = float(node["threshold"])
        # Where LightGBM saw nothing missing it reads a missing value as zero.
        missing_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0
        self.rows.append([node["split_feature"], threshold, 0, 0, float(missing_left), 0.0])
        self.rows[here][2] = self._add(node["left_child"], weight, depth + 1)
        self.rows[here][3] = self._add(node["right_child"], weight, depth + 1)
        return here

    def forest(self, starts: Sequence[int]) -> Forest:
        table = np.asarray(self.rows, dtype=np.float64).reshape(-1, 6)
        return Forest(
            feature=table[:, 0].astype(np.int32),
            threshold=np.minimum(table[:, 1], np.finfo(np.float64).max),
            left=table[:, 2].astype(np.int32),
            right=table[:, 3].astype(np.int32),
            missing_left=table[:, 4].astype(bool),
            value=table[:, 5],
            roots=np.asarray(self.roots, dtype=np.int32),
            starts=np.asarray(starts, dtype=np.int32),
            depth=self.depth,
        )
