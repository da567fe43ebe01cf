"""What limits a choice: what a rule says and what the caller asks for, together; the tighter of the two counts.

Quality floors are hard, whoever set them: a model meets one by what is known of it, a guess never does, and where nobody meets it nobody is
asked. Only the model that a floor is measured by, and the baseline model of one that is absolute, are taken to meet it as long as nothing
is known of them. Latency ceilings are soft: where nobody keeps one, the fastest is asked. Cost caps are hard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from farthing_router.routing.ports import Known, Option
from farthing_router.routing.routes import Wish
from farthing_router.routing.rules import Action


@dataclass(frozen=True, slots=True)
class Floor:
    """The least quality, 0 to 1; the least share of the reference model's where one is named."""

    least: float
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Whom to choose from and what it may take; 0 and None are no limit. `models` are all when empty."""

    models: tuple[str, ...] = ()
    models_denied: frozenset[str] = frozenset()
    floors: tuple[Floor, ...] = ()
    latency_ms_max: int | None = None
    calls_max: int = 0
    cost_usd_nanos_max: int = 0

    def hindrance(self, model: str) -> str:
        """Why a model is not for this request, in a few words; empty where it may be."""
        if model in self.models_denied:
            return "the rule denies it"
        if self.models and model not in self.models:
            return "is not among the rule's models"
        return ""


def limits_of(wish: Wish, action: Action | None) -> Limits:
    """What a request and the rule for it say together."""
    floors = []
    if wish.quality_min:
        floors.append(Floor(wish.quality_min, wish.quality_reference_model))
    if action is None:
        return Limits((), frozenset(), tuple(floors), wish.latency_ms_max, wish.calls_max, wish.cost_usd_nanos_max)
    if action.quality_min:
        floors.append(Floor(action.quality_min, action.quality_reference_model))
    ceilings = [each for each in (wish.latency_ms_max, action.latency_ms_max) if each is not None]
    return Limits(
        models=action.models,
        models_denied=frozenset(action.models_denied),
        floors=tuple(floors),
        latency_ms_max=min(ceilings, default=None),
        calls_max=tightest(wish.calls_max, action.calls_max),
        cost_usd_nanos_max=tightest(wish.cost_usd_nanos_max, action.cost_usd_nanos_max),
    )


def tightest(*limits: int) -> int:
    """The least of some limits, of which 0 are none."""
    return min((each for each in limits if each), default=0)


def with_providers(wish: Wish, action: Action | None) -> Wish | None:
    """The wish for the providers that both it and the rule allow; None where there are none."""
    if action is None or not action.allowed_providers:
        return wish
    allowed = frozenset(action.allowed_providers)
    both = allowed & wish.allowed_providers if wish.allowed_providers else allowed
    return replace(wish, allowed_providers=both) if both else None


def meets(option: Option, floors: Sequence[Floor], quality_of: Callable[[str], Known | None]) -> str:
    """Why an option is under a quality floor, in a few words; empty where it meets them all."""
    for floor in floors:
        if floor.reference == option.model:
            continue
        reference = quality_of(floor.reference) if floor.reference else None
        if floor.reference and reference is None:
            return f"the quality of {floor.reference}, which it is measured by, is not known"
        if not option.quality_known:
            if not floor.reference and option.baseline:
                continue
            return "its quality is not known, and there is a floor"
        least = floor.least if reference is None else floor.least * reference.value
        if option.quality < least:
            return f"its quality, {option.quality:.2f}, is under {least:.2f}"
    return ""


def floor_of(floors: Sequence[Floor], quality_of: Callable[[str], Known | None]) -> float:
    """The highest floor as far as it is known, 0 to 1."""
    found = 0.0
    for floor in floors:
        reference = quality_of(floor.reference) if floor.reference else None
        if not floor.reference or reference is not None:
            found = max(found, floor.least * (reference.value if reference is not None else 1.0))
    return min(1.0, found)
