"""How each strategy chooses, what thresholds leave, and what is guessed where nothing is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from farthing_router.catalog import parse_catalog
from farthing_router.routing.advisers import Advisers
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.matching import RuleIndex
from farthing_router.routing.planning import Planner
from farthing_router.routing.ports import Assignment, Choice, Known, Option
from farthing_router.routing.routes import ContextTooLong, NoCandidate, Role, Route, Wish
from farthing_router.routing.rules import Action, Match, Rule, Weights
from farthing_router.routing.strategies import ranked, score
from hypothesis import given
from hypothesis import strategies as st

PRICES = {"tiny": "0.1", "small": "0.5", "medium": "2", "large": "10", "huge": "40"}
QUALITY = {"tiny": 0.4, "small": 0.7, "medium": 0.8, "large": 0.9, "huge": 0.95}
LATENCY_MS = {"tiny": 400, "small": 300, "medium": 900, "large": 2_000, "huge": 8_000}
PROVIDER = {"tiny": "p", "small": "p", "medium": "q", "large": "q", "huge": "p"}
SCOPE = "organizations/acme"
EASY, HARD = "Translate this to French, thanks", "Prove that the square root of 2 is irrational"


class Facts:
    """Speeds and Qualities of what is written down; nothing else is known."""

    def __init__(self, latency_ms: Mapping[str, int] | None = None, quality: Mapping[str, float] | None = None) -> None:
        self.latencies = LATENCY_MS if latency_ms is None else latency_ms
        self.qualities = QUALITY if quality is None else quality
        self.errors: dict[str, float] = {}

    def latency_ms(self, model: str, task: str, *, output_tokens: int) -> int | None:
        return self.latencies.get(model)

    def error_rate(self, model: str) -> float:
        return self.errors.get(model, 0.0)

    def quality(self, model: str, wish: Wish) -> Known | None:
        value = self.qualities.get(model)
        return None if value is None else Known(value, value - 0.1, value + 0.1, 100, "feedback")


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
            "prompt": HARD,
            **fields,
        }
    )


Plan = Any


@pytest.fixture
def plan(book_of: Any) -> Plan:
    """Plans: `await plan(wish(), Action("cheapest"), facts=Facts())`; the action is that of a rule for everything."""

    async def make(asked: Wish, action: Action | None = None, *, facts: Facts | None = None, **others: Any) -> Route:
        routing = others.pop("routing", {"baseline_model": "huge"})
        models = {
            name: {
                "provider": PROVIDER[name],
                "price": {"input_usd_per_million_tokens": usd, "output_usd_per_million_tokens": usd},
                "capabilities": ["json", "tools"] if name in ("medium", "huge") else ["json"],
                "context_window_tokens": 4_000 if name == "tiny" else 128_000,
            }
            for name, usd in PRICES.items()
        }
        models["unpriced"] = {"provider": "q"}
        providers = {name: {"base_url": f"http://{name}", "api_key_optional": True, "retries": 0} for name in "pq"}
        catalog = parse_catalog(
            {"providers": providers, "models": models, "routing": routing}, key_of=lambda _: None, list_price=lambda *_: None
        )
        rules = RuleIndex([] if action is None else [Rule("it", "", Match(), action)])
        known = facts or Facts()
        advisers = Advisers(rules=rules, speeds=known, qualities=known, **others)
        return Planner(catalog, OutputLengths(), advisers=advisers).plan(asked, (await book_of(catalog)).prices("acme"))

    return make


def models(route: Route) -> list[str]:
    return [each.model for each in route.candidates]


def asked(route: Route) -> list[str]:
    return [each.model for each in route.candidates if each.role is not Role.FALLBACK]


@pytest.mark.parametrize(
    ("action", "chosen"),
    [
        (Action("cheapest"), "tiny"),
        (Action("fastest"), "small"),
        (Action("quality"), "huge"),
        (Action("balanced", Weights(1, 0, 0)), "tiny"),
        (Action("balanced", Weights(0, 1, 0)), "small"),
        (Action("balanced", Weights(0, 0, 1)), "huge"),
        (Action("balanced"), "small"),
        (Action("cheapest", models=("large", "huge")), "large"),
        (Action("cheapest", models_denied=("tiny",)), "small"),
        (Action("cheapest", allowed_providers=("q",)), "medium"),
        (Action("cheapest", quality_min=0.75), "medium"),
        (Action("cheapest", quality_min=0.9, quality_reference_model="huge"), "large"),
        (Action("quality", latency_ms_max=1_000), "medium"),
        (Action("quality", cost_usd_nanos_max=12_000_000), "large"),
        (Action("fastest", models_denied=("small", "tiny")), "medium"),
    ],
)
async def test_each_strategy_chooses_what_it_looks_for_within_the_rules_limits(plan: Plan, action: Action, chosen: str) -> None:
    route = await plan(wish(), action)
    assert asked(route) == [chosen]
    assert (route.strategy, route.rule_id, route.rule_version) == (action.strategy, "it", 1)
    assert action.strategy in route.reason


async def test_who_fails_is_stood_in_for_by_the_next_best_of_another_provider(plan: Plan) -> None:
    assert models(await plan(wish(), Action("cheapest"))) == ["tiny", "medium"]
    assert models(await plan(wish(), Action("cheapest", allowed_providers=("p",)))) == ["tiny", "small"]
    written = {"fallbacks": {"tiny": ["huge", "large"]}}
    assert models(await plan(wish(), Action("cheapest"), routing=written)) == ["tiny", "large", "huge"]
    route = await plan(wish(), Action("cheapest", models=("tiny",)), routing=written)
    assert models(route) == ["tiny"]


async def test_what_the_strategy_did_not_need_is_not_predicted_and_what_it_did_is(plan: Plan) -> None:
    cheapest, best = await plan(wish(), Action("cheapest")), await plan(wish(), Action("balanced"))
    assert (cheapest.candidates[0].predicted_quality, cheapest.candidates[0].predicted_latency_ms) == (None, None)
    assert (best.candidates[0].predicted_quality, best.candidates[0].predicted_latency_ms) == (0.7, 300)


async def test_failed_calls_count_as_time(plan: Plan) -> None:
    facts = Facts()
    facts.errors = {"small": 0.5}
    assert asked(await plan(wish(), Action("fastest"), facts=facts)) == ["tiny"]


async def test_a_floor_is_hard_whoever_sets_it(plan: Plan) -> None:
    for given_wish, action in (
        (wish(quality_min=0.99), Action("cheapest")),
        (wish(), Action("cheapest", quality_min=0.99)),
        (wish(quality_min=0.9, quality_reference_model="huge"), Action("cheapest", quality_min=0.99)),
        (wish(quality_min=0.99), Action("cascade")),
    ):
        with pytest.raises(NoCandidate, match=r"large: its quality, 0\.90, is under"):
            await plan(given_wish, action)


async def test_of_two_floors_the_higher_counts_and_the_route_says_it(plan: Plan) -> None:
    route = await plan(wish(quality_min=0.75), Action("cheapest", quality_min=0.9, quality_reference_model="huge"))
    assert asked(route) == ["large"]
    assert route.quality_min == pytest.approx(0.9 * 0.95)


async def test_an_unknown_quality_never_meets_a_floor_but_that_of_the_model_that_it_is_measured_by(plan: Plan) -> None:
    nothing = Facts(quality={})
    # The baseline model of an absolute floor, the reference of a relative one.
    assert models(await plan(wish(), Action("cheapest", quality_min=0.2), facts=nothing)) == ["huge"]
    relative = Action("cheapest", quality_min=0.2, quality_reference_model="large")
    assert models(await plan(wish(), relative, facts=nothing)) == ["large"]
    with pytest.raises(NoCandidate, match="its quality is not known, and there is a floor"):
        await plan(wish(), Action("cheapest", quality_min=0.2, models=("tiny", "small")), facts=nothing)
    # Once something is known of them, that counts.
    with pytest.raises(NoCandidate, match=r"huge: its quality, 0\.10, is under 0\.20"):
        await plan(wish(), Action("cheapest", quality_min=0.2), facts=Facts(quality={"huge": 0.1}))


async def test_a_latency_ceiling_is_soft_and_says_so(plan: Plan) -> None:
    route = await plan(wish(), Action("quality", latency_ms_max=100))
    assert models(route) == ["small"]
    assert "nobody is likely to answer within 100 ms: the fastest is asked" in route.reason
    tighter = await plan(wish(latency_ms_max=350), Action("quality", latency_ms_max=5_000))
    assert asked(tighter) == ["small"]


async def test_a_cost_cap_is_hard_and_the_tightest_counts(plan: Plan) -> None:
    route = await plan(wish(cost_usd_nanos_max=900_000), Action("quality", cost_usd_nanos_max=11_000_000, calls_max=4))
    assert (asked(route), route.cost_usd_nanos_max) == (["small"], 900_000)
    assert route.worst_case_usd_nanos <= 900_000
    for action in (Action("quality"), Action("cascade")):
        with pytest.raises(NoCandidate, match=r"may cost \d+ nanodollars, more than 5"):
            await plan(wish(cost_usd_nanos_max=5), action)
    with pytest.raises(NoCandidate, match="more than 5"):
        await plan(wish(model="huge", cost_usd_nanos_max=5))


async def test_calls_are_capped_by_the_tightest_and_the_cascade_with_them(plan: Plan) -> None:
    steps = Action("cascade", models=("tiny", "small", "medium", "large"), calls_max=3)
    assert (await plan(wish(), steps)).calls_max == 3
    assert asked(await plan(wish(), steps)) == ["tiny", "small", "large"]
    route = await plan(wish(calls_max=2), steps)
    assert (asked(route), route.calls_max) == (["tiny", "large"], 2)
    assert asked(await plan(wish(calls_max=1), steps)) == ["tiny"]


async def test_providers_of_caller_and_rule_must_have_one_in_common(plan: Plan) -> None:
    both = await plan(wish(allowed_providers=frozenset({"q", "x"})), Action("cheapest", allowed_providers=("p", "q")))
    assert models(both) == ["medium", "large"]
    with pytest.raises(NoCandidate, match="no provider is allowed by the caller and by the rule"):
        await plan(wish(allowed_providers=frozenset({"q"})), Action("cheapest", allowed_providers=("p",)))


async def test_a_cascade_goes_through_the_rules_models_in_their_order(plan: Plan) -> None:
    route = await plan(wish(), Action("cascade", models=("small", "tiny", "huge"), accept_confidence=0.9))
    assert (asked(route), route.accept_confidence, route.strategy) == (["small", "tiny", "huge"], 0.9, "cascade")


async def test_a_cascade_under_a_floor_goes_from_the_cheapest_to_the_dearest_that_meet_it(plan: Plan) -> None:
    assert asked(await plan(wish(quality_min=0.75))) == ["medium", "huge"]
    assert asked(await plan(wish(latency_ms_max=1_000))) == ["tiny", "medium"]


async def test_a_cascade_that_the_rule_thins_out_goes_from_the_cheapest_to_the_dearest_that_is_left(plan: Plan) -> None:
    written = {"cascades": [{"steps": ["tiny", "huge"], "accept_confidence": 0.4}]}
    assert asked(await plan(wish(), Action("cascade"), routing=written)) == ["tiny", "huge"]
    assert asked(await plan(wish(), Action("cascade", models_denied=("medium",)), routing=written)) == ["tiny", "huge"]
    assert asked(await plan(wish(), Action("cascade", models_denied=("huge",)), routing=written)) == ["tiny", "large"]
    assert asked(await plan(wish(), Action("cascade", allowed_providers=("q",)), routing=written)) == ["medium", "large"]


@pytest.mark.parametrize(
    ("model", "prompt", "strategy", "chosen"),
    [
        ("", EASY, "cascade", ["tiny", "huge"]),
        ("farthing/auto", HARD, "cascade", ["tiny", "huge"]),
        ("farthing/auto:cheap", EASY, "cheapest", ["tiny"]),
        ("farthing/auto:cheap", HARD, "cascade", ["tiny", "huge"]),
        ("farthing/auto:fast", EASY, "fastest", ["small"]),
        ("farthing/auto:fast", HARD, "balanced", ["small"]),
        ("farthing/auto:quality", EASY, "quality", ["huge"]),
        ("farthing/auto:balanced", EASY, "balanced", ["small"]),
    ],
)
async def test_without_a_rule_what_matters_most_and_complexity_decide(
    plan: Plan, model: str, prompt: str, strategy: str, chosen: list[str]
) -> None:
    route = await plan(wish(model=model, prompt=prompt))
    assert (route.strategy, asked(route), route.rule_id) == (strategy, chosen, "")
    assert route.requested_model == (model or "farthing/auto")
    wanted = {"cheap": "cost", "fast": "latency"}.get(model.rpartition(":")[2], model.partition(":")[2])
    assert (await plan(wish(optimize_for=wanted, prompt=prompt))).strategy == strategy


async def test_the_models_name_counts_before_what_is_asked_for_beside_it(plan: Plan) -> None:
    route = await plan(wish(model="farthing/auto:quality", optimize_for="cost"))
    assert route.strategy == "quality"


async def test_a_rule_leaves_a_named_model_alone(plan: Plan) -> None:
    route = await plan(wish(model="large", quality_min=0.99), Action("cheapest", models_denied=("large",)))
    assert (models(route), route.strategy, route.rule_id) == (["large"], "fixed", "")


class Taught:
    """A learner that always says the same."""

    def __init__(self, choice: Choice | None) -> None:
        self.choice = choice
        self.options: Sequence[Option] = ()
        self.point = -1

    def choose(self, wish: Wish, options: Sequence[Option], *, usd_nanos_per_quality_point: int) -> Choice | None:
        self.options, self.point = options, usd_nanos_per_quality_point
        return self.choice


class Drained:
    """Half of what was said."""

    def usd_nanos_per_quality_point(self, wish: Wish, *, base_usd_nanos: int) -> int:
        return base_usd_nanos // 2


class Broken:
    """Every adviser, out of order."""

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of order")

    assign = choose = in_force = named = usd_nanos_per_quality_point = _fail


async def test_a_learned_rule_takes_what_the_learner_chooses_among_those_that_keep_the_limits(plan: Plan) -> None:
    learned = Taught(Choice("large", "explores large"))
    action = Action("learned", quality_min=0.75, usd_nanos_per_quality_point=90)
    route = await plan(wish(), action, learned=learned, pacing=Drained())
    assert (asked(route), route.strategy, route.usd_nanos_per_quality_point) == (["large"], "learned", 45)
    assert "explores large" in route.reason
    assert [each.model for each in learned.options] == ["medium", "large", "huge"]
    assert learned.point == 45
    assert [each.baseline for each in learned.options] == [False, False, True]


@pytest.mark.parametrize("learned", [None, Taught(None), Taught(Choice("tiny", "is under the floor")), Broken()])
async def test_where_nobody_has_learned_anything_the_choice_is_balanced_and_says_so(plan: Plan, learned: Any) -> None:
    route = await plan(wish(), Action("learned", quality_min=0.5), learned=learned)
    assert asked(route) == ["small"]
    assert "balanced" in route.reason


async def test_advisers_that_fail_are_as_if_they_were_not_there(plan: Plan) -> None:
    broken = Broken()
    usual = await plan(wish(), Action("cascade"))
    assert await plan(wish(), Action("cascade"), assignments=broken, calibrations=broken, pacing=broken) == usual


class Arms:
    """An experiment that everybody takes part in."""

    def __init__(self, **fields: Any) -> None:
        self.assignment = Assignment("x1", "b", **fields)

    def assign(self, wish: Wish) -> Assignment | None:
        return self.assignment


async def test_an_experiments_arm_decides_instead_of_the_rule(plan: Plan) -> None:
    rule = Action("cheapest")
    model = await plan(wish(), rule, assignments=Arms(model="large"))
    assert (asked(model), model.strategy, model.experiment_id, model.arm, model.rule_id) == (["large"], "fixed", "x1", "b", "")
    action = await plan(wish(), rule, assignments=Arms(action=Action("quality")))
    assert (asked(action), action.strategy, action.experiment_id) == (["huge"], "quality", "x1")
    as_usual = await plan(wish(), rule, assignments=Arms())
    assert (asked(as_usual), as_usual.rule_id, as_usual.experiment_id, as_usual.arm) == (["tiny"], "it", "x1", "b")
    named = await plan(wish(model="medium"), rule, assignments=Arms(model="large"))
    assert (asked(named), named.experiment_id) == (["medium"], "")


async def test_an_arm_that_cannot_serve_a_request_takes_no_part(plan: Plan) -> None:
    arms = Arms(model="large")
    route = await plan(wish(needs=frozenset({"tools"})), Action("cheapest"), assignments=arms)
    assert (asked(route), route.experiment_id) == (["medium"], "")
    assert "takes no part" in route.reason
    route = await plan(wish(), Action("cheapest"), assignments=Arms(model="gone"))
    assert (asked(route), route.experiment_id) == (["tiny"], "")


async def test_nothing_known_is_neither_zero_nor_perfect(plan: Plan) -> None:
    nothing = Facts({}, {})
    assert asked(await plan(wish(), Action("quality"), facts=nothing)) == ["huge"]
    assert asked(await plan(wish(), Action("fastest"), facts=nothing)) == ["tiny"]
    # A model that is known to be good is better than a guess, a dearer one than what a cheaper one is known to reach.
    assert asked(await plan(wish(), Action("quality"), facts=Facts({}, {"large": 0.93, "huge": 0.9}))) == ["large"]
    assert asked(await plan(wish(), Action("quality"), facts=Facts({}, {"small": 0.93}))) == ["huge"]
    # A cheaper one is not guessed to be better than a dearer one is known to be.
    low = await plan(wish(), Action("quality"), facts=Facts({}, {"huge": 0.55}))
    assert low.candidates[0].predicted_quality == 0.55
    # An unknown latency is a slow one.
    assert asked(await plan(wish(), Action("fastest"), facts=Facts({"huge": 1_900}, {}))) == ["huge"]


def option(model: str, cost: int, latency_ms: int, quality: float) -> Option:
    return Option(model, "p", cost, latency_ms, True, quality, "feedback", 10)


def test_half_the_price_half_the_time_and_ten_points_of_quality_are_worth_the_same() -> None:
    weights = Weights()
    usual = score(option("a", 1_000_000, 1_000, 0.7), weights)
    for other in (option("b", 2_000_000, 500, 0.7), option("c", 2_000_000, 1_000, 0.8), option("d", 1_000_000, 2_000, 0.8)):
        assert score(other, weights) == pytest.approx(usual)


def test_a_model_that_costs_nothing_is_not_infinitely_good() -> None:
    free, good = option("free", 0, 1_000, 0.2), option("good", 2_000, 1_000, 0.9)
    assert [each.model for each in ranked([free, good], "balanced")] == ["good", "free"]


figures = st.tuples(st.integers(0, 10**10), st.integers(1, 10**6), st.floats(0, 1))


@given(st.lists(figures, min_size=2, max_size=6), st.sampled_from(["cheapest", "fastest", "quality", "balanced"]))
def test_who_else_is_there_does_not_change_the_order_of_two(drawn: list[tuple[int, int, float]], strategy: str) -> None:
    everybody = [option(f"m{number}", *each) for number, each in enumerate(drawn)]
    order = [each.model for each in ranked(everybody, strategy)]
    fewer = [each.model for each in ranked(everybody[1:], strategy)]
    assert fewer == [name for name in order if name != "m0"]


async def test_no_constraint_is_ever_left_by_anybody_who_is_planned(plan: Plan) -> None:
    """Every candidate, whatever its part, is within every hard limit; over a ceiling only where nobody is under it."""
    rng, planned = Random(7), 0
    everybody = sorted(PRICES)
    for _ in range(600):
        known = {name: rng.random() for name in everybody if rng.random() < 0.7}
        fast = {name: rng.randint(1, 5_000) for name in everybody if rng.random() < 0.8}
        action = Action(
            rng.choice(("cascade", "cheapest", "fastest", "balanced", "quality", "learned")),
            models=tuple(rng.sample(everybody, rng.choice((0, 0, 3)))),
            models_denied=tuple(rng.sample(everybody, rng.choice((0, 0, 2)))),
            allowed_providers=tuple(rng.choice(((), (), ("p",), ("q",), ("p", "q")))),
            quality_min=rng.choice((None, None, 0.3, 0.6)),
            latency_ms_max=rng.choice((None, None, 1_000)),
            calls_max=rng.choice((0, 2, 3)),
            cost_usd_nanos_max=rng.choice((0, 0, 3_000_000)),
        )
        given_wish = wish(
            needs=rng.choice((frozenset[str](), frozenset({"tools"}))),
            quality_min=rng.choice((None, None, 0.5)),
            input_tokens={"o200k": rng.choice((10, 3_950))},
        )
        try:
            route = await plan(given_wish, action, facts=Facts(fast, known))
        except (NoCandidate, ContextTooLong):
            continue
        planned += 1
        for each in route.candidates:
            assert not action.models or each.model in action.models
            assert each.model not in action.models_denied
            assert not action.allowed_providers or each.provider in action.allowed_providers
            for floor in (action.quality_min, given_wish.quality_min):
                assert floor is None or known.get(each.model, floor if each.model == "huge" else -1.0) >= floor
            assert not action.cost_usd_nanos_max or each.worst_case_usd_nanos <= action.cost_usd_nanos_max
            assert not given_wish.needs or each.model in ("medium", "huge")
            assert each.model != "tiny" or given_wish.input_tokens["o200k"] == 10
            late = action.latency_ms_max is not None and fast.get(each.model, 10**6) > action.latency_ms_max
            assert not late or each.model not in fast or "the fastest is asked" in route.reason
        assert len(asked(route)) <= route.calls_max <= (action.calls_max or 32)
    assert planned > 200


async def test_more_limits_never_bring_in_anybody_whom_fewer_had_left_out(plan: Plan) -> None:
    loose = Action("quality", models_denied=("huge",), quality_min=0.6)
    for tighter in (
        replace(loose, allowed_providers=("q",)),
        replace(loose, quality_min=0.85),
        replace(loose, models=("small", "medium")),
        replace(loose, cost_usd_nanos_max=3_000_000),
    ):
        allowed = {"small", "medium", "large"}
        assert set(models(await plan(wish(), tighter))) <= allowed
