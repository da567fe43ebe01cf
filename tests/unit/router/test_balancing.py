"""Which deployment is asked: weights, load, conversations, limits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.catalog import parse_catalog
from farthing_router.deployments.balancing import Balancer, Resting
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.deployments.places import Health, Place, Ticket
from farthing_router.store.cooldowns_memory import MemoryCooldowns
from farthing_router.upstreams import FailureKind, RateLimits, UpstreamFailed


class Fleet:
    """A model at several deployments: `fleet(a={"weight": 3}, b={})`."""

    def __init__(self, deployments: dict[str, dict[str, Any]], *, seed: int = 1) -> None:
        self.clock = ManualClock()
        entries = [{"provider": "p", "name": name, **more} for name, more in deployments.items()]
        config = {
            "providers": {"p": {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True}},
            "models": {"m": {"deployments": entries}},
        }
        self.catalog = parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)
        self.cooldowns = Cooldowns(clock=self.clock, store=MemoryCooldowns(self.clock))
        self.balancer = Balancer(self.catalog, cooldowns=self.cooldowns, rng=Random(seed))
        self.places = self.balancer.of(self.catalog.model("m"))

    @property
    def now_s(self) -> float:
        return self.clock.monotonic_s()

    def place(self, name: str) -> Place:
        return self.balancer.places[name]

    def choose(self, session: str = "", tokens: int = 100) -> Place | Resting:
        return self.balancer.choose(self.places, self.now_s, tokens=tokens, session=session)

    def chosen(self, session: str = "", tokens: int = 100) -> Place:
        found = self.choose(session, tokens)
        assert isinstance(found, Place), found
        return found

    def begin(self, place: Place, tokens: int = 100, given_s: float = 120.0) -> Ticket:
        return place.begin(self.now_s, tokens=tokens, given_s=given_s)

    def answers(self, place: Place, seconds: float = 0.0, limits: RateLimits | None = None) -> None:
        ticket = self.begin(place)
        self.clock.advance(seconds)
        place.answered(ticket, self.now_s, output_tokens=200, used=100, limits=limits)

    def fails(
        self, place: Place, kind: FailureKind = FailureKind.SERVER_ERROR, *, given_s: float = 120.0, **facts: Any
    ) -> None:
        ticket = self.begin(place, given_s=given_s)
        place.failed(ticket, self.now_s, UpstreamFailed(what="it says no", retryable=True, kind=kind, **facts))


def shares(fleet: Fleet, calls: int, *, session: Any = lambda number: "") -> dict[str, float]:
    counts = Counter(fleet.chosen(session(number)).deployment.name for number in range(calls))
    return {name: count / calls for name, count in counts.items()}


def test_calls_are_shared_by_weight_where_loads_are_equal() -> None:
    found = shares(Fleet({"a": {"weight": 6}, "b": {"weight": 3}, "c": {"weight": 1}}), 5_000)
    assert found == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1}, abs=0.025)


def test_calls_are_shared_by_weight_also_while_many_are_under_way() -> None:
    fleet, counts, under_way = Fleet({"a": {"weight": 9}, "b": {"weight": 1}}), Counter[str](), list[tuple[Place, Ticket]]()
    for _ in range(4_000):
        place = fleet.chosen()
        counts[place.deployment.name] += 1
        under_way.append((place, fleet.begin(place)))
        fleet.clock.advance(0.1)
        if len(under_way) > 20:
            first, ticket = under_way.pop(0)
            first.answered(ticket, fleet.now_s, output_tokens=200, used=1, limits=None)
    assert counts["a"] / 4_000 == pytest.approx(0.9, abs=0.03)


def test_of_two_the_one_with_calls_waiting_is_spared() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    for _ in range(10):
        fleet.begin(fleet.place("a"))
    assert shares(fleet, 200) == {"b": 1.0}


def test_a_slow_one_is_spared_and_tried_again_after_a_while() -> None:
    fleet = Fleet({"a": {}, "b": {}, "c": {}})
    for _ in range(5):
        for name, seconds in (("a", 1.0), ("b", 1.0), ("c", 10.0)):
            fleet.answers(fleet.place(name), seconds)
    assert "c" not in shares(fleet, 300)
    fleet.clock.advance(60)
    assert shares(fleet, 3_000)["c"] == pytest.approx(1 / 3, abs=0.05)


def test_a_long_answer_makes_no_slow_deployment() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    fleet.answers(fleet.place("a"), 2.0)
    ticket = fleet.begin(fleet.place("b"))
    fleet.clock.advance(14.0)
    fleet.place("b").answered(ticket, fleet.now_s, output_tokens=2_000, used=2_000, limits=None)
    assert shares(fleet, 2_000)["b"] == pytest.approx(0.5, abs=0.05)


def test_a_cold_one_gets_a_fair_start_beside_slow_and_fast_ones() -> None:
    fleet = Fleet({"cold": {}, "fast": {}})
    fleet.answers(fleet.place("fast"), 0.1)
    assert shares(fleet, 2_000)["cold"] == pytest.approx(0.5, abs=0.05)


def test_one_that_fails_often_is_spared_before_its_circuit_opens() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    for _ in range(4):
        fleet.answers(fleet.place("b"))
        fleet.fails(fleet.place("a"))
    assert fleet.place("a").rest(fleet.now_s, 1) is None
    assert shares(fleet, 200) == {"b": 1.0}


def test_a_conversation_stays_where_it_is_while_that_takes_calls() -> None:
    fleet = Fleet({"a": {}, "b": {}, "c": {}})
    homes = {session: fleet.chosen(session) for session in map(str, range(50))}
    assert all(fleet.chosen(session) is home for session, home in homes.items() for _ in range(5))
    home = homes["0"]
    fleet.cooldowns.extend(home.deployment.name, 10, "asked to")
    moved = fleet.chosen("0")
    assert moved is not home
    others = {session: place for session, place in homes.items() if place is not home}
    assert all(fleet.chosen(session) is place for session, place in others.items())
    fleet.clock.advance(10)
    assert fleet.chosen("0") is home


def test_conversations_are_shared_by_weight() -> None:
    fleet = Fleet({"a": {"weight": 3}, "b": {"weight": 1}})
    assert shares(fleet, 4_000, session=str)["a"] == pytest.approx(0.75, abs=0.03)


def test_a_conversation_leaves_a_deployment_that_is_far_more_loaded() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    home = fleet.chosen("ann")
    for _ in range(30):
        fleet.begin(home)
    assert fleet.chosen("ann") is not home


def test_weight_0_takes_calls_only_where_no_other_does() -> None:
    fleet = Fleet({"a": {}, "spare": {"weight": 0}})
    assert shares(fleet, 100) == {"a": 1.0}
    fleet.cooldowns.extend("a", 5, "asked to")
    assert shares(fleet, 100) == {"spare": 1.0}


def test_what_a_provider_says_is_left_is_honoured_before_it_refuses() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    fleet.answers(fleet.place("a"), limits=RateLimits(requests_remaining=2, requests_reset_s=30.0))
    tickets = [fleet.begin(fleet.place("a")) for _ in range(2)]
    assert shares(fleet, 50) == {"b": 1.0}
    assert fleet.place("a").health(fleet.now_s)[0] is Health.COOLING_DOWN
    for ticket in tickets:
        fleet.place("a").left(ticket)
    fleet.clock.advance(30)
    assert fleet.place("a").rest(fleet.now_s, 100) is None


def test_tokens_that_a_provider_says_are_left_must_do_for_this_call_and_those_under_way() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    fleet.answers(fleet.place("a"), limits=RateLimits(tokens_remaining=500, tokens_reset_s=6.0))
    assert fleet.place("a").rest(fleet.now_s, 500) is None
    assert fleet.place("a").rest(fleet.now_s, 501) is not None
    fleet.begin(fleet.place("a"), tokens=300)
    assert fleet.place("a").rest(fleet.now_s, 201) is not None
    assert fleet.place("a").said(fleet.now_s) == (None, 200, 6.0)
    fleet.clock.advance(6)
    assert fleet.place("a").rest(fleet.now_s, 10_000) is None


def test_calls_under_way_are_taken_off_where_the_provider_cannot_have_counted_them_yet() -> None:
    fleet = Fleet({"a": {}})
    place = fleet.place("a")
    earlier = [fleet.begin(place) for _ in range(3)]
    answering = fleet.begin(place)
    later = [fleet.begin(place, tokens=70) for _ in range(2)]
    place.left(later.pop())
    said = RateLimits(requests_remaining=10, requests_reset_s=9.0, tokens_remaining=1_000, tokens_reset_s=9.0)
    place.answered(answering, fleet.now_s, output_tokens=1, used=1, limits=said)
    assert place.said(fleet.now_s) == (8, 860, 9.0)
    for ticket in (*earlier, *later):
        place.left(ticket)
    assert place.load.in_flight == 0


@pytest.mark.parametrize(
    ("limits", "calls", "wait_s"),
    [({"rpm": 6}, 6, 10.0), ({"tpm": 600}, 6, 10.0), ({"concurrency_max": 3}, 3, 0.05)],
)
def test_limits_of_our_own_hold_and_say_when_there_is_room_again(limits: dict[str, int], calls: int, wait_s: float) -> None:
    fleet = Fleet({"a": limits})
    for _ in range(calls):
        fleet.begin(fleet.chosen())
    found = fleet.choose()
    assert isinstance(found, Resting)
    assert found.until_s - fleet.now_s == pytest.approx(wait_s)
    assert found.why.startswith("a ")


def test_tokens_that_a_call_did_not_use_are_given_back() -> None:
    fleet = Fleet({"a": {"tpm": 1_000}})
    ticket = fleet.begin(fleet.chosen(tokens=1_000), tokens=1_000)
    assert isinstance(fleet.choose(tokens=500), Resting)
    fleet.place("a").answered(ticket, fleet.now_s, output_tokens=10, used=400, limits=None)
    assert isinstance(fleet.choose(tokens=600), Place)
    assert isinstance(fleet.choose(tokens=601), Resting)


def test_retry_after_is_a_cooldown_and_refusals_in_a_row_rest_longer() -> None:
    fleet = Fleet({"a": {}})
    fleet.fails(fleet.place("a"), FailureKind.RATE_LIMITED, retry_after_s=7.0)
    found = fleet.choose()
    assert isinstance(found, Resting)
    assert found.until_s == 7.0
    waits = []
    for _ in range(9):
        fleet.clock.advance(100)
        fleet.fails(fleet.place("a"), FailureKind.RATE_LIMITED)
        resting = fleet.choose()
        assert isinstance(resting, Resting)
        waits.append(resting.until_s - fleet.now_s)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize("kind", [FailureKind.AUTH, FailureKind.NOT_FOUND, FailureKind.OUT_OF_CREDIT])
def test_what_no_waiting_mends_opens_the_circuit_at_once_and_says_why(kind: FailureKind) -> None:
    fleet = Fleet({"a": {}})
    fleet.fails(fleet.place("a"), kind)
    found = fleet.choose()
    assert isinstance(found, Resting)
    assert str(kind) in found.why
    assert "it says no" in found.why
    assert fleet.place("a").health(fleet.now_s)[0] is Health.OPEN


@pytest.mark.parametrize(
    "kind", [FailureKind.CONTENT_FILTER, FailureKind.CONTEXT_TOO_LONG, FailureKind.EXPIRED, FailureKind.CANCELLED]
)
def test_what_speaks_about_the_request_counts_against_no_deployment(kind: FailureKind) -> None:
    fleet = Fleet({"a": {}})
    for _ in range(50):
        fleet.fails(fleet.place("a"), kind)
    assert fleet.chosen().health(fleet.now_s)[0] is Health.HEALTHY
    assert fleet.place("a").load.error_rate == 0


def test_a_timeout_counts_when_the_call_had_time_enough() -> None:
    fleet = Fleet({"a": {}})
    fleet.answers(fleet.place("a"), 1.0)
    for _ in range(10):
        fleet.fails(fleet.place("a"), FailureKind.TIMEOUT, given_s=2.0)
    assert fleet.place("a").health(fleet.now_s)[0] is Health.HEALTHY
    for _ in range(5):
        fleet.fails(fleet.place("a"), FailureKind.TIMEOUT, given_s=5.0)
    assert fleet.place("a").health(fleet.now_s)[0] is Health.OPEN


def test_retries_are_a_share_of_what_a_deployment_is_asked() -> None:
    fleet = Fleet({"a": {}})
    place = fleet.place("a")
    for _ in range(100):
        place.left(fleet.begin(place))
    assert sum(place.retries.take(fleet.now_s) for _ in range(100)) == 30  # 20 % of 100, and 10 to spare
    fleet.clock.advance(31)
    assert sum(place.retries.take(fleet.now_s) for _ in range(100)) == 10


def test_one_out_of_use_is_not_asked() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    fleet.place("a").enabled = False
    assert shares(fleet, 50) == {"b": 1.0}
    assert fleet.place("a").health(fleet.now_s)[0] is Health.DISABLED


def test_what_a_providers_listing_corrects_is_taken_over_and_what_was_learned_is_kept() -> None:
    fleet = Fleet({"a": {}, "b": {}})
    fleet.answers(fleet.place("a"), 1.0)
    model = fleet.catalog.model("m")
    larger = tuple(replace(each, context_window_tokens=1_000_000) for each in model.deployments)
    fleet.catalog.correct(replace(model, deployments=larger))
    found = fleet.balancer.of(fleet.catalog.model("m"))
    assert [place.deployment.context_window_tokens for place in found] == [1_000_000, 1_000_000]
    assert found[0].load.latency_s == 1.0
