"""Whether a rule can work: checked whole before it is kept, so that a mistake is an error and not silence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from farthing_core.errors import FieldInvalid
from farthing_core.scopes import parse_scope

from farthing_router.catalog import Catalog, Model
from farthing_router.routing.rules import Action, Match, Rule

NEEDS = ("audio", "json", "tools", "vision")
"""What a request may need of a model."""


def check_rule(rule: Rule, catalog: Catalog, *, field: str) -> None:
    """Raises FieldInvalid, naming the field and its limit, for a rule that could never match, names what is not in the catalog, says
    what its strategy does not use, or leaves no model.
    """
    _check_texts(rule, field)
    if rule.scope:
        parse_scope(rule.scope, field=f"{field}.scope")
    _check_match(rule.match, catalog, f"{field}.match")
    check_action(rule.action, catalog, field=f"{field}.action")
    _check_somebody_is_left(rule, catalog, field)


def check_declared(catalog: Catalog) -> None:
    """The same for the rules of farthing.yaml."""
    for number, rule in enumerate(catalog.rules):
        check_rule(rule, catalog, field=f"routing.rules.{number}")


def check_action(action: Action, catalog: Catalog, *, field: str) -> None:
    """The same for what a rule does alone, as an experiment's arm has it."""
    _known(action.models, catalog.models, f"{field}.models", "the catalog's models")
    _known(action.models_denied, catalog.models, f"{field}.models_denied", "the catalog's models")
    providers = {each.provider for model in catalog.models.values() for each in model.deployments}
    _known(action.allowed_providers, providers, f"{field}.allowed_providers", "the providers of models")
    _check_weights(action, field)
    _check_floor(action, catalog, field)
    _check_cascade(action, field)
    if not _left(action, catalog.models.values()):
        raise FieldInvalid(
            field=f"{field}.models", problem="no model is left after models_denied and allowed_providers; leave at least 1"
        )


def _check_texts(rule: Rule, field: str) -> None:
    for name, texts in (
        ("display_name", (rule.display_name,)),
        ("match.tasks", rule.match.tasks),
        ("match.tags", rule.match.tags),
    ):
        if any("\x00" in text for text in texts):
            raise FieldInvalid(field=f"{field}.{name}", problem="has a null character; use text without any")


def _check_match(match: Match, catalog: Catalog, field: str) -> None:
    for number, task in enumerate(match.tasks):
        if "*" in task[:-1]:
            raise FieldInvalid(field=f"{field}.tasks[{number}]", problem=f"{task!r} has a '*' that is not at its end")
    _once(match.tasks, f"{field}.tasks")
    _known(match.tiers, catalog.tiers, f"{field}.tiers", "routing.tiers")
    _known(match.needs, NEEDS, f"{field}.needs", "what a request may need")
    _once(match.optimize_for, f"{field}.optimize_for")
    least, most = match.complexity_min or 0.0, 1.0 if match.complexity_max is None else match.complexity_max
    if least >= most and not least == most == 1.0:
        raise FieldInvalid(
            field=f"{field}.complexity_max",
            problem=f"no complexity is from {least} to below {most}; it must be above complexity_min",
        )
    fewest, most_tokens = match.input_tokens_min or 0, match.input_tokens_max
    if most_tokens is not None and fewest > most_tokens:
        raise FieldInvalid(
            field=f"{field}.input_tokens_max",
            problem=f"must be at least input_tokens_min, which is {fewest}; it is {most_tokens}",
        )


def _check_weights(action: Action, field: str) -> None:
    weights = action.weights
    if weights is None:
        return
    if action.strategy != "balanced":
        raise FieldInvalid(field=f"{field}.weights", problem="are for the strategy balanced; leave them out")
    given = (weights.cost, weights.latency, weights.quality)
    if not all(math.isfinite(each) and each >= 0 for each in given) or not any(given):
        raise FieldInvalid(field=f"{field}.weights", problem="must be numbers from 0, and at least one of them above 0")


def _check_floor(action: Action, catalog: Catalog, field: str) -> None:
    reference = action.quality_reference_model
    if reference and action.quality_min is None:
        raise FieldInvalid(
            field=f"{field}.quality_reference_model", problem="is the reference of quality_min, which is not set"
        )
    if reference:
        _known((reference,), catalog.models, f"{field}.quality_reference_model", "the catalog's models")
    elif action.quality_min is not None and action.quality_min >= 1:
        raise FieldInvalid(
            field=f"{field}.quality_min",
            problem="nobody is expected to be always good: it must be below 1, or name a quality_reference_model",
        )


def _check_cascade(action: Action, field: str) -> None:
    if action.strategy == "cascade":
        if len(action.models) == 1:
            raise FieldInvalid(field=f"{field}.models", problem="a cascade needs at least 2 models, or none named")
        if action.calls_max == 1:
            raise FieldInvalid(field=f"{field}.calls_max", problem="a cascade needs at least 2 calls, or 0 for the catalog's")
        return
    if action.accept_confidence is not None:
        raise FieldInvalid(field=f"{field}.accept_confidence", problem="is for the strategy cascade; leave it out")
    if action.usd_nanos_per_quality_point and action.strategy != "learned":
        raise FieldInvalid(
            field=f"{field}.usd_nanos_per_quality_point", problem="is for the strategies cascade and learned; leave it out"
        )


def _check_somebody_is_left(rule: Rule, catalog: Catalog, field: str) -> None:
    """Every tier that is named must reach a model that can do what is named, and a cascade two."""
    left = _left(rule.action, catalog.models.values())
    needs = frozenset(rule.match.needs)
    able = [model for model in left if needs <= model.capabilities]
    if not able:
        raise FieldInvalid(
            field=f"{field}.match.needs", problem=f"no model of the rule has {', '.join(sorted(needs))}; leave at least 1"
        )
    longest = max(model.context_window_tokens for model in able)
    if (rule.match.input_tokens_min or 0) >= longest:
        raise FieldInvalid(
            field=f"{field}.match.input_tokens_min",
            problem=f"must be below the largest context window of its models, {longest}",
        )
    fewest = 2 if rule.action.strategy == "cascade" and (rule.action.models or len(catalog.models) > 1) else 1
    if len(able) < fewest:
        raise FieldInvalid(
            field=f"{field}.action.models", problem="a cascade needs at least 2 models that are allowed and able"
        )
    for number, tier in enumerate(rule.match.tiers):
        if not any(model.tier_rank <= catalog.tier_rank(tier) for model in able):
            raise FieldInvalid(
                field=f"{field}.match.tiers[{number}]", problem=f"{tier} reaches no model of the rule; leave at least 1"
            )


def _left(action: Action, models: Iterable[Model]) -> list[Model]:
    return [
        model
        for model in models
        if (not action.models or model.name in action.models)
        and model.name not in action.models_denied
        and (not action.allowed_providers or any(each.provider in action.allowed_providers for each in model.deployments))
    ]


def _known(given: Sequence[str], known: Iterable[str], field: str, where: str) -> None:
    names = set(known)
    for number, name in enumerate(given):
        if name not in names:
            raise FieldInvalid(field=f"{field}[{number}]", problem=f"{name!r} is not among {where}")
    _once(given, field)


def _once(given: Sequence[str], field: str) -> None:
    for number, name in enumerate(given):
        if name in given[:number]:
            raise FieldInvalid(field=f"{field}[{number}]", problem=f"{name!r} is there twice")
