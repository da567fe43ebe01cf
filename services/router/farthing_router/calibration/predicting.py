"""What a model is expected to make of a prompt before it is asked: how well it answers, and how long."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from farthing_router.calibration.examples import Example
from farthing_router.calibration.features import features_of
from farthing_router.calibration.forest import Floats, Forest
from farthing_router.calibration.labelled import EXAMPLES_MIN, DataTooSmall
from farthing_router.calibration.members import Linear
from farthing_router.calibration.policy import FORMAT, PolicyUnreadable

OUTPUT_TOKENS_MAX = 1_000_000
_ROUNDS = 120


@dataclass(frozen=True, slots=True)
class Prediction:
    """The expected quality of a model's answer, 0 to 1, and its expected length."""

    quality: float
    output_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """Predicts for each of `models`; the heads are their qualities and then the logarithms of their answers' lengths."""

    models: tuple[str, ...]
    forest: Forest
    linear: Linear
    examples: int

    def predict(self, prompt: str, *, embedding: Floats | None = None) -> dict[str, Prediction]:
        """The prediction for each model. `embedding` is the prompt's unit vector where it is known."""
        row = features_of(prompt, [])[None, :]
        heads = ((self.forest.scores(row) + self.linear.scores(row)) / 2)[0]
        count = len(self.models)
        return {
            model: Prediction(
                float(min(1.0, max(0.0, heads[number]))),
                round(min(OUTPUT_TOKENS_MAX, math.expm1(min(14.0, max(0.0, heads[count + number]))))),
            )
            for number, model in enumerate(self.models)
        }

    def to_json(self) -> bytes:
        """The artefact: one JSON object of plain lists, numbers and texts."""
        return orjson.dumps(
            {
                "format": FORMAT,
                "models": list(self.models),
                "forest": self.forest.to_json(),
                "linear": self.linear.to_json(),
                "examples": self.examples,
            }
        )

    @classmethod
    def from_json(cls, artefact: bytes | str) -> Predictor:
        """The predictor of an artefact. Raises PolicyUnreadable."""
        try:
            data = orjson.loads(artefact)
            if data["format"] != FORMAT:
                raise PolicyUnreadable(problem=f"format {data['format']!r} instead of {FORMAT}")
            return cls(
                tuple(data["models"]), Forest.from_json(data["forest"]), Linear.from_json(data["linear"]), int(data["examples"])
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise PolicyUnreadable(problem=f"{type(error).__name__}: {error}"[:200]) from error


def fit_predictor(examples: Sequence[Example], *, seed: int) -> Predictor:
    """The predictor of all models that have answers to at least EXAMPLES_MIN of the examples. Raises DataTooSmall where none has."""
    from farthing_router.calibration.growing import forest_from, linear_from

    counts: dict[str, int] = {}
    for each in examples:
        for model in each.answers:
            counts[model] = counts.get(model, 0) + 1
    models = tuple(sorted(model for model, count in counts.items() if count >= EXAMPLES_MIN))
    if not models:
        raise DataTooSmall(examples=max(counts.values(), default=0), examples_needed=EXAMPLES_MIN)
    rows = np.stack([features_of(each.prompt, []) for each in examples])
    targets = np.array([_targets(each, models) for each in examples])
    forest = forest_from(rows, targets, seed=seed, rounds=_ROUNDS)
    return Predictor(models, forest, linear_from(rows, targets), len(examples))


def _targets(each: Example, models: Sequence[str]) -> list[float]:
    answers: Mapping[str, object] = each.answers
    scores = [each.answers[model].score if model in answers else math.nan for model in models]
    return scores + [_length(each, model) if model in answers else math.nan for model in models]


def _length(each: Example, model: str) -> float:
    answer = each.answers[model]
    tokens = answer.output_tokens if answer.output_tokens is not None else len(answer.text) / 4
    return math.log1p(tokens)
