"""What a request wants of the router's choice, within what its policy allows."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_core.auto_models import AUTO_MODELS
from farthing_core.errors import FieldInvalid
from farthing_orchestrator.policy import Policy, RoutingPolicy
from farthing_orchestrator.request import Overrides
from farthing_orchestrator.wanting import Wanted, wanted


def wants(policy: dict[str, Any] | None = None, model: str = "", **overrides: Any) -> Wanted:
    return wanted(RoutingPolicy(**policy or {}), Overrides(**overrides), model=model)


def test_what_matters_most_is_said_by_the_models_name_then_by_the_request_then_by_the_policy() -> None:
    policy = {"optimize_for": "balanced"}
    assert wants(policy).optimize_for == "balanced"
    assert wants(policy, optimize_for="cost").optimize_for == "cost"
    assert wants(policy, "farthing/auto:quality", optimize_for="cost").optimize_for == "quality"
    assert wants(policy, "large", optimize_for="cost").optimize_for == "cost"
    assert wants() == Wanted()


def test_a_request_may_ask_for_more_quality_fewer_calls_and_less_cost_and_never_the_other_way_round() -> None:
    policy = {
        "quality_min": 0.9,
        "quality_reference_model": "large",
        "calls_max": 4,
        "cost_usd_nanos_max": 100,
        "latency_ms_max": 9,
    }
    assert wants(policy) == Wanted("", 0.9, "large", 9, 4, 100)
    tighter = wants(policy, quality_min=0.95, calls_max=2, cost_usd_nanos_max=50, latency_ms_max=90)
    assert tighter == Wanted("", 0.95, "large", 90, 2, 50)
    for field, looser in (
        ("quality_min", {"quality_min": 0.8}),
        ("quality_min", {"quality_min": 0.95, "quality_reference_model": "small"}),
        ("calls_max", {"calls_max": 5}),
        ("cost_usd_nanos_max", {"cost_usd_nanos_max": 101}),
    ):
        with pytest.raises(FieldInvalid) as caught:
            wants(policy, **looser)
        assert caught.value.field == f"overrides.{field}"
        assert "the policy's" in caught.value.problem


def test_without_a_policy_everything_may_be_asked_for() -> None:
    asked = wants(quality_min=0.5, quality_reference_model="small", calls_max=32, cost_usd_nanos_max=10**9)
    assert asked == Wanted("", 0.5, "small", None, 32, 10**9)


def test_answers_are_shared_by_those_who_want_the_same_and_by_nobody_else() -> None:
    keys = [wants(model=name).key for name in AUTO_MODELS]
    assert keys[0] == keys[1] == ""
    assert len(set(keys)) == len(keys) - 1
    assert wants(optimize_for="cost").key == wants(model="farthing/auto:cheap").key
    assert wants(quality_min=0.5).key != wants(quality_min=0.6).key != wants(calls_max=2).key


@pytest.mark.parametrize(
    ("field", "section"),
    [
        ("policy.routing.optimize_for", {"optimize_for": "speed"}),
        ("policy.routing.quality_min", {"quality_min": 1.5}),
        ("policy.routing.calls", {"calls": 3}),
    ],
)
def test_case_28_what_the_policy_cannot_say_is_an_error_by_the_name_of_its_field(field: str, section: dict[str, Any]) -> None:
    with pytest.raises(FieldInvalid) as caught:
        Policy.parse({"routing": section})
    assert caught.value.field == field
