"""Routes by calibrations, Batch APIs and for comparison, and what an explanation says of each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from farthing_router.calibration.policy import Drift, FittedPolicy, Guarantee
from farthing_router.catalog import Catalog, parse_catalog
from farthing_router.routing.advisers import Advisers
from farthing_router.routing.explaining import explain
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.matching import RuleIndex
from farthing_router.routing.planning import Planner
from farthing_router.routing.ports import Assignment, InForce, Known
from farthing_router.routing.routes import NoCandidate, Role, Route, Wish
from farthing_router.routing.rules import Action, Match, Rule

DAY_MS = 86_400_000


def catalog() -> Catalog:
    def price(usd: str, batch: str) -> dict[str, Any]:
        rates = {"input_usd_per_million_tokens": usd, "output_usd_per_million_tokens": usd}
        return {**rates, "service_tiers": {"batch": dict.fromkeys(rates, batch)}}

    def model(provider: str, usd: str, batch: str, turnaround_s: int) -> dict[str, Any]:
        places = [{"provider": provider, "name": f"{provider}-{usd}"}]
        places.append({"provider": provider, "name": f"{provider}-{usd}-batch", "batch": {"turnaround_s": turnaround_s}})
        return {"deployments": places, "price": price(usd, batch), "capabilities": ["json"]}

    providers = {name: {"base_url": f"http://{name}", "api_key_optional": True, "retries": 0} for name in "pq"}
    models = {
        "tiny": model("p", "1", "0.5", 3_600),
        "small": model("q", "2", "1", 3_600),
        "strong": model("p", "10", "5", 86_400),
        "dear": model("q", "20", "40", 60),
    }
    routing = {"baseline_model": "strong", "cascades": [{"steps": ["tiny", "strong"], "calls_max": 5}]}
    return parse_catalog(
        {"providers": providers, "models": models, "routing": routing}, key_of=lambda _: None, list_price=lambda *_: None
    )


def wish(**fields: Any) -> Wish:
    return Wish(
        **{
            "model": "",
            "task": "chat",
            "tier": "",
            "needs": frozenset(),
            "images": 0,
            "input_tokens": {"o200k": 1_000},
            "bytes_bound": 4_000,
            "output_tokens_max": 100,
            "allowed_providers": frozenset(),
            "open_models_only": False,
            "baseline_model": "",
            "baseline_input_tokens": {},
            "scope": "organizations/acme",
            "prompt": "Prove it",
            **fields,
        }
    )


def fitted(*opening: str, strong: tuple[str, ...] = ("strong",), guaranteed: float | None = None) -> FittedPolicy:
    return FittedPolicy(
        opening=opening,
        strong=strong,
        stages={},
        choosers={},
        threshold=0.1,
        price_weight=1.0,
        typical_cost_usd_nanos={},
        examples=1_000,
        drift=Drift(),
        guarantee=Guarantee(guaranteed, 0.95, guaranteed) if guaranteed else None,
    )


class Calibrated:
    """Calibrations in force, for chat alone, and one more that is not."""

    def __init__(self, policy: FittedPolicy) -> None:
        self.policy = policy

    def in_force(self, scope: str, task: str) -> InForce | None:
        return InForce("c1", self.policy) if task == "chat" else None

    def named(self, scope: str, calibration_id: str) -> InForce | None:
        return InForce("c2", fitted("small")) if calibration_id == "c2" else None


@pytest.fixture
def planned(book_of: Any) -> Any:
    """Makes a planner and prices: `planner, prices = await planned(action, calibrations=…)`."""

    async def make(action: Action | None = None, **advisers: Any) -> Any:
        found = catalog()
        rules = RuleIndex([] if action is None else [Rule("it", "", Match(), action, display_name="the rule")])
        planner = Planner(found, OutputLengths(), advisers=Advisers(rules=rules, **advisers))
        return planner, (await book_of(found)).prices("acme")

    return make


def asked(route: Route) -> list[tuple[str, Role, str]]:
    return [(each.model, each.role, each.service_tier) for each in route.candidates]


async def test_a_cascade_goes_by_the_calibration_in_force_and_holds_for_one_strong_answer(planned: Any) -> None:
    planner, prices = await planned(calibrations=Calibrated(fitted("tiny", "small", strong=("strong", "dear"))))
    route = planner.plan(wish(), prices)
    assert (route.strategy, route.calibration_id, route.calls_max) == ("calibrated", "c1", 5)
    assert asked(route) == [
        ("tiny", Role.FIRST, ""),
        ("small", Role.PEER, ""),
        ("strong", Role.ESCALATION, ""),
        ("dear", Role.ESCALATION, ""),
    ]
    tiny, small, _, dear = (each.worst_case_usd_nanos for each in route.candidates)
    assert route.worst_case_usd_nanos == tiny + small + dear + dear  # the last: a call that is lost
    assert route.likely_usd_nanos == sum(each.likely_usd_nanos for each in route.candidates[:2])
    other = planner.plan(wish(task="other"), prices)
    assert (other.strategy, other.calibration_id) == ("cascade", "")


@pytest.mark.parametrize(
    ("action", "strategy"),
    [
        (Action("cascade"), "calibrated"),
        (Action("cascade", models_denied=("dear",)), "calibrated"),
        (Action("cascade", models_denied=("tiny",)), "cascade"),
        (Action("cascade", models=("tiny", "dear")), "cascade"),
        (Action("cascade", quality_min=0.9, quality_reference_model="strong"), "calibrated"),
        (Action("cascade", quality_min=0.99, quality_reference_model="strong"), "cascade"),
        (Action("quality"), "quality"),
    ],
)
async def test_a_calibration_is_used_where_the_rule_leaves_its_models_and_its_promise_keeps_the_floor(
    planned: Any, action: Action, strategy: str
) -> None:
    planner, prices = await planned(action, calibrations=Calibrated(fitted("tiny", guaranteed=0.95)))
    route = planner.plan(wish(), prices)
    assert route.strategy == strategy
    assert bool(route.calibration_id) == (strategy == "calibrated")


class Everybody:
    """An experiment whose arm everybody is in."""

    def __init__(self, **fields: Any) -> None:
        self.assignment = Assignment("x1", "b", **fields)

    def assign(self, wish: Wish) -> Assignment | None:
        return self.assignment


async def test_an_arm_may_be_another_calibration(planned: Any) -> None:
    calibrations = Calibrated(fitted("tiny"))
    planner, prices = await planned(calibrations=calibrations, assignments=Everybody(calibration_id="c2"))
    route = planner.plan(wish(), prices)
    assert (route.calibration_id, route.experiment_id, route.candidates[0].model) == ("c2", "x1", "small")
    planner, prices = await planned(calibrations=calibrations, assignments=Everybody(calibration_id="gone"))
    route = planner.plan(wish(), prices)
    assert (route.strategy, route.calibration_id) == ("cascade", "")
    assert "calibration gone is not at hand" in route.reason


class Compared:
    """Somebody who wants answers for comparison."""

    def __init__(self, *wanted: Assignment) -> None:
        self.wanted = wanted

    def shadows(self, wish: Wish, route: Route) -> Sequence[Assignment]:
        return self.wanted


async def test_what_is_to_be_compared_is_planned_beside_and_what_cannot_be_is_left_out(planned: Any) -> None:
    drift = Assignment("", "", model="strong", calibration_id="c1", cause="drift")
    arm = Assignment("x1", "b", action=Action("cheapest"))
    planner, prices = await planned(shadowing=(Compared(drift, Assignment("x1", "c", model="gone")), Compared(arm)))
    asked_for = wish()
    found = planner.shadows(asked_for, planner.plan(asked_for, prices), prices)
    assert [(route.candidates[0].model, cause) for route, cause in found] == [("strong", "drift"), ("tiny", "experiment")]
    assert [(route.calibration_id, route.experiment_id, route.arm) for route, _ in found] == [("c1", "", ""), ("", "x1", "b")]


async def test_who_can_wait_buys_from_a_batch_api_where_that_is_cheaper_and_the_live_model_stands_in(planned: Any) -> None:
    planner, prices = await planned(Action("cheapest", models=("tiny",)))
    live, batch = planner.plan(wish(timeout_ms=3_599_999), prices), planner.plan(wish(timeout_ms=3_600_000), prices)
    assert asked(live) == [("tiny", Role.FIRST, "")]
    assert asked(batch) == [("tiny", Role.FIRST, "batch"), ("tiny", Role.FALLBACK, "")]
    first, spare = batch.candidates
    assert (first.likely_usd_nanos, first.worst_case_usd_nanos) == (1_100 * 500, 1_200 * 500)
    assert first.deployment == "p-1-batch"
    assert spare == replace(live.candidates[0], role=Role.FALLBACK)
    # The batch may be lost and charged, and the live model asked.
    assert batch.calls_max == 2
    assert batch.worst_case_usd_nanos == spare.worst_case_usd_nanos + spare.worst_case_usd_nanos
    assert batch.likely_usd_nanos == first.likely_usd_nanos


async def test_no_batch_is_bought_that_is_dearer_or_comes_too_late_for_a_cascade(planned: Any) -> None:
    planner, prices = await planned(Action("cheapest", models=("dear",)))
    assert asked(planner.plan(wish(timeout_ms=DAY_MS), prices)) == [("dear", Role.FIRST, "")]
    planner, prices = await planned(Action("cascade", models=("tiny", "strong")))
    assert [tier for _, _, tier in asked(planner.plan(wish(timeout_ms=DAY_MS), prices))] == ["batch", ""]
    tiers = asked(planner.plan(wish(timeout_ms=2 * DAY_MS), prices))
    assert tiers == [("tiny", Role.FIRST, "batch"), ("strong", Role.ESCALATION, "batch"), ("strong", Role.FALLBACK, "")]
    assert [tier for _, _, tier in asked(planner.plan(wish(timeout_ms=DAY_MS, service_tier="flex"), prices))] == ["", ""]


class Good:
    """Qualities of the strong model alone."""

    def quality(self, model: str, wish: Wish) -> Known | None:
        return Known(0.9, 0.8, 1.0, 50, "feedback") if model == "strong" else None


async def test_an_explanation_has_every_model_with_what_speaks_for_or_against_it(planned: Any) -> None:
    planner, prices = await planned(Action("quality", models_denied=("dear",)), qualities=Good())
    said = explain(planner, wish(), prices)
    assert said.route == planner.plan(wish(), prices)
    assert said.rule is not None
    assert (said.rule.rule_id, said.complexity_reasons[0]) == ("it", "proof")
    rows = {each.model: each for each in said.considerations}
    assert [each.model for each in said.considerations] == ["strong", "small", "dear", "tiny"]
    assert [rows[name].reason for name in ("strong", "small", "dear", "tiny")] == [
        "is asked first",
        "is asked only when the ones before it failed",
        "the rule denies it",
        "place 3 of 3 by quality",
    ]
    assert (rows["strong"].predicted_quality, rows["strong"].quality_source) == (0.9, "feedback")
    assert rows["tiny"].quality_source == "prior"
    assert rows["tiny"].likely_usd_nanos == 1_100 * 1_000
    assert said.reason.startswith("strong → small: quality; rule the rule")


async def test_an_explanation_says_why_nobody_serves_a_request(planned: Any) -> None:
    planner, prices = await planned(Action("cheapest", quality_min=0.95), qualities=Good())
    with pytest.raises(NoCandidate):
        planner.plan(wish(), prices)
    said = explain(planner, wish(), prices)
    assert said.route is None
    assert "strong: its quality, 0.90, is under 0.95" in said.reason
    assert {each.model: each.reason for each in said.considerations}["tiny"] == "its quality is not known, and there is a floor"
    assert not any(each.chosen for each in said.considerations)
