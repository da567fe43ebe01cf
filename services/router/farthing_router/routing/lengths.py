"""How long answers are, by model and task."""

from __future__ import annotations

from dataclasses import dataclass, field

_LIKELY_OUTPUT_TOKENS = 200
_MEANS_MAX = 10_000
_MEAN_WEIGHT_MAX = 200


@dataclass(slots=True)
class OutputLengths:
    """Running means of answer lengths by (model, task); old answers fade."""

    _means: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)

    def learn(self, model: str, task: str, tokens: int) -> None:
        """Takes in one answer."""
        mean, weight = self._means.get((model, task), (float(_LIKELY_OUTPUT_TOKENS), 1))
        weight = min(weight + 1, _MEAN_WEIGHT_MAX)
        if len(self._means) < _MEANS_MAX or (model, task) in self._means:
            self._means[model, task] = (mean + (tokens - mean) / weight, weight)

    def likely(self, model: str, task: str) -> int:
        """How long the next answer will likely be."""
        return round(self._means.get((model, task), (_LIKELY_OUTPUT_TOKENS, 1))[0])
