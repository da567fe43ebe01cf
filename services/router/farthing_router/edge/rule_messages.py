"""Between the contract's messages about rules and the router's words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC
from typing import Any, get_args

from farthing.router.v1 import router_pb2
from farthing_core.errors import FieldInvalid
from google.protobuf.timestamp_pb2 import Timestamp

from farthing_router.edge import messages
from farthing_router.routing.explaining import Explanation
from farthing_router.routing.rules import Action, Match, OptimizeFor, Rule, Strategy, Weights

_STRATEGIES: dict[int, Strategy] = {
    router_pb2.RuleStrategy.Value(f"RULE_STRATEGY_{name.upper()}"): name for name in get_args(Strategy)
}
_WISHES: dict[int, OptimizeFor] = {
    router_pb2.OptimizeFor.Value(f"OPTIMIZE_FOR_{name.upper()}"): name for name in get_args(OptimizeFor)
}
_STRATEGY_NUMBERS = {name: number for number, name in _STRATEGIES.items()}
_WISH_NUMBERS = {name: number for number, name in _WISHES.items()}
CHANGEABLE = ("action", "disabled", "display_name", "match", "priority")


def rule(given: Any) -> Rule:
    """A rule from the contract's message. Raises FieldInvalid where it does not say what to do."""
    match = given.match
    return Rule(
        rule_id=given.rule_id,
        scope=given.scope,
        match=Match(
            tasks=tuple(match.tasks),
            tiers=tuple(match.tiers),
            complexity_min=_given(match, "complexity_min"),
            complexity_max=_given(match, "complexity_max"),
            optimize_for=tuple(_WISHES[each] for each in match.optimize_for),
            tags=tuple(match.tags),
            input_tokens_min=_given(match, "input_tokens_min"),
            input_tokens_max=_given(match, "input_tokens_max"),
            needs=tuple(match.needs),
        ),
        action=action(given.action, field="rule.action"),
        display_name=given.display_name,
        priority=given.priority,
        disabled=given.disabled,
        version=given.version,
    )


def action(given: Any, *, field: str) -> Action:
    """An action from the contract's message. Raises FieldInvalid where it has no strategy."""
    if given.strategy not in _STRATEGIES:
        raise FieldInvalid(field=f"{field}.strategy", problem=f"must be one of {', '.join(_STRATEGIES.values())}")
    weights = given.weights
    return Action(
        strategy=_STRATEGIES[given.strategy],
        weights=Weights(weights.cost, weights.latency, weights.quality) if given.HasField("weights") else None,
        models=tuple(given.models),
        models_denied=tuple(given.models_denied),
        allowed_providers=tuple(given.allowed_providers),
        quality_min=_given(given, "quality_min"),
        quality_reference_model=given.quality_reference_model,
        latency_ms_max=_given(given, "latency_ms_max"),
        calls_max=given.calls_max,
        cost_usd_nanos_max=given.cost_usd_nanos_max,
        accept_confidence=_given(given, "accept_confidence"),
        usd_nanos_per_quality_point=given.usd_nanos_per_quality_point,
    )


def rule_message(given: Rule) -> Any:
    """A rule as the contract has it."""
    match = given.match
    message = router_pb2.Rule(
        rule_id=given.rule_id,
        scope=given.scope,
        display_name=given.display_name,
        priority=given.priority,
        match=router_pb2.RuleMatch(
            tasks=match.tasks,
            tiers=match.tiers,
            complexity_min=match.complexity_min,
            complexity_max=match.complexity_max,
            optimize_for=[_WISH_NUMBERS[each] for each in match.optimize_for],  # type: ignore[misc]
            tags=match.tags,
            input_tokens_min=match.input_tokens_min,
            input_tokens_max=match.input_tokens_max,
            needs=match.needs,
        ),
        action=action_message(given.action),
        disabled=given.disabled,
        version=given.version,
        deleted=given.deleted,
    )
    if given.updated_at is not None:
        message.update_time.CopyFrom(_timestamp(given))
    return message


def action_message(given: Action) -> Any:
    """An action as the contract has it."""
    weights = given.weights
    return router_pb2.RuleAction(
        strategy=_STRATEGY_NUMBERS[given.strategy],  # type: ignore[arg-type]
        weights=None
        if weights is None
        else router_pb2.RuleWeights(cost=weights.cost, latency=weights.latency, quality=weights.quality),
        models=given.models,
        models_denied=given.models_denied,
        allowed_providers=given.allowed_providers,
        quality_min=given.quality_min,
        quality_reference_model=given.quality_reference_model,
        latency_ms_max=given.latency_ms_max,
        calls_max=given.calls_max,
        cost_usd_nanos_max=given.cost_usd_nanos_max,
        accept_confidence=given.accept_confidence,
        usd_nanos_per_quality_point=given.usd_nanos_per_quality_point,
    )


def change(request: Any) -> Callable[[Rule], Rule]:
    """What an update makes of a rule. Raises FieldInvalid for a mask that names what cannot change, or no field."""
    paths = list(request.update_mask.paths) or list(CHANGEABLE)
    for path in paths:
        top = path.split(".", 1)[0]
        if top not in CHANGEABLE:
            raise FieldInvalid(field="update_mask", problem=f"{path!r} cannot change; {', '.join(CHANGEABLE)} can")
    mask = type(request.update_mask)(paths=paths)
    if not mask.IsValidForDescriptor(router_pb2.Rule.DESCRIPTOR):
        raise FieldInvalid(field="update_mask", problem=f"{', '.join(paths)[:200]} are not all fields of a rule")

    given = router_pb2.Rule.FromString(request.rule.SerializeToString())
    if any(path.startswith("match.") for path in paths):
        given.match.SetInParent()  # what is not there would be passed over instead of cleared
    if any(path.startswith("action.") for path in paths):
        given.action.SetInParent()

    def changed(newest: Rule) -> Rule:
        merged = rule_message(newest)
        mask.MergeMessage(given, merged, True, True)
        made = rule(merged)
        return Rule(
            rule_id=newest.rule_id,
            scope=newest.scope,
            match=made.match,
            action=made.action,
            display_name=made.display_name,
            priority=made.priority,
            disabled=made.disabled,
            created_number=newest.created_number,
        )

    return changed


def explanation(given: Explanation, baseline_model: str, baseline_likely_usd_nanos: int) -> Any:
    """Why a request is routed as it is."""
    return router_pb2.ExplainRouteResponse(
        route=messages.route(given.route) if given.route is not None else None,
        rule=rule_message(given.rule) if given.rule is not None else None,
        complexity=given.complexity,
        complexity_reasons=given.complexity_reasons,
        considerations=[
            router_pb2.Consideration(**{each.name: getattr(one, each.name) for each in fields(one)})
            for one in given.considerations
        ],
        reason=given.reason,
        baseline_model=baseline_model,
        baseline_likely_usd_nanos=baseline_likely_usd_nanos,
    )


def _given(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _timestamp(given: Rule) -> Timestamp:
    stamp = Timestamp()
    assert given.updated_at is not None
    stamp.FromDatetime(given.updated_at.astimezone(UTC))
    return stamp
