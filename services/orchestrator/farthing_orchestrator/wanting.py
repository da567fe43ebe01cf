"""What a request wants of the router's choice: what its policy says, and what the request itself says within what that allows."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from farthing_core.auto_models import AUTO_MODELS
from farthing_core.errors import FieldInvalid

from farthing_orchestrator.policy import RoutingPolicy
from farthing_orchestrator.request import Overrides


@dataclass(frozen=True, slots=True)
class Wanted:
    """What matters most, and what the choice may not leave; empty, None and 0 leave it to the router and its rules."""

    optimize_for: str = ""
    quality_min: float | None = None
    quality_reference_model: str = ""
    latency_ms_max: int | None = None
    calls_max: int = 0
    cost_usd_nanos_max: int = 0

    @property
    def key(self) -> str:
        """It as a part of a cache key: an answer is only served to those who want the same. Empty where nothing is wanted."""
        return "" if self == _NOTHING else "|" + ",".join(str(each) for each in astuple(self))


_NOTHING = Wanted()


def wanted(policy: RoutingPolicy, overrides: Overrides, *, model: str) -> Wanted:
    """What a request wants. What its model's name says counts first, then what the request says, then the policy.

    Raises FieldInvalid for a request that would leave what its policy sets: a lower quality floor, or more calls or cost.
    """
    if overrides.quality_min is not None and policy.quality_min is not None:
        reference = overrides.quality_reference_model
        if overrides.quality_min < policy.quality_min or reference not in ("", policy.quality_reference_model):
            raise FieldInvalid(field="overrides.quality_min", problem=f"must be at least the policy's, {policy.quality_min}")
    for name in ("calls_max", "cost_usd_nanos_max"):
        asked, most = getattr(overrides, name), getattr(policy, name)
        if most and asked > most:
            raise FieldInvalid(field=f"overrides.{name}", problem=f"must be at most the policy's, {most}")
    own_floor = overrides.quality_min is not None and policy.quality_min is None
    return Wanted(
        optimize_for=AUTO_MODELS.get(model) or overrides.optimize_for or policy.optimize_for,
        quality_min=policy.quality_min if overrides.quality_min is None else overrides.quality_min,
        quality_reference_model=overrides.quality_reference_model if own_floor else policy.quality_reference_model,
        latency_ms_max=policy.latency_ms_max if overrides.latency_ms_max is None else overrides.latency_ms_max,
        calls_max=overrides.calls_max or policy.calls_max,
        cost_usd_nanos_max=overrides.cost_usd_nanos_max or policy.cost_usd_nanos_max,
    )
