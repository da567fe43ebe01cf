"""Which deployment of a model is asked: one of those that take calls, by weight and load, the same one for a conversation.

Of two drawn by weight the second is taken where it is clearly less loaded (the power of two choices: Mitzenmacher 2001), so that nobody
runs after the one that is best at the moment. A conversation goes where the hash of its name and of the deployment is highest
(rendezvous hashing: Thaler and Ravishankar 1998), so that the provider's prefix cache stays warm; it moves when that one does not take
calls, or is far more loaded than another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import log
from random import Random

from farthing_router.catalog import Catalog, Model
from farthing_router.deployments.allowances import Rest
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.deployments.eligible import permitted
from farthing_router.deployments.hedging import ShareBudget
from farthing_router.deployments.places import Place

_CLEARLY = 1.5
"""Loads that differ by less are taken for equal: weights decide then."""
_FAR_MORE = 4.0
"""A conversation leaves a deployment that is this much more loaded than the best other one."""


@dataclass(frozen=True, slots=True)
class Resting:
    """No deployment takes the call now: from when on one may, and why each does not. `foreseen`: one might take it all the same.

    `broken`: all of them failed too often.
    """

    until_s: float
    why: str
    foreseen: Place | None = None
    broken: bool = False


class Balancer:
    """The deployments of all models in this replica, and the choice among them."""

    def __init__(self, catalog: Catalog, *, cooldowns: Cooldowns, rng: Random) -> None:
        self.catalog = catalog
        self._rng = rng
        self.places: Mapping[str, Place] = {
            each.name: Place(each, cooldowns) for model in catalog.models.values() for each in model.deployments
        }
        self._known = dict(catalog.models)
        self._usual = {
            model.name: [self.places[each.name] for each in model.deployments if not each.batch]
            for model in catalog.models.values()
        }
        self.hedges = {
            model.name: ShareBudget(share=model.hedge.calls_share_max, spare=0)
            for model in catalog.models.values()
            if model.hedge is not None
        }

    def of(self, model: Model, names: Collection[str] = (), *, batch: bool = False) -> Sequence[Place]:
        """The places of a model that may be asked: those of these names, else all that are, or are not, a Batch API."""
        if self._known[model.name] is not model:
            self._correct(model)
        if not names and not batch:
            return self._usual[model.name]
        return [self.places[each.name] for each in permitted(model, names, batch=batch)]

    def all_of(self, model: Model) -> Sequence[Place]:
        """Every place of a model."""
        return self.of(model, [each.name for each in model.deployments])

    def choose(self, places: Sequence[Place], now_s: float, *, tokens: int, session: str = "") -> Place | Resting:
        """One of the places that takes a call of so many tokens now; who has weight 0 only where nobody else does."""
        if len(places) == 1 and (rest := places[0].rest(now_s, tokens)) is None:
            return places[0]
        resting: list[tuple[Place, Rest]] = []
        taking: list[Place] = []
        for place in places:
            if (rest := place.rest(now_s, tokens)) is None:
                taking.append(place)
            else:
                resting.append((place, rest))
        if not taking:
            return _resting(resting)
        if len(taking) > 1:
            taking = [place for place in taking if place.weight > 0] or taking
        return taking[0] if len(taking) == 1 else self._among(taking, now_s, session)

    def _correct(self, model: Model) -> None:
        """Takes over what the catalog learned of a model's deployments since."""
        self._known[model.name] = model
        for deployment in model.deployments:
            self.places[deployment.name].deployment = deployment

    def _among(self, taking: list[Place], now_s: float, session: str) -> Place:
        weights = [place.weight or 1.0 for place in taking]
        total = sum(weights)
        in_flight = sum(place.load.in_flight for place in taking) + 1
        best_s = min((place.load.latency_s for place in taking if place.load.latency_s is not None), default=1.0)

        def cost(number: int) -> float:
            return taking[number].load.cost(now_s, best_s=best_s, fair=in_flight * weights[number] / total)

        numbers = range(len(taking))
        if session:
            home = max(numbers, key=lambda number: _affinity(session, taking[number].deployment.name, weights[number]))
            if cost(home) <= _FAR_MORE * min(cost(number) for number in numbers if number != home):
                return taking[home]
        first = self._rng.choices(numbers, weights)[0]
        others = [number for number in numbers if number != first]
        second = self._rng.choices(others, [weights[number] for number in others])[0]
        return taking[second] if cost(first) > _CLEARLY * cost(second) else taking[first]


def _resting(resting: Iterable[tuple[Place, Rest]]) -> Resting:
    pairs = list(resting)
    why = "; ".join(f"{place.deployment.name} {rest.reason}" for place, rest in pairs)
    foreseen = next((place for place, rest in pairs if rest.foreseen), None)
    until_s = min((rest.until_s for _, rest in pairs), default=float("inf"))
    return Resting(until_s, why, foreseen, broken=all(rest.broken for _, rest in pairs))


def _affinity(session: str, deployment: str, weight: float) -> float:
    """How much a deployment attracts a conversation: over many of them, each gets its weight's share."""
    digest = blake2b(f"{session}\0{deployment}".encode(), digest_size=6).digest()
    return -weight / log((int.from_bytes(digest) + 0.5) / 2**48)
