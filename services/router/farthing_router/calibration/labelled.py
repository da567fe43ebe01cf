"""Labelled examples as arrays, with what is measured of their texts: each text is read once, however often it is learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from farthing_core.errors import FarthingError

from farthing_router.calibration.answers import ANSWER_CHARACTERS_MAX, PROMPT_CHARACTERS_MAX, bounded
from farthing_router.calibration.examples import Example
from farthing_router.calibration.features import features_of
from farthing_router.calibration.forest import Floats
from farthing_router.calibration.texts import BUCKETS, Parts

EXAMPLES_MIN = 60
_WITNESS_SHARE_MIN = 0.8
_WITNESSES_MAX = 16
Indices = np.ndarray[Any, np.dtype[np.int64]]


class DataTooSmall(FarthingError):
    """The data cannot support what is asked of them; `examples_needed` as estimated from how much they vary."""

    def __init__(self, *, examples: int, examples_needed: int) -> None:
        super().__init__(
            f"{examples} labelled examples cannot support this promise; about {examples_needed} would",
            examples=examples,
            examples_needed=examples_needed,
        )
        self.examples, self.examples_needed = examples, examples_needed


class ModelMissing(FarthingError):
    """A model that is to be fitted has no labelled answers, or none with a price."""

    def __init__(self, *, model: str, problem: str) -> None:
        super().__init__(f"{model}: {problem}", model=model)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Examples that have an answer of every model of a fit; scores and costs by model. `witnesses` has the scores of further models
    (columns), as far as known: they tell how hard a prompt is, while fitting only."""

    examples: Sequence[Example]
    score: dict[str, Floats]
    cost: dict[str, Floats]
    witnesses: dict[str, Floats]
    embeddings: Floats | None = None
    features: dict[tuple[str, ...], Floats] = field(default_factory=dict)
    words: dict[str, Any] = field(default_factory=dict)

    def rows(self, models: Sequence[str]) -> Floats:
        """The features of each example (rows) where the answers of these models are read; measured once."""
        key = tuple(models)
        if key not in self.features:
            self.features[key] = _measured(self.examples, key)
        return self.features[key]

    def texts(self, models: Sequence[str]) -> list[Any]:
        """The words of the prompts and of the answers of these models, each a sparse matrix; counted once."""
        for model in ("", *models):
            if model not in self.words:
                self.words[model] = _counted(self.examples, model)
        return [self.words[model] for model in ("", *models)]

    def part(self, places: Indices) -> Labelled:
        """Of these examples, with all that is measured of them already."""
        return Labelled(
            [self.examples[place] for place in places],
            score={model: values[places] for model, values in self.score.items()},
            cost={model: values[places] for model, values in self.cost.items()},
            witnesses={model: values[places] for model, values in self.witnesses.items()},
            embeddings=None if self.embeddings is None else self.embeddings[places],
            features={models: rows[places] for models, rows in self.features.items()},
            words={model: counts[places] for model, counts in self.words.items()},
        )


def labelled(examples: Sequence[Example], models: Sequence[str], *, embeddings: Floats | None = None) -> Labelled:
    """The examples that have priced answers of all models. `embeddings` has the unit vectors of all examples' prompts, in their order.

    Raises ModelMissing and DataTooSmall.
    """
    for model in models:
        answers = [each.answers[model] for each in examples if model in each.answers]
        if not answers:
            raise ModelMissing(model=model, problem="has no labelled answer")
        if any(answer.cost_usd_nanos is None for answer in answers):
            raise ModelMissing(model=model, problem="has answers without a cost")
    places = [place for place, each in enumerate(examples) if all(model in each.answers for model in models)]
    if len(places) < EXAMPLES_MIN:
        raise DataTooSmall(examples=len(places), examples_needed=EXAMPLES_MIN)
    chosen = [examples[place] for place in places]
    return Labelled(
        chosen,
        {model: np.array([each.answers[model].score for each in chosen]) for model in models},
        {model: np.array([float(each.answers[model].cost_usd_nanos or 0) for each in chosen]) for model in models},
        _witnesses(chosen, models),
        None if embeddings is None else np.asarray(embeddings, dtype=np.float64)[places],
    )


def folds(examples: Sequence[Example], count: int, *, seed: int) -> Indices:
    """The fold of each example; all that have the same prompt are in the same one."""
    keys = sorted({each.key for each in examples})
    order = np.random.default_rng(seed).permutation(len(keys))
    fold = dict(zip(keys, (order % count).tolist(), strict=True))
    return np.array([fold[each.key] for each in examples])


def _witnesses(examples: Sequence[Example], models: Sequence[str]) -> dict[str, Floats]:
    counts: dict[str, int] = {}
    for each in examples:
        for model in each.answers:
            counts[model] = counts.get(model, 0) + 1
    enough = sorted(
        model for model, count in counts.items() if model not in models and count >= _WITNESS_SHARE_MIN * len(examples)
    )
    return {
        model: np.array([each.answers[model].score if model in each.answers else np.nan for each in examples])
        for model in enough[:_WITNESSES_MAX]
    }


def _measured(examples: Sequence[Example], models: tuple[str, ...]) -> Floats:
    rows = []
    for each in examples:
        answers = [each.answers[model] for model in models]
        rows.append(features_of(each.prompt, answers))
    return np.array(rows)


def _counted(examples: Sequence[Example], model: str) -> Any:
    from scipy.sparse import csr_matrix

    texts = (
        (each.answers[model].text, ANSWER_CHARACTERS_MAX) if model else (each.prompt, PROMPT_CHARACTERS_MAX)
        for each in examples
    )
    counted = [Parts(bounded(*text)).counts for text in texts]
    starts = np.cumsum([0, *(len(buckets) for buckets, _ in counted)])
    buckets, counts = (np.concatenate([each[side] for each in counted]) for side in range(2))
    return csr_matrix((counts, buckets, starts), shape=(len(examples), BUCKETS))
