"""Who belongs to which arm: decided by hashing, so that every replica says the same and nobody needs to remember it."""

from __future__ import annotations

from hashlib import blake2b

from farthing_router.experiments.terms import Experiment, Kind
from farthing_router.routing.routes import Wish

_RANGE = 2.0**64


def uniform(organization: str, experiment_id: str, unit: str) -> float:
    """A number from 0 to below 1 that looks random: the same for the same unit, unrelated between experiments."""
    digest = blake2b(f"{organization}\n{experiment_id}\n{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / _RANGE


def place_of(experiment: Experiment, wish: Wish) -> float:
    """Where a request stands from 0 to below 1: by its user (a scope that ends in one), its session, or itself. What names neither user
    nor session stands by itself: a whole project in one arm would compare nothing.
    """
    user, request = (wish.scope if "/users/" in wish.scope else ""), wish.request_id.lower()
    unit = {"user": user or wish.session or request, "session": wish.session or user or request}.get(experiment.sticky, request)
    return uniform(experiment.organization, experiment.experiment_id, unit)


def serving_arm(experiment: Experiment, place: float) -> int | None:
    """The arm that serves whoever stands there; None for those who take no part.

    A canary's arm has those from 0 to its share: when it grows, nobody leaves it.
    """
    if experiment.kind is Kind.SHADOW:
        return 0
    if experiment.kind is Kind.CANARY:
        return 1 if place < experiment.canary_share else 0
    upper = 0.0
    for number, arm in enumerate(experiment.arms):
        upper += arm.share
        if place < upper:
            return number
    return None


def shadowing_arms(experiment: Experiment, place: float) -> list[int]:
    """The arms that are asked beside. A larger share has everybody of a smaller one: arms see the same requests."""
    if experiment.kind is not Kind.SHADOW:
        return []
    return [number for number, arm in enumerate(experiment.arms) if number and place < arm.share]
