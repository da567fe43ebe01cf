"""How good models are for a request, from memory."""

from __future__ import annotations

from collections.abc import Sequence

from farthing_router.learning.arms import Arms
from farthing_router.learning.contexts import context_of
from farthing_router.learning.evidence import Context
from farthing_router.routing.ports import Known
from farthing_router.routing.routes import Wish

_Z = 1.96
_CHEAPEST, _DEAREST = 0.6, 0.85


class LearnedQualities:
    """The Qualities port over what is believed of models."""

    def __init__(self, arms: Arms) -> None:
        self._arms = arms
        self._last: tuple[Wish, Context] | None = None

    def quality(self, model: str, wish: Wish) -> Known | None:
        """How likely the model answers this request well; None before anything is known of it in the organisation."""
        organization = wish.scope.split("/", 2)[1] if wish.scope else ""
        belief = self._arms.belief(organization, wish.task, model)
        if belief.source == "prior":
            return None
        # Without an opinion on it nothing of what is believed depends on the prompt.
        value, deviation = belief.expect(self.context(wish) if belief.opinions else belief.usual)
        lower, upper = max(0.0, value - _Z * deviation), min(1.0, value + _Z * deviation)
        return Known(value, lower, upper, belief.opinions or belief.answers, belief.source)

    def context(self, wish: Wish) -> Context:
        """The context of a wish, reckoned once for all models."""
        if self._last is None or self._last[0] is not wish:
            self._last = (wish, context_of(wish.prompt, wish.embedding))
        return self._last[1]


def catalog_prior(cheap_to_dear: Sequence[str]) -> dict[str, float]:
    """What prices suggest of quality before anything is known: dearer models are better, by a little."""
    step = (_DEAREST - _CHEAPEST) / max(1, len(cheap_to_dear) - 1)
    return {name: _CHEAPEST + step * number for number, name in enumerate(cheap_to_dear)}
