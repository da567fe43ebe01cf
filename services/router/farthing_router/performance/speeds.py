"""How fast and how reliable models are now: lines through the latencies of their answers, from what all replicas saw, old hours fading.

latency ≈ first token + tokens · time a token, by weighted least squares over a model's answers; a task of its own kind (longer prompts,
say) moves the line up or down as far as its answers bear it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HALF_LIFE_H = 6.0
HOURS = 24
"""What is older weighs less than a sixteenth and is left out."""
_TASK_ANSWERS = 20.0
"""A task's own offset counts half when so many answers speak for it."""
_MS_PER_TOKEN = 15.0
_SLOPE_ANSWERS = 5.0
_TOKENS_SPREAD = 100.0
"""Where answers are of one length only, a token is taken to last so long, with the weight of so many answers spread so far."""
_LINES_MAX = 10_000


@dataclass(slots=True)
class Line:
    """Weighted sums over answers, as in `cells.Cell`."""

    paced: float = 0.0
    line_tokens: float = 0.0
    line_squares: float = 0.0
    line_ms: float = 0.0
    line_products: float = 0.0
    attempts: float = 0.0
    down: float = 0.0

    def add(self, other: Line) -> None:
        """Takes in another's sums."""
        self.paced += other.paced
        self.line_tokens += other.line_tokens
        self.line_squares += other.line_squares
        self.line_ms += other.line_ms
        self.line_products += other.line_products
        self.attempts += other.attempts
        self.down += other.down


class _Seen:
    """Lines by model, and by model and task."""

    def __init__(self) -> None:
        self.models: dict[str, Line] = {}
        self.tasks: dict[tuple[str, str], Line] = {}

    def of(self, model: str, task: str) -> tuple[Line, ...]:
        """The lines that a call counts on; of the model alone where there are too many."""
        whole = self.models.get(model)
        if whole is None:
            if len(self.models) >= _LINES_MAX:
                return ()
            whole = self.models[model] = Line()
        own = self.tasks.get((model, task))
        if own is None:
            if len(self.tasks) >= _LINES_MAX:
                return (whole,)
            own = self.tasks[model, task] = Line()
        return whole, own


class ModelSpeeds:
    """The port `Speeds`, from memory. `adopt` brings what all replicas saw, `take` and `fail` what happened here since."""

    def __init__(self) -> None:
        self._shared = _Seen()
        self._own = _Seen()

    def take(self, model: str, task: str, *, output_tokens: int, latency_ms: float) -> None:
        """An answer of this replica."""
        for line in self._own.of(model, task):
            line.attempts += 1
            line.paced += 1
            line.line_tokens += output_tokens
            line.line_squares += output_tokens * output_tokens
            line.line_ms += latency_ms
            line.line_products += output_tokens * latency_ms

    def fail(self, model: str, task: str, *, down: bool) -> None:
        """A call of this replica that brought no answer; `down` where the deployment is at fault."""
        for line in self._own.of(model, task):
            line.attempts += 1
            line.down += down

    def begin(self) -> None:
        """What was taken before is part of what will be adopted next: from here on it is counted anew."""
        self._own = _Seen()

    def adopt(self, lines: Mapping[tuple[str, str], Line]) -> None:
        """What all replicas saw, by model and task."""
        shared = _Seen()
        for (model, task), line in lines.items():
            for each in shared.of(model, task):
                each.add(line)
        self._shared = shared

    def latency_ms(self, model: str, task: str, *, output_tokens: int) -> int | None:
        """How long an answer of that length will likely take; None where nothing is known."""
        whole = _sum(self._shared.models.get(model), self._own.models.get(model))
        if whole.paced <= 0:
            return None
        first_ms, token_ms = _line(whole)
        own = _sum(self._shared.tasks.get((model, task)), self._own.tasks.get((model, task)))
        if own.paced:
            offset_ms = (own.line_ms - token_ms * own.line_tokens) / own.paced - first_ms
            first_ms += offset_ms * own.paced / (own.paced + _TASK_ANSWERS)
        return max(1, round(max(0.0, first_ms) + token_ms * output_tokens))

    def error_rate(self, model: str) -> float:
        """The share of recent calls that failed, 0 to 1; 0 where nothing is known."""
        seen = _sum(self._shared.models.get(model), self._own.models.get(model))
        return seen.down / (seen.attempts + 1.0)


_NOTHING = Line()


def _sum(one: Line | None, other: Line | None) -> Line:
    if one is None or other is None:
        return one or other or _NOTHING
    total = Line()
    total.add(one)
    total.add(other)
    return total


def _line(sums: Line) -> tuple[float, float]:
    """Time to the first token and time a token, neither below zero."""
    mean_tokens, mean_ms = sums.line_tokens / sums.paced, sums.line_ms / sums.paced
    spread = max(0.0, sums.line_squares - sums.paced * mean_tokens**2)
    together = sums.line_products - sums.paced * mean_tokens * mean_ms
    prior = _SLOPE_ANSWERS * _TOKENS_SPREAD**2
    # Nobody's tokens can have taken longer than the answers that they make up.
    prior_ms = min(_MS_PER_TOKEN, mean_ms / mean_tokens) if mean_tokens else _MS_PER_TOKEN
    token_ms = max(0.0, (together + prior * prior_ms) / (spread + prior))
    token_ms = min(token_ms, mean_ms / mean_tokens) if mean_tokens else token_ms
    return mean_ms - token_ms * mean_tokens, token_ms
