"""Which rule is for a request, and which rules cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from farthing_core.errors import FieldInvalid
from farthing_router.catalog import Catalog, parse_catalog
from farthing_router.routing.matching import RuleIndex
from farthing_router.routing.routes import Wish
from farthing_router.routing.rule_checks import check_declared, check_rule
from farthing_router.routing.rules import Action, Match, Rule, Weights

ORG, SPACE = "organizations/acme", "organizations/acme/workspaces/w"
USER = f"{SPACE}/projects/p/users/ann"
CHEAPEST = Action("cheapest")


def config(**routing: Any) -> dict[str, Any]:
    def model(provider: str, **fields: Any) -> dict[str, Any]:
        price = {"input_usd_per_million_tokens": "1", "output_usd_per_million_tokens": "2"}
        return {"provider": provider, "price": price, **fields}

    return {
        "providers": {
            "p": {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True},
            "q": {"base_url": "http://127.0.0.1:2/v1", "api_key_optional": True},
            "unused": {"base_url": "http://127.0.0.1:3/v1", "api_key_optional": True},
        },
        "models": {
            "small": model("p", context_window_tokens=8_000),
            "medium": model("q", tier="standard", capabilities=["tools", "json"]),
            "large": model("q", tier="premium", capabilities=["tools", "vision", "json"]),
        },
        "routing": routing,
    }


def catalog(**routing: Any) -> Catalog:
    return parse_catalog(config(**routing), key_of=lambda _: None, list_price=lambda *_: None)


def wish(**fields: Any) -> Wish:
    return Wish(
        **{
            "model": "",
            "task": "chat",
            "tier": "",
            "needs": frozenset(),
            "images": 0,
            "input_tokens": {"o200k": 100},
            "bytes_bound": 400,
            "output_tokens_max": None,
            "allowed_providers": frozenset(),
            "open_models_only": False,
            "baseline_model": "",
            "baseline_input_tokens": {},
            "scope": USER,
            **fields,
        }
    )


def rule(name: str, match: Match | None = None, **fields: Any) -> Rule:
    return Rule(**{"rule_id": name, "scope": ORG, "match": match or Match(), "action": CHEAPEST, **fields})


def found(rules: list[Rule], complexity: float = 0.5, tier: str = "premium", **fields: Any) -> str:
    matched = RuleIndex(rules).find(wish(**fields), tier=tier, complexity=lambda: complexity)
    return "" if matched is None else matched.rule_id


def test_the_longest_scope_is_tried_first_then_priority_then_age() -> None:
    rules = [
        rule("file", scope="", priority=1_000),
        rule("organisation", priority=900),
        rule("user", scope=USER, priority=-5, created_number=9),
        rule("older", scope=SPACE, priority=3, created_number=4),
        rule("newer", scope=SPACE, priority=3, created_number=7),
        rule("urgent", scope=SPACE, priority=4, created_number=8),
        rule("elsewhere", scope=f"{SPACE}x", priority=9),
    ]
    tried = ["user", "urgent", "older", "newer", "organisation", "file"]
    assert [each.rule_id for each in RuleIndex(rules).of(USER)] == tried
    while tried:
        assert found(rules) == tried[0]
        rules = [each for each in rules if each.rule_id != tried[0]]
        tried.pop(0)
    assert found(rules) == ""


def test_a_rule_that_is_disabled_is_listed_and_not_used() -> None:
    rules = [rule("off", disabled=True, priority=1), rule("on")]
    assert [each.rule_id for each in RuleIndex(rules).of(ORG)] == ["off", "on"]
    assert found(rules) == "on"


@pytest.mark.parametrize(
    ("match", "fits", "fits_not"),
    [
        (
            Match(tasks=("caption*", "ads")),
            [{"task": "caption"}, {"task": "captions/de"}, {"task": "ads"}],
            [{"task": "adsx"}, {}],
        ),
        (Match(tasks=("*",)), [{}, {"task": ""}], []),
        (Match(tiers=("free", "standard")), [{"tier": "free"}, {"tier": "standard"}], [{"tier": "premium"}]),
        (Match(optimize_for=("cost", "latency")), [{"optimize_for": "cost"}], [{"optimize_for": "quality"}, {}]),
        (Match(tags=("a", "b")), [{"tags": ("b", "c", "a")}], [{"tags": ("a",)}, {}]),
        (Match(needs=("tools",)), [{"needs": frozenset({"tools", "json"})}], [{"needs": frozenset({"json"})}, {}]),
        (Match(input_tokens_min=100), [{}], [{"input_tokens": {"o200k": 99}}]),
        (Match(input_tokens_max=100), [{}], [{"input_tokens": {"o200k": 9, "cl100k": 101}}, {"input_tokens": {}}]),
        (Match(complexity_min=0.4), [{"complexity": 0.4}, {"complexity": 1.0}], [{"complexity": 0.39}]),
        (Match(complexity_max=0.4), [{"complexity": 0.39}, {"complexity": 0.0}], [{"complexity": 0.4}]),
        (Match(complexity_min=0.4, complexity_max=1.0), [{"complexity": 1.0}], [{"complexity": 0.1}]),
        (Match(complexity_max=1.0), [{"complexity": 1.0}, {"complexity": 0.0}], []),
    ],
)
def test_every_condition_that_is_given_must_hold(
    match: Match, fits: list[dict[str, Any]], fits_not: list[dict[str, Any]]
) -> None:
    rules = [rule("it", match)]
    for given in fits:
        assert found(rules, **given) == "it", given
    for given in fits_not:
        assert found(rules, **given) == "", given


def test_complexity_is_only_asked_where_it_decides() -> None:
    asked = []

    def complexity() -> float:
        asked.append(1)
        return 0.9

    index = RuleIndex([rule("hard", Match(tasks=("ads",), complexity_min=0.5), priority=1), rule("any")])
    assert index.find(wish(), tier="premium", complexity=complexity) is not None
    assert not asked
    hard = index.find(wish(task="ads"), tier="premium", complexity=complexity)
    assert hard is not None
    assert (hard.rule_id, len(asked)) == ("hard", 1)


def test_what_is_remembered_of_tasks_stays_bounded() -> None:
    index = RuleIndex([rule("it", Match(tasks=("t1*",)))])
    for number in range(2_500):
        matched = index.find(wish(task=f"t{number}"), tier="premium", complexity=lambda: 0.0)
        assert (matched is not None) == str(number).startswith("1")
    assert len(index._remembered) <= 1_000


@pytest.mark.parametrize(
    ("field", "limit", "match", "action"),
    [
        ("match.tasks[1]", "at its end", Match(tasks=("a*", "a*b")), CHEAPEST),
        ("match.tasks[1]", "twice", Match(tasks=("a", "a")), CHEAPEST),
        ("match.tasks", "null character", Match(tasks=("a\x00",)), CHEAPEST),
        ("match.tags", "null character", Match(tags=("a\x00",)), CHEAPEST),
        ("match.tiers[0]", "routing.tiers", Match(tiers=("gold",)), CHEAPEST),
        ("match.needs[0]", "may need", Match(needs=("smell",)), CHEAPEST),
        ("match.optimize_for[1]", "twice", Match(optimize_for=("cost", "cost")), CHEAPEST),
        ("match.complexity_max", "above complexity_min", Match(complexity_min=0.5, complexity_max=0.5), CHEAPEST),
        ("match.complexity_max", "above complexity_min", Match(complexity_max=0.0), CHEAPEST),
        (
            "match.input_tokens_max",
            "at least input_tokens_min, which is 5",
            Match(input_tokens_min=5, input_tokens_max=4),
            CHEAPEST,
        ),
        ("match.input_tokens_min", "8000", Match(input_tokens_min=8_000), Action("cheapest", models=("small",))),
        (
            "match.needs",
            "no model of the rule has vision",
            Match(needs=("vision",)),
            Action("cheapest", models_denied=("large",)),
        ),
        ("match.tiers[1]", "free reaches no model", Match(tiers=("premium", "free")), Action("cheapest", models=("large",))),
        ("action.models[1]", "'huge' is not among", Match(), Action("cheapest", models=("small", "huge"))),
        ("action.models[1]", "twice", Match(), Action("cheapest", models=("small", "small"))),
        ("action.models_denied[0]", "'huge' is not among", Match(), Action("cheapest", models_denied=("huge",))),
        ("action.allowed_providers[0]", "'unused' is not among", Match(), Action("cheapest", allowed_providers=("unused",))),
        ("action.models", "no model is left", Match(), Action("cheapest", models=("small",), allowed_providers=("q",))),
        ("action.models", "no model is left", Match(), Action("cheapest", models_denied=("small", "medium", "large"))),
        ("action.weights", "above 0", Match(), Action("balanced", Weights(0, 0, 0))),
        ("action.weights", "from 0", Match(), Action("balanced", Weights(-1, 1, 1))),
        ("action.weights", "from 0", Match(), Action("balanced", Weights(float("nan"), 1, 1))),
        ("action.weights", "for the strategy balanced", Match(), Action("cheapest", Weights())),
        ("action.quality_min", "below 1", Match(), Action("cheapest", quality_min=1.0)),
        ("action.quality_reference_model", "not set", Match(), Action("cheapest", quality_reference_model="large")),
        (
            "action.quality_reference_model[0]",
            "'huge' is not among",
            Match(),
            Action("cheapest", quality_min=0.9, quality_reference_model="huge"),
        ),
        ("action.models", "at least 2 models", Match(), Action("cascade", models=("small",))),
        ("action.models", "at least 2 models", Match(needs=("vision",)), Action("cascade")),
        ("action.models", "at least 2 models", Match(), Action("cascade", models=("small", "large"), models_denied=("large",))),
        ("action.calls_max", "at least 2 calls", Match(), Action("cascade", calls_max=1)),
        ("action.accept_confidence", "for the strategy cascade", Match(), Action("quality", accept_confidence=0.5)),
        (
            "action.usd_nanos_per_quality_point",
            "cascade and learned",
            Match(),
            Action("quality", usd_nanos_per_quality_point=5),
        ),
    ],
)
def test_case_28_a_rule_that_cannot_work_is_refused_by_the_name_of_its_field(
    field: str, limit: str, match: Match, action: Action
) -> None:
    with pytest.raises(FieldInvalid) as caught:
        check_rule(rule("it", match, action=action), catalog(), field="rule")
    assert caught.value.field == f"rule.{field}"
    assert limit in caught.value.problem


@pytest.mark.parametrize(
    ("match", "action"),
    [
        (Match(complexity_min=1.0, complexity_max=1.0), CHEAPEST),
        (Match(tasks=("*",), tiers=("free",), needs=("json",)), Action("cheapest", models=("small",))),
        (Match(input_tokens_min=8_000), Action("cascade", models_denied=("small",))),
        (Match(), Action("quality", quality_min=1.0, quality_reference_model="large")),
        (Match(), Action("learned", usd_nanos_per_quality_point=5)),
        (
            Match(),
            Action("cascade", models=("small", "large"), accept_confidence=0.5, usd_nanos_per_quality_point=5, calls_max=2),
        ),
    ],
)
def test_a_rule_that_can_work_is_taken(match: Match, action: Action) -> None:
    check_rule(rule("it", match, action=action), catalog(), field="rule")


def test_a_scope_that_is_none_is_refused() -> None:
    with pytest.raises(FieldInvalid, match=r"rule\.scope"):
        check_rule(rule("it", scope="organizations/acme/users/x"), catalog(), field="rule")


def test_rules_of_the_file_have_the_fields_of_the_contract() -> None:
    written = {
        "scope": SPACE,
        "display_name": "captions",
        "priority": 3,
        "match": {"tasks": ["caption*"], "complexity_max": 0.5, "optimize_for": ["cost"]},
        "action": {"strategy": "balanced", "weights": {"cost": 2}, "models_denied": ["large"], "calls_max": 3},
        "disabled": True,
    }
    parsed = catalog(rules=[{"action": {"strategy": "cheapest"}}, written])
    check_declared(parsed)
    first, second = parsed.rules
    assert (first.rule_id, first.scope, first.action) == ("farthing.yaml/0", "", CHEAPEST)
    assert second == replace(
        rule("farthing.yaml/1", Match(tasks=("caption*",), complexity_max=0.5, optimize_for=("cost",))),
        scope=SPACE,
        display_name="captions",
        priority=3,
        action=Action("balanced", Weights(2, 0, 0), models_denied=("large",), calls_max=3),
        disabled=True,
        created_number=second.created_number,
    )
    assert first.created_number < second.created_number < 0


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("routing.rules.0.action", {}),
        ("routing.rules.0.action.strategy", {"action": {"strategy": "best"}}),
        ("routing.rules.0.colour", {"action": {"strategy": "cheapest"}, "colour": "red"}),
        ("routing.rules.0.match.compexity_min", {"action": {"strategy": "cheapest"}, "match": {"compexity_min": 0.5}}),
        ("routing.rules.0.action.quality_min", {"action": {"strategy": "cheapest", "quality_min": 1.2}}),
        ("routing.rules.0.action.weights.cost", {"action": {"strategy": "balanced", "weights": {"cost": float("nan")}}}),
        ("routing.rules.0.action.models[0]", {"action": {"strategy": "cheapest", "models": ["huge"]}}),
        ("routing.rules.0.scope", {"action": {"strategy": "cheapest"}, "scope": "acme"}),
    ],
)
def test_case_28_a_wrong_rule_in_the_file_is_an_error_by_the_path_of_its_field(field: str, written: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        check_declared(catalog(rules=[written]))
    assert caught.value.field == field
