"""Experiments: who belongs to which arm, what is counted, and when that is enough to stop, to grow or to conclude."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.experiments.observing import Counts
from farthing_router.experiments.sharing import place_of, serving_arm, shadowing_arms
from farthing_router.experiments.tallies import SUMS, Outcome, Tally, added
from farthing_router.experiments.terms import Arm, Experiment, Kind, Metric, Standing, State
from farthing_router.experiments.verdicts import standings, verdict
from farthing_router.routing.errands import Attempt, AttemptOutcome, Errand, Finished, Served
from farthing_router.routing.routes import Route, Wish

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SCOPE = "organizations/acme/workspaces/search"
STEPS = (0.01, 0.05, 0.2, 0.5, 1.0)


def experiment(kind: Kind = Kind.AB, **changes: Any) -> Experiment:
    """An experiment between the usual and a model."""
    canary, shadow = kind is Kind.CANARY, kind is Kind.SHADOW
    fields: dict[str, Any] = {
        "experiment_id": str(uuid.UUID(int=7)),
        "scope": SCOPE,
        "task": "",
        "display_name": "",
        "kind": kind,
        "arms": (
            Arm("usual", share=0.0 if canary or shadow else 0.5),
            Arm("new", model="new", share=0.0 if canary else 0.5),
        ),
        "metric": Metric.ERROR_RATE,
        "harm_max": 0.02,
        "confidence": 0.95,
        "requests_max": 100_000,
        "end_at": None,
        "sticky": "user",
        "canary_shares": STEPS if canary else (),
        "created_at": NOW,
    }
    return Experiment(**{**fields, **changes})


def wish(user: int, *, request: int = 1, **changes: Any) -> Wish:
    """What a user asks."""
    fields: dict[str, Any] = {
        "model": "",
        "task": "chat",
        "tier": "",
        "needs": frozenset(),
        "images": 0,
        "input_tokens": {},
        "bytes_bound": 10,
        "output_tokens_max": None,
        "allowed_providers": frozenset(),
        "open_models_only": False,
        "baseline_model": "",
        "baseline_input_tokens": {},
        "scope": f"{SCOPE}/projects/p/users/u{user}",
        "request_id": str(uuid.UUID(int=request)),
    }
    return Wish(**{**fields, **changes})


def arms_of(given: Experiment, users: int = 4_000) -> list[int | None]:
    """The arm of each user."""
    return [serving_arm(given, place_of(given, wish(user))) for user in range(users)]


def tally(outcomes: list[Outcome], scores: tuple[float, ...] = ()) -> Tally:
    """The sums over outcomes and qualities."""
    total = Tally()
    for outcome in outcomes:
        total.take(outcome)
    for score in scores:
        total.take_score(score)
    return total


def outcomes(rng: Random, count: int, *, fails: float = 0.0, cost: int = 1_000, latency_us: int = 500_000) -> list[Outcome]:
    """Requests that ended in all kinds of ways."""
    made = []
    for _ in range(count):
        failed, size = rng.random() < fails, rng.lognormvariate(0, 0.5)
        made.append(Outcome(failed, round(cost * size), None if failed else round(latency_us * rng.lognormvariate(0, 0.3))))
    return made


def seen(given: Experiment, first: Tally, other: Tally, *, step: int = 0) -> Mapping[tuple[int, str], Tally]:
    """What came of both arms in a step."""
    return {(step, given.arms[0].name): first, (step, given.arms[1].name): other}


def test_users_stay_with_their_arm_and_arms_get_their_share() -> None:
    given = experiment()
    given = replace(given, arms=(replace(given.arms[0], share=0.3), replace(given.arms[1], share=0.2)))
    arms = arms_of(given)
    assert arms == arms_of(given)
    assert arms.count(0) == pytest.approx(1_200, abs=120)
    assert arms.count(1) == pytest.approx(800, abs=100)
    assert None in arms


def test_two_experiments_split_users_independently() -> None:
    one, other = arms_of(experiment()), arms_of(experiment(experiment_id=str(uuid.UUID(int=8))))
    both = sum(mine == its == 1 for mine, its in zip(one, other, strict=True))
    assert both == pytest.approx(1_000, abs=120)


def test_a_canary_that_grows_keeps_everybody_it_has() -> None:
    given, before = experiment(Kind.CANARY), set[int]()
    for step, share in enumerate(STEPS):
        grown = replace(given, standing=Standing(step=step))
        members = {user for user, arm in enumerate(arms_of(grown)) if arm == 1}
        assert before <= members
        assert len(members) == pytest.approx(4_000 * share, abs=130)
        before = members


@pytest.mark.parametrize(("sticky", "moves"), [("user", False), ("session", False), ("request", True)])
def test_what_requests_stick_to_decides_what_keeps_its_arm(sticky: Any, moves: bool) -> None:
    given = experiment(sticky=sticky)
    places = {place_of(given, wish(1, request=request, session="s")) for request in range(1, 30)}
    assert (len(places) > 1) == moves
    sessions = {place_of(given, wish(1, session=f"s{number}")) for number in range(30)}
    assert (len(sessions) > 1) == (sticky == "session")


@pytest.mark.parametrize("sticky", ["user", "session"])
def test_requests_of_a_scope_without_users_are_split_one_by_one_or_by_session(sticky: Any) -> None:
    given, project = experiment(sticky=sticky), f"{SCOPE}/projects/p"
    alone = [serving_arm(given, place_of(given, replace(wish(1, request=each), scope=project))) for each in range(1, 2_001)]
    assert alone.count(1) == pytest.approx(1_000, abs=120)
    together = {place_of(given, replace(wish(1, request=each, session="s"), scope=project)) for each in range(1, 30)}
    assert len(together) == 1


def test_a_shadow_serves_everybody_with_the_first_arm_and_asks_the_others_on_their_share() -> None:
    given = experiment(Kind.SHADOW, sticky="request")
    given = replace(given, arms=(*given.arms, Arm("third", model="third", share=0.1)))
    beside = [shadowing_arms(given, place_of(given, wish(1, request=number))) for number in range(1, 4_001)]
    assert serving_arm(given, 0.99) == 0
    assert sum(1 in arms for arms in beside) == pytest.approx(2_000, abs=130)
    assert all(1 in arms for arms in beside if 2 in arms)


def test_an_arm_that_fails_is_stopped_and_one_that_does_not_goes_on() -> None:
    given, rng = experiment(Kind.CANARY), Random(1)
    good = tally(outcomes(rng, 2_000, fails=0.01))
    stopped = verdict(given, seen(given, good, tally(outcomes(rng, 40, fails=0.6))), now=NOW)
    assert stopped is not None
    assert (stopped.state, stopped.stopped_at) == (State.STOPPED_FOR_HARM, NOW)
    assert "new does harm: its error rate" in stopped.reason
    assert verdict(given, seen(given, good, tally(outcomes(rng, 40, fails=0.01))), now=NOW) is None


def test_an_arm_that_is_cheap_because_it_fails_or_is_bad_is_stopped_for_harm_too() -> None:
    given, rng = experiment(metric=Metric.COST), Random(2)
    first = tally(outcomes(rng, 800), (1.0, 0.9, 1.0, 0.8) * 100)
    fails = verdict(given, seen(given, first, tally(outcomes(rng, 200, fails=0.3, cost=300))), now=NOW)
    bad = verdict(given, seen(given, first, tally(outcomes(rng, 200, cost=300), (0.1, 0.3, 0.2, 0.5) * 50)), now=NOW)
    assert fails is not None
    assert bad is not None
    assert [each.state for each in (fails, bad)] == [State.STOPPED_FOR_HARM] * 2
    assert "its quality" in bad.reason


def test_a_cheaper_arm_wins_only_once_it_surely_fails_no_more_often() -> None:
    given, rng = experiment(metric=Metric.COST), Random(3)
    few = seen(given, tally(outcomes(rng, 150)), tally(outcomes(rng, 150, cost=400)))
    assert verdict(given, few, now=NOW) is None
    cheaper = standings(given, few)[1].difference
    assert cheaper is not None
    assert cheaper.upper < 0
    many = seen(given, tally(outcomes(rng, 2_000)), tally(outcomes(rng, 2_000, cost=400)))
    won = verdict(given, many, now=NOW)
    assert won is not None
    assert (won.state, won.winner) == (State.CONCLUDED, "new")
    assert won.reason.startswith("new is better: cost of usual is worse by at least")


def test_the_first_arm_wins_where_all_others_are_surely_worse_within_what_is_no_harm() -> None:
    given, rng = experiment(metric=Metric.LATENCY, harm_max=0.9), Random(4)
    won = verdict(
        given,
        seen(given, tally(outcomes(rng, 1_500)), tally(outcomes(rng, 1_500, latency_us=700_000))),
        now=NOW,
    )
    assert won is not None
    assert (won.state, won.winner) == (State.CONCLUDED, "usual")


def test_of_several_arms_the_one_that_beats_all_others_wins() -> None:
    given, rng = experiment(metric=Metric.COST), Random(5)
    given = replace(given, arms=(*given.arms, Arm("cheapest", model="cheapest", share=0.2)))
    tallies = {
        (0, "usual"): tally(outcomes(rng, 3_000)),
        (0, "new"): tally(outcomes(rng, 3_000, cost=700)),
        (0, "cheapest"): tally(outcomes(rng, 3_000, cost=300)),
    }
    won = verdict(given, tallies, now=NOW)
    assert won is not None
    assert won.winner == "cheapest"
    alike = {**tallies, (0, "cheapest"): tally(outcomes(rng, 3_000, cost=700))}
    assert verdict(given, alike, now=NOW) is None


def test_a_canary_grows_step_by_step_while_it_does_no_harm_and_then_serves_all() -> None:
    given, rng, reasons = experiment(Kind.CANARY), Random(6), []
    for step in range(len(STEPS) - 1):
        given = replace(given, standing=replace(given.standing, step=step))
        few = seen(given, tally(outcomes(rng, 500)), tally(outcomes(rng, 20)), step=step)
        assert verdict(given, few, now=NOW) is None
        grown = verdict(given, seen(given, tally(outcomes(rng, 500)), tally(outcomes(rng, 100)), step=step), now=NOW)
        assert grown is not None
        assert (grown.state, grown.step) == (State.RUNNING, step + 1)
        reasons.append(grown.reason)
        given = replace(given, standing=grown)
    assert given.standing.winner == "new"
    assert reasons[-1] == "new has 100% of the requests: no sign of harm in 100 requests at 50%"
    over = seen(given, Tally(), tally(outcomes(rng, 1_000)), step=len(STEPS) - 1)
    assert verdict(replace(given, requests_max=500), over, now=NOW) is None


def test_a_canary_waits_where_it_looks_worse_than_it_may_be() -> None:
    given, rng = experiment(Kind.CANARY), Random(7)
    doubtful = tally([Outcome(number % 20 == 0, 1_000, 500_000) for number in range(200)])
    assert verdict(given, seen(given, tally(outcomes(rng, 2_000)), doubtful), now=NOW) is None


def test_what_a_canary_did_at_an_earlier_share_is_not_held_against_the_hours_of_the_next() -> None:
    given, rng = experiment(Kind.CANARY, standing=Standing(step=2)), Random(8)
    calm = seen(given, tally(outcomes(rng, 20_000)), tally(outcomes(rng, 200)), step=0)
    busy = seen(given, tally(outcomes(rng, 400, fails=0.3)), tally(outcomes(rng, 100, fails=0.3)), step=2)
    found = verdict(given, {**calm, **busy}, now=NOW)
    assert found is None or found.state is State.RUNNING


def test_an_experiment_ends_with_its_requests_and_with_its_time() -> None:
    given, rng = experiment(requests_max=100), Random(9)
    alike = seen(given, tally(outcomes(rng, 50)), tally(outcomes(rng, 50)))
    used_up = verdict(given, alike, now=NOW)
    assert used_up is not None
    assert (used_up.state, used_up.winner) == (State.CONCLUDED, "")
    timed = replace(given, requests_max=1_000, end_at=NOW + timedelta(days=1))
    assert verdict(timed, alike, now=NOW) is None
    over = verdict(timed, alike, now=NOW + timedelta(days=1))
    assert over is not None
    assert (over.state, over.reason) == (State.STOPPED, "its time is over")


def test_shadows_are_judged_by_pairs_of_the_same_requests() -> None:
    given, rng, total = experiment(Kind.SHADOW, metric=Metric.QUALITY), Random(10), Tally()
    for _ in range(400):
        hard = rng.random()
        served, beside = Outcome(False, 1_000, 500_000), Outcome(False, 400, 300_000)
        total.take(beside)
        total.take_pair(served, beside)
        total.take_pair_score(hard, max(0.0, hard - 0.1))
    found = standings(given, seen(given, tally(outcomes(rng, 800)), total))[1].difference
    assert found is not None
    assert found.value == pytest.approx(-0.1, abs=0.01)
    assert found.upper < 0
    stopped = verdict(given, seen(given, tally(outcomes(rng, 800)), total), now=NOW)
    assert stopped is not None
    assert stopped.state is State.STOPPED_FOR_HARM


def test_sums_of_replicas_are_the_sums_of_all_requests_whoever_saw_them() -> None:
    rng = Random(11)
    everything = outcomes(rng, 300, fails=0.1)
    parts = [tally(everything[start::3]) for start in range(3)]
    whole, together = tally(everything), added(parts)
    for name in SUMS:
        if not name.endswith("spread"):
            assert getattr(together, name) == getattr(whole, name)
    assert added(reversed(parts)) == together


def test_a_quality_that_is_corrected_counts_once() -> None:
    total = Tally()
    guess = total.take_score(0.4)
    total.correct_score(0.4, 0.9, guess=guess)
    straight = Tally()
    straight.take_score(0.9)
    assert total == straight


def errand(given: Experiment, arm: str, **changes: Any) -> Errand:
    """A request of an arm on its route."""
    route = Route((), "fixed", "", 0, 0, 0, 1, 0.0, experiment_id=given.experiment_id, arm=arm)
    fields: dict[str, Any] = {
        "route": route,
        "prices": None,
        "conversation": (),
        "parameters": None,
        "task": "chat",
        "request_id": str(uuid.uuid4()),
        "wants_json": False,
        "service_tier": "",
        "ends_at_s": 60.0,
        "calls_left": 1,
        "scope": f"{SCOPE}/projects/p",
    }
    return Errand(**{**fields, **changes})


def finished(cost_usd_nanos: int = 1_000) -> Finished:
    """An answer that cost so much."""
    attempt = Attempt("m", "p", "d", AttemptOutcome.ACCEPTED, "", None, None, cost_usd_nanos, 5_000)  # type: ignore[arg-type]
    return Finished(None, "m", (attempt,), False, 5_000)  # type: ignore[arg-type]


def counts(given: Experiment, clock: ManualClock | None = None) -> Counts:
    """The counting of one replica."""
    return Counts(find=lambda organization, name: given if name == given.experiment_id else None, clock=clock or ManualClock())


def test_a_caller_who_leaves_is_not_counted_and_one_whose_time_is_over_is_a_failure() -> None:
    given, clock = experiment(), ManualClock()
    counting = counts(given, clock)
    counting.ended(errand(given, "new"), None, asyncio.CancelledError())
    assert not counting.changed()
    clock.advance(60)
    counting.ended(errand(given, "new"), None, asyncio.CancelledError())
    counting.ended(errand(given, "new", route=replace(errand(given, "new").route, experiment_id="other")), finished(), None)
    counting.ended(errand(given, "gone"), finished(), None)
    (kept,) = counting.changed()
    assert (kept.arm, kept.tally.requests, kept.tally.failures) == ("new", 1, 1)


def test_what_could_not_be_kept_is_asked_for_again_and_grows_meanwhile() -> None:
    given = experiment()
    counting = counts(given)
    counting.ended(errand(given, "new"), finished(), None)
    first = counting.changed()
    assert not counting.changed()
    counting.ended(errand(given, "usual"), finished(), None)
    counting.again(first)
    assert {each.arm: each.tally.requests for each in counting.changed()} == {"new": 1, "usual": 1}


def test_the_last_word_on_an_answer_counts_and_answers_of_others_are_looked_up() -> None:
    given = experiment()
    counting, one = counts(given), errand(given, "new")
    counting.ended(one, finished(), None)
    counting.heard("acme", one.request_id.upper(), 0.4)
    counting.heard("acme", one.request_id, 0.9)
    counting.heard("acme", "somebody else's", 0.1)
    (kept,) = counting.changed()
    assert (kept.tally.scores, kept.tally.quality.mean) == (1, pytest.approx(0.9))
    assert list(counting.unknown) == [("acme", "somebody else's", 0.1)]


def test_a_shadow_is_compared_with_the_answer_that_it_was_told_of() -> None:
    given = experiment(Kind.SHADOW)
    counting = counts(given)
    told = Served("m", "an answer", "stop", 3_000, 9_000)
    counting.ended(errand(given, "new", shadow_of="r", served=told), finished(500), None)
    (kept,) = counting.changed()
    assert (kept.tally.pairs, kept.tally.pair_served_usd_nanos, kept.tally.pair_usd_nanos) == (1, 3_000, 500)
