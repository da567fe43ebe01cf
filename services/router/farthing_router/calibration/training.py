"""Trains what a policy decides by on some of the labelled examples, and asks it about others.

What is learned is the gain of a strong answer over the cheap one, not whether the cheap one is wrong: half of all doubt is about
prompts that no model answers. Labels of single answers are noisy, so half of a strong model's label is what a teacher expects, who
saw how other models did; and the strong answer counts only where a chooser that reads it would serve it. Teacher and chooser are
cross-fitted inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from farthing_router.calibration.forest import Floats, Forest
from farthing_router.calibration.growing import (
    classes_from,
    forest_from,
    guesses,
    kernel_from,
    linear_from,
    wording_from,
    wording_scores,
)
from farthing_router.calibration.labelled import Indices, Labelled
from farthing_router.calibration.members import Kernel, Linear, Wording
from farthing_router.calibration.scorer import Blend, Chooser, Scorer, class_gains

_TEACHER_SHARE = 0.5
_INNER_FOLDS = 4
_COARSE_RIDGE = 3000.0
_POOLED_WEIGHT = 0.3
_POOLED_MAX = 4
_POOLED_EXAMPLES_MAX = 4000
_CHEAP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """What is read, what would be served, and what could be bought. `chooses`: whether an answer that was bought may be passed over."""

    reads: tuple[str, ...]
    serves: str
    prospects: tuple[str, ...]
    chooses: bool
    thorough: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The members of a scorer and the choosers, before it is known how much each member counts."""

    stage: Stage
    forest: Forest
    linear: Linear
    wording: Wording | None
    kernel: Kernel | None
    embedded: Sequence[Forest]
    coarse: Linear | None
    choosers: Mapping[str, Chooser]

    def scorer(self, blend: Blend) -> Scorer:
        """The scorer of these members; those that do not count are left out."""
        counts = {name for name, weight in (*blend.weights.items(), *blend.without.items()) if weight}
        return Scorer(
            self.stage.reads,
            self.stage.serves,
            self.stage.prospects,
            Blend(
                {name: weight for name, weight in blend.weights.items() if weight},
                {name: weight for name, weight in blend.without.items() if weight},
                blend.level,
                blend.level_without,
            ),
            self.forest,
            self.linear,
            self.wording if "wording" in counts else None,
            self.kernel if "kernel" in counts else None,
            self.embedded if "embedded" in counts else (),
            self.coarse,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What trained parts say of examples: gains by member (rows × prospects), qualities of what is read, logarithms of relative
    prices, the coarse differences, and the gain that each prospect's chooser sees."""

    gains: Mapping[str, Floats]
    quality: Floats
    price: Floats
    apart: Floats
    chosen: Floats


def train(data: Labelled, stage: Stage, rows: Indices, *, seed: int, bags: int = 1) -> Trained:
    """Everything that a stage needs, from these rows alone. Gains are the mean of so many forests."""
    features = data.rows(stage.reads)[rows]
    gains = _gains(data, stage, rows, seed=seed)
    quality = np.stack([*(data.score[model][rows] for model in stage.reads), *gains.T], axis=1)
    prices = np.stack(
        [np.log(np.maximum(data.cost[m][rows], 1) / max(data.cost[m].mean(), 1)) for m in stage.prospects], axis=1
    )
    rounds = _rounds(len(rows))
    read = len(stage.reads)
    forests = [forest_from(features, quality[:, :read], seed=seed, rounds=rounds)] if read else []
    forests.append(_gain_forest(data, stage, rows, gains, seed=seed, bags=bags))
    forests.append(forest_from(features, prices, seed=seed, rounds=80))
    embeddings = None if data.embeddings is None else data.embeddings[rows]
    return Trained(
        stage=stage,
        forest=Forest.joined(forests),
        linear=linear_from(features, quality),
        wording=wording_from(data.texts(stage.reads), rows, gains) if stage.thorough else None,
        kernel=kernel_from(embeddings, gains, seed=seed) if embeddings is not None and stage.thorough else None,
        embedded=()
        if stage.reads or embeddings is None
        else _classes(data, stage, rows, np.hstack([features, embeddings]), seed=seed),
        coarse=_coarse(data, stage, rows),
        choosers=_choosers(data, stage, rows, seed=seed),
    )


def ask(data: Labelled, trained: Trained, rows: Indices) -> Asked:
    """What trained parts say of these rows."""
    stage = trained.stage
    features = data.rows(stage.reads)[rows]
    read, prospects = len(stage.reads), len(stage.prospects)
    trees, linear = trained.forest.scores(features), trained.linear.scores(features)
    gains = {"forest": trees[:, read : read + prospects], "linear": linear[:, read:]}
    if trained.wording is not None:
        gains["wording"] = wording_scores(trained.wording, data.texts(stage.reads), rows)
    if data.embeddings is not None and trained.kernel is not None:
        gains["kernel"] = trained.kernel.scores(data.embeddings[rows])
    if data.embeddings is not None and trained.embedded:
        gains["embedded"] = class_gains(trained.embedded, np.hstack([features, data.embeddings[rows]]))
    coarse = trained.coarse
    return Asked(
        gains=gains,
        quality=np.clip((trees[:, :read] + linear[:, :read]) / 2, 0.0, 1.0),
        price=trees[:, read + prospects :],
        apart=np.zeros((len(rows), prospects)) if coarse is None else coarse.scores(data.rows(())[rows]),
        chosen=np.stack([_chosen(data, trained, model, rows) for model in stage.prospects], axis=1),
    )


def cross_guesses(features: Floats, target: Floats, fold: Indices, *, seed: int) -> Floats:
    """What trees say of each row that did not see its fold."""
    said = np.zeros(len(target))
    for number in range(int(fold.max()) + 1):
        held, rest = fold == number, fold != number
        said[held] = guesses(features[rest], target[rest], features[held], seed=seed, rounds=_rounds(len(target)))
    return said


def _chosen(data: Labelled, trained: Trained, model: str, rows: Indices) -> Floats:
    chooser = trained.choosers.get(model)
    return np.ones(len(rows)) if chooser is None else chooser.forest.scores(data.rows(chooser.reads)[rows])[:, 0]


def _rounds(examples: int) -> int:
    return min(400, max(60, round(120 * math.sqrt(examples / 1700))))


def _gains(data: Labelled, stage: Stage, rows: Indices, *, seed: int) -> Floats:
    """The gain of each prospect (columns) as it is learned."""
    served = data.score[stage.serves][rows]
    inner = np.random.default_rng(seed).permutation(len(rows)) % _INNER_FOLDS
    columns = []
    for model in stage.prospects:
        label = data.score[model][rows]
        if data.witnesses and stage.thorough:
            known = [data.score[other][rows] for other in data.score if other != model]
            seen = np.stack([*known, *(scores[rows] for scores in data.witnesses.values())], axis=1)
            taught = cross_guesses(np.hstack([data.rows(stage.reads)[rows], seen]), label, inner, seed=seed)
            label = (1 - _TEACHER_SHARE) * label + _TEACHER_SHARE * taught
        columns.append(label - served)
    return np.stack(columns, axis=1)


def _gain_forest(data: Labelled, stage: Stage, rows: Indices, gains: Floats, *, seed: int, bags: int) -> Forest:
    """Trees for the gains. Where examples are few, further cheap models stand in for those that are read, at less weight."""
    pools = [data.rows(stage.reads)[rows]]
    for reads in _stand_ins(data, stage) if stage.thorough and len(rows) <= _POOLED_EXAMPLES_MAX else []:
        pools.append(data.rows(reads)[rows])
    weights = np.concatenate([np.full(len(rows), 1.0 if number == 0 else _POOLED_WEIGHT) for number in range(len(pools))])
    rounds = round(_rounds(len(rows)) * (1.0 if len(pools) == 1 else 1.2))
    return forest_from(np.vstack(pools), np.tile(gains, (len(pools), 1)), seed=seed, rounds=rounds, weights=weights, bags=bags)


def _stand_ins(data: Labelled, stage: Stage) -> Sequence[tuple[str, ...]]:
    """What could have been read instead: a further cheap model in the place of one whose answer would not be served anyway."""
    limit = _CHEAP_SHARE * data.cost[stage.prospects[0]].mean()
    others = [
        model for model, scores in data.witnesses.items() if not np.isnan(scores).any() and 0 < _mean_cost(data, model) <= limit
    ]
    places = [place for place, model in enumerate(stage.reads) if model != stage.serves]
    return [(*stage.reads[:place], other, *stage.reads[place + 1 :]) for place in places for other in sorted(others)][
        :_POOLED_MAX
    ]


def _mean_cost(data: Labelled, model: str) -> float:
    costs = [each.answers[model].cost_usd_nanos for each in data.examples]
    return float(np.mean([cost if cost is not None else np.inf for cost in costs]))


def _classes(data: Labelled, stage: Stage, rows: Indices, features: Floats, *, seed: int) -> list[Forest]:
    """A forest of classes for each prospect."""
    served = data.score[stage.serves][rows]
    return [
        classes_from(features, served, data.score[model][rows], seed=seed, rounds=_rounds(len(rows)), share=0.2)
        for model in stage.prospects
    ]


def _coarse(data: Labelled, stage: Stage, rows: Indices) -> Linear | None:
    """Which prospect suits which kind of prompt, as the difference from their mean; None for a single one."""
    if len(stage.prospects) == 1:
        return None
    scores = np.stack([data.score[model][rows] for model in stage.prospects], axis=1)
    return linear_from(data.rows(())[rows], scores - scores.mean(axis=1, keepdims=True), ridge=_COARSE_RIDGE)


def _choosers(data: Labelled, stage: Stage, rows: Indices, *, seed: int) -> dict[str, Chooser]:
    if not stage.chooses:
        return {}
    made = {}
    for model in stage.prospects:
        reads = (*stage.reads, model)
        gain = (data.score[model] - data.score[stage.serves])[rows]
        made[model] = Chooser(reads, forest_from(data.rows(reads)[rows], gain[:, None], seed=seed, rounds=_rounds(len(rows))))
    return made
