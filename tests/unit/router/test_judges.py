"""What is done after each answer of a route, with and without a fitted policy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from farthing_router.calibration.examples import Example, ExampleAnswer, example
from farthing_router.calibration.fitting import FitSpec, fit
from farthing_router.calibration.policy import FittedPolicy, Guarantee
from farthing_router.judging.structures import asked
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.errands import Attempt, AttemptOutcome, Bought, Errand
from farthing_router.routing.judges import ByPolicy, Judges, Untrained, as_read
from farthing_router.routing.ports import InForce
from farthing_router.routing.routes import Candidate, Role, Route
from farthing_router.upstreams import UpstreamAnswer

EASY, HARD = "What is 7 + 5?", "What is 7 + 5123?"


def world(count: int) -> list[Example]:
    """Sums that small models get wrong where a number is large, and then disagree."""
    chance = random.Random(3)
    made = []
    for number in range(count):
        hard = chance.random() < 0.5
        right = 7 + (chance.randrange(1000, 9999) if hard else chance.randrange(1, 10))

        def said(skill: float, nanos: int, right: int = right) -> ExampleAnswer:
            good = chance.random() < skill
            value = right if good else right + chance.randrange(1, 50)
            return ExampleAnswer(text=f"The answer is {value}", score=float(good), cost_usd_nanos=nanos)

        answers = {"small": said(0.2 if hard else 0.99, 40), "other": said(0.2 if hard else 0.99, 60), "big": said(0.99, 1000)}
        made.append(example(f"What is 7 + {right - 7}? ({number})", answers))
    return made


@pytest.fixture(scope="module")
def policy() -> FittedPolicy:
    return fit(world(150), FitSpec(opening=("small", "other"), strong=("big",), saving_min=0.3), seed=1).policy


@pytest.fixture(scope="module")
def query_only() -> FittedPolicy:
    return fit(world(150), FitSpec(opening=("small",), strong=("big",), saving_min=0.3, query_only=True), seed=1).policy


def candidate(model: str, role: Role, **values: Any) -> Candidate:
    return replace(Candidate(model, role, "p", model, 10, 100, 50, 1_000, 500), **values)


STEPS = (candidate("small", Role.FIRST), candidate("other", Role.PEER), candidate("big", Role.ESCALATION))


def errand(*candidates: Candidate, **values: Any) -> Errand:
    facts = {name: values.pop(name) for name in ("usd_nanos_per_quality_point", "calibration_id") if name in values}
    route = Route(candidates or STEPS, "cascade", "", 9, 5, 99, 4, 0.7, **facts)
    given = {"prices": None, "conversation": None, "parameters": None, "task": "", "request_id": "r", "wants_json": False}
    return Errand(
        route=route, **{**given, "service_tier": "", "ends_at_s": 9.0, "calls_left": 4, "scope": "organizations/a", **values}
    )


def buy(one: Errand, model: str, text: str, *, finish: str = "stop", extra_json: str = "", cost: int = 40) -> Bought:
    asked_for = next(each for each in one.route.candidates if each.model == model)
    attempt = Attempt(model, "p", model, AttemptOutcome.REJECTED, "", None, Tokens(10, output_tokens=5), cost, 1)
    bought = Bought(asked_for, UpstreamAnswer(text, extra_json, finish, "", None), attempt)
    one.bought.append(bought)
    one.tried.add(model)
    return bought


def models(candidates: Sequence[Candidate]) -> list[str]:
    return [each.model for each in candidates]


def test_a_policy_serves_what_is_good_enough_and_says_what_a_dearer_answer_would_gain(policy: FittedPolicy) -> None:
    one = errand()
    judge = ByPolicy(one, policy, prompt=EASY)
    assert models(judge.opening()) == ["small", "other"]
    small, other = buy(one, "small", "The answer is 12"), buy(one, "other", "The answer is 12")
    ruling, decision = judge.rule(), policy.decide(EASY, {"small": as_read(small), "other": as_read(other)})
    assert ruling.served is {"small": small, "other": other}[str(decision.chosen)]
    assert ruling.served.opinion is not None
    assert (ruling.served.opinion.gain, ruling.served.opinion.confidence) == (decision.gain, decision.confidence)
    assert ruling.served.opinion.confidence > 0.8


def test_a_policy_goes_on_to_the_strong_model_where_the_gain_is_worth_it(policy: FittedPolicy) -> None:
    one = errand()
    judge = ByPolicy(one, policy, prompt=HARD)
    buy(one, "small", "The answer is 5160")
    buy(one, "other", "The answer is 5133")
    ruling = judge.rule()
    assert ruling.served is None
    assert models(ruling.last) == ["big"]
    assert ruling.reason == "the gain is worth its price"


def test_one_opening_answer_is_enough_for_a_policy_and_none_means_the_strong_model(policy: FittedPolicy) -> None:
    one = errand()
    judge = ByPolicy(one, policy, prompt=EASY)
    one.tried.update(("small", "other"))
    assert models(judge.rule().last) == ["big"]
    other = buy(one, "other", "The answer is 12")
    ruling = judge.rule()
    assert ruling.served is other or models(ruling.last) == ["big"]
    assert other.opinion is not None


def test_a_strong_model_that_failed_is_not_asked_again(policy: FittedPolicy) -> None:
    one = errand()
    judge = ByPolicy(one, policy, prompt=HARD)
    buy(one, "small", "The answer is 5160")
    buy(one, "other", "The answer is 5133")
    one.tried.add("big")
    assert judge.rule().last == []


def test_the_price_of_a_point_holds_a_policy_back_unless_it_keeps_a_promise(policy: FittedPolicy) -> None:
    def ruled(by: FittedPolicy, point: int) -> Any:
        one = errand(usd_nanos_per_quality_point=point)
        judge = ByPolicy(one, by, prompt=HARD)
        buy(one, "small", "The answer is 5160")
        buy(one, "other", "The answer is 5133")
        return judge.rule()

    assert models(ruled(policy, 0).last) == ["big"]
    assert models(ruled(policy, 10**6).last) == ["big"]
    held = ruled(policy, 1)
    assert held.served is not None
    assert held.reason == "the gain is not worth its price now"
    promised = replace(policy, guarantee=Guarantee(0.98, 0.95, 0.99))
    assert models(ruled(promised, 1).last) == ["big"]


def test_an_answer_without_the_form_that_was_asked_for_counts_as_none(policy: FittedPolicy) -> None:
    one = errand(asked=asked('{"type": "json_object"}', ""))
    judge = ByPolicy(one, policy, prompt=EASY)
    small, other = buy(one, "small", "The answer is 12"), buy(one, "other", "The answer is 12")
    assert models(judge.rule().last) == ["big"]
    assert small.opinion is not None
    assert other.opinion is not None
    assert small.opinion.reason == "not the JSON that was asked for"


def test_a_policy_that_decides_by_the_prompt_buys_one_answer(query_only: FittedPolicy) -> None:
    steps = (candidate("small", Role.FIRST), candidate("big", Role.ESCALATION))
    easy, hard = (ByPolicy(errand(*steps), query_only, prompt=f"{prompt} (1)") for prompt in (EASY, HARD))
    assert easy.opening() == hard.opening() == ()
    assert models(easy.rule().last) == ["small", "big"]
    assert models(hard.rule().last) == ["big", "small"]


class Known:
    def __init__(self, policy: FittedPolicy) -> None:
        self.policy = policy

    def in_force(self, scope: str, task: str) -> InForce | None:
        return None

    def named(self, scope: str, calibration_id: str) -> InForce | None:
        return InForce(calibration_id, self.policy) if calibration_id == "c1" else None


def test_a_route_is_judged_by_its_calibration_if_that_is_known_and_about_its_models(policy: FittedPolicy) -> None:
    judges = Judges(Known(policy), prompt_of=lambda conversation: EASY)
    assert isinstance(judges.judge(errand(calibration_id="c1")), ByPolicy)
    assert isinstance(judges.judge(errand(calibration_id="c2")), Untrained)
    assert isinstance(judges.judge(errand()), Untrained)
    assert isinstance(judges.judge(errand(*STEPS[:2], calibration_id="c1")), Untrained)


def test_untrained_the_cheapest_good_answer_is_served_and_a_bad_one_asks_on() -> None:
    steps = (candidate("small", Role.FIRST), candidate("middle", Role.ESCALATION), candidate("big", Role.ESCALATION))
    one = errand(*steps)
    judge = Untrained(one)
    assert models(judge.opening()) == ["small"]
    buy(one, "small", "I'm not sure.")
    asks = judge.rule()
    assert asks.ask is not None
    assert (asks.ask.model, asks.reason) == ("middle", "hedges")
    buy(one, "middle", "Open Settings and press the green button.", cost=90)
    served = judge.rule()
    assert served.served is one.bought[1]


def test_untrained_a_dearer_answer_that_would_be_cut_off_too_is_not_bought() -> None:
    one = errand(candidate("small", Role.FIRST), candidate("big", Role.ESCALATION))
    cut = buy(one, "small", "It begins well but", finish="length")
    ruling = Untrained(one).rule()
    assert ruling.served is cut
    assert ruling.reason == "cut off at a limit that holds for a dearer model, too"
    roomy = errand(candidate("small", Role.FIRST), candidate("big", Role.ESCALATION, output_tokens_max=500))
    buy(roomy, "small", "It begins well but", finish="length")
    assert models(Untrained(roomy).rule().last) == ["big"]


def test_untrained_a_dearer_answer_must_be_worth_its_price_where_a_point_of_quality_has_one() -> None:
    def ruled(point: int) -> Any:
        one = errand(candidate("small", Role.FIRST), candidate("big", Role.ESCALATION), usd_nanos_per_quality_point=point)
        buy(one, "small", "I'm not sure.")
        return Untrained(one).rule()

    assert models(ruled(0).last) == ["big"]
    assert models(ruled(100).last) == ["big"]
    assert ruled(1).served is not None
    assert ruled(1).reason == "a dearer answer is not worth its price"


def test_of_a_calibrations_dear_models_one_answer_is_bought_whatever_form_it_has(policy: FittedPolicy) -> None:
    steps = (*STEPS, candidate("bigger", Role.ESCALATION))
    one = errand(*steps, calibration_id="c", asked=asked('{"type":"json_object"}', ""))
    judge = ByPolicy(one, replace(policy, strong=("big", "bigger")), prompt=HARD)
    small = buy(one, "small", '{"sum": 5160}')
    buy(one, "other", '{"sum": 5133}')
    assert models(judge.rule().last) == ["big", "bigger"]
    buy(one, "big", "I would rather say it in prose: 5130")
    ruling = judge.rule()
    assert (ruling.ask, ruling.last) == (None, ())
    assert ruling.served is not None
    assert ruling.served.answer.content.startswith("{")
    assert small in one.bought


def test_who_judges_in_a_policys_place_buys_no_more_dear_answers_than_it_would_have() -> None:
    one = errand(*STEPS, candidate("bigger", Role.ESCALATION), calibration_id="gone")
    judge = Judges(None, prompt_of=lambda conversation: "").judge(one)
    buy(one, "small", "I'm not sure.")
    buy(one, "other", "")
    ruling = judge.rule()
    assert (ruling.ask, models(ruling.last)) == (None, ["big", "bigger"])
