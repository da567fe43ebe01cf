"""Choosing a model by what feedback taught: contextual Thompson sampling within a quality floor.

For every model the quality of its answer is drawn from what is believed of it (Thompson, 1933; with linear payoffs: Agrawal and
Goyal, 2013), and what the answer costs is taken off at the price of quality. Beliefs fade and are pooled (`arms.py`), opinions may come
late and rarely. The best draw is asked, unless that could drive quality under the floor (`floors.py`): then the next best one, at last
the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from farthing_router.learning.arms import Arms
from farthing_router.learning.floors import Floors, Stake
from farthing_router.learning.qualities import LearnedQualities
from farthing_router.routing.ports import Choice, Option
from farthing_router.routing.routes import Wish

FLOOR_SHARE = 0.9
"""The share of the reference model's quality that exploring keeps, where a request names none."""
POINTS_OF_REFERENCE = 5
"""Where quality has no price, the likely cost of the reference model buys this many points (hundredths) of it."""
_OPINIONS_MIN = 1
_RISK_PRICE, _AMPLE = 0.5, 0.5
"""What the risk of leaving the reference costs when a window can bear no more of it, falling to nothing where half of that is left: a
scarce thing goes where it brings most."""
_COURAGE = 0.3
"""Draws are this much narrower than what is believed: within a floor, and with feedback that is rare, whole ones explore too much."""


@dataclass(frozen=True, slots=True)
class _Draw:
    option: Option
    stake: Stake
    worth: float


class LearnedChoice:
    """The Learned port. `rng` is the chance that draws."""

    def __init__(self, *, arms: Arms, qualities: LearnedQualities, rng: Random) -> None:
        self._arms = arms
        self._qualities = qualities
        self._rng = rng
        self._floors = Floors()

    def choose(self, wish: Wish, options: Sequence[Option], *, usd_nanos_per_quality_point: int) -> Choice | None:
        """One of the options; None while nobody has an opinion on any answer of the task."""
        organization = wish.scope.split("/", 2)[1] if wish.scope else ""
        key = (organization, wish.task)
        if not options or self._arms.opinions(*key) < _OPINIONS_MIN:
            return None
        reference, share = self._reference(wish, options)
        draws = self._draws(wish, options, reference, self._price(reference, usd_nanos_per_quality_point))
        (own,) = [draw for draw in draws if draw.option is reference]
        used = self._floors.used(key, own.stake, share=share)
        risk_price = _RISK_PRICE * max(0.0, used - _AMPLE) / (1 - _AMPLE)
        held_back = False
        for draw in sorted(draws, key=lambda each: -each.worth if each is own else risk_price * each.stake.risk - each.worth):
            if draw is own or self._floors.allows(key, draw.stake, share=share):
                self._floors.sent(key, None if draw is own else draw.stake, reference_quality=own.stake.quality)
                return Choice(draw.option.model, _reason(draw, own, held_back=held_back, share=share))
            held_back = True
        raise AssertionError("the reference is always allowed")

    def _reference(self, wish: Wish, options: Sequence[Option]) -> tuple[Option, float]:
        """The model that quality is measured against, and the share of it to keep."""
        named = [option for option in options if option.model == wish.quality_reference_model]
        share = wish.quality_min if named and wish.quality_min is not None else FLOOR_SHARE
        baseline = named or [option for option in options if option.baseline]
        if baseline:
            return baseline[0], min(1.0, share)
        return max(options, key=lambda option: (option.likely_usd_nanos, option.quality)), share

    def _price(self, reference: Option, usd_nanos_per_quality_point: int) -> float:
        """What a whole answer's quality is worth, in nanodollars."""
        point = usd_nanos_per_quality_point or reference.likely_usd_nanos / POINTS_OF_REFERENCE
        return 100.0 * max(1.0, point)

    def _draws(self, wish: Wish, options: Sequence[Option], reference: Option, price: float) -> list[_Draw]:
        context, task = self._qualities.context(wish), wish.task
        organization = wish.scope.split("/", 2)[1]
        expected = {option.model: self._arms.belief(organization, task, option.model).expect(context) for option in options}
        reference_quality, reference_deviation = expected[reference.model]
        draws = []
        for option in options:
            quality, deviation = expected[option.model]
            drawn = min(1.0, quality + _COURAGE * deviation * self._rng.gauss(0.0, 1.0))
            stake = Stake(quality, deviation, reference_quality, reference_deviation)
            draws.append(_Draw(option, stake, drawn - option.likely_usd_nanos / price))
        return draws


def _reason(draw: _Draw, own: _Draw, *, held_back: bool, share: float) -> str:
    if draw is own:
        return f"keeps {share:.0%} of the reference's quality" if held_back else "worth its price, by what feedback taught"
    return f"quality {draw.stake.quality:.2f} by feedback, worth more than {own.option.model} at its price"
