"""Predictions for examples that were not seen, how much each member of a scorer counts, and what a policy would have done by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from farthing_router.calibration.forest import Floats
from farthing_router.calibration.frontier import Outcomes, likely_price
from farthing_router.calibration.labelled import Labelled, folds
from farthing_router.calibration.scorer import Blend, told_apart
from farthing_router.calibration.training import Asked, Stage, ask, cross_guesses, train

_EMBEDDED = ("kernel", "embedded")
_PRIOR = 0.03
"""How strongly members are held to counting alike, as a share of how much they vary."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Into how many parts the examples are divided, and how often anew."""

    folds: int
    repeats: int
    thorough: bool = True


THOROUGH = Effort(8, 2)
SHORT = Effort(5, 1)
"""For many examples, where predictions vary less and fitting takes longer, and for few, where everything varies more than this changes."""
QUICK = Effort(4, 1, thorough=False)
"""To compare many ways to open."""
_FEW_EXAMPLES, _MANY_EXAMPLES = 1000, 3000


HALVES = Blend({"forest": 0.5, "linear": 0.5}, {"forest": 0.5, "linear": 0.5}, 0.0, 0.0)
"""For where a peer failed: rare, and not worth a cross-fit of its own."""


def effort_for(examples: int) -> Effort:
    """The effort that examples of this number are worth."""
    return THOROUGH if _FEW_EXAMPLES <= examples < _MANY_EXAMPLES else SHORT


@dataclass(frozen=True, slots=True, eq=False)
class CrossFitted:
    """What was predicted of each example by members that had not seen it, and how much each member counts."""

    stage: Stage
    asked: Asked
    blend: Blend
    gains: Floats

    def outcomes(self, data: Labelled, paid_for: Sequence[str], *, price_weight: float) -> Outcomes:
        """What the policy would do to each example."""
        models, served = self.stage.prospects, data.score[self.stage.serves]
        usual = float(data.cost[models[0]].mean())
        likely = [
            likely_price(
                float(data.cost[model].mean()), np.exp(self.asked.price[:, place]), usual=usual, price_weight=price_weight
            )
            for place, model in enumerate(models)
        ]
        strong = np.stack([data.score[model] for model in models], axis=1)
        return Outcomes(
            gain=self.gains,
            likely=np.stack(likely, axis=1),
            escalated=np.where(self.asked.chosen > 0, strong, served[:, None]),
            price=np.stack([data.cost[model] for model in models], axis=1),
            kept=served,
            paid=np.sum([data.cost[model] for model in paid_for], axis=0),
            strong=data.score[models[0]],
            strong_price=data.cost[models[0]],
        )


def cross_fitted(data: Labelled, stage: Stage, *, effort: Effort, seed: int) -> CrossFitted:
    """Predictions for every example by members that were trained on others. A stage chooses among bought answers only where that is clearly
    better than serving every strong one."""
    if stage.chooses and not _choosing_pays(data, stage, seed=seed):
        stage = replace(stage, chooses=False)
    parts: list[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Asked]] = []
    for repeat in range(effort.repeats):
        fold = folds(data.examples, effort.folds, seed=seed + repeat)
        for number in range(effort.folds):
            held = np.flatnonzero(fold == number)
            trained = train(data, stage, np.flatnonzero(fold != number), seed=seed + 100 * repeat + number)
            parts.append((held, ask(data, trained, held)))
    asked = _averaged(parts, len(data.examples), effort.repeats)
    truth = np.stack([data.score[model] for model in stage.prospects], axis=1)
    served = data.score[stage.serves][:, None]
    gains = np.where(asked.chosen > 0, truth, served) - served
    blend = blend_of(asked.gains, gains)
    mixed = blend.mixed(asked.gains, embedding=data.embeddings is not None)
    return CrossFitted(stage, asked, blend, mixed if len(stage.prospects) == 1 else told_apart(mixed, asked.apart))


def _choosing_pays(data: Labelled, stage: Stage, *, seed: int) -> bool:
    """Whether passing over strong answers that a chooser thinks worse gains more than three standard errors, for every strong model."""
    fold = folds(data.examples, SHORT.folds, seed=seed)
    for model in stage.prospects:
        gain = data.score[model] - data.score[stage.serves]
        seen = cross_guesses(data.rows((*stage.reads, model)), gain, fold, seed=seed)
        saved = np.where(seen <= 0, -gain, 0.0)
        if saved.mean() <= 3 * saved.std() / np.sqrt(len(saved)):
            return False
    return True


def blend_of(members: Mapping[str, Floats], gains: Floats) -> Blend:
    """How much each member counts: least squares without negative weights, held to counting alike."""
    without = {name: said for name, said in members.items() if name not in _EMBEDDED}
    weights, level = _weights(members, gains)
    weights_without, level_without = _weights(without, gains)
    return Blend(weights, weights_without, level, level_without)


def _weights(members: Mapping[str, Floats], gains: Floats) -> tuple[dict[str, float], float]:
    from scipy.optimize import nnls

    names = sorted(members)
    said = np.stack([members[name].ravel() for name in names], axis=1)
    centred = said - said.mean(axis=0)
    prior = np.sqrt(_PRIOR * (centred**2).sum(axis=0).mean())
    rows = np.vstack([centred, prior * np.eye(len(names))])
    target = np.concatenate([gains.ravel() - gains.mean(), np.full(len(names), prior / len(names))])
    found, _ = nnls(rows, target)
    weights = {name: round(float(weight), 6) for name, weight in zip(names, found, strict=True)}
    return weights, float(gains.mean() - said.mean(axis=0) @ np.array([weights[name] for name in names]))


def _averaged(parts: Sequence[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Asked]], count: int, repeats: int) -> Asked:
    def mean(pick: str, member: str = "") -> Floats:
        first = getattr(parts[0][1], pick)
        total = np.zeros((count, (first[member] if member else first).shape[1]))
        for held, asked in parts:
            said = getattr(asked, pick)
            total[held] += (said[member] if member else said) / repeats
        return total

    gains = {name: mean("gains", name) for name in parts[0][1].gains}
    return Asked(gains, mean("quality"), mean("price"), mean("apart"), mean("chosen"))
