"""What is written down of a route, under which labels it is counted, and what becomes of it while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.performance.decision_log import DecisionLog, DecisionLogTerms
from farthing_router.performance.decisions import Decision, Rating, decision_of
from farthing_router.performance.labels import LABELS, OTHER, Folding, Labelled, Places
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.errands import AllAttemptsFailed, Attempt, AttemptOutcome, Errand, Finished
from farthing_router.routing.routes import Candidate, Role, Route
from farthing_router.store import StoreUnavailable
from farthing_router.upstreams import UpstreamAnswer, UpstreamRejected

NOW = datetime(2026, 7, 1, 12, 30, tzinfo=UTC)
ID = "b6a4d1d5-3c0f-4e09-8f0a-6ad7f7b3f0a1"


def candidate(model: str, role: Role = Role.FIRST) -> Candidate:
    return Candidate(model, role, "p", "d", 10, 100, 50, 1_000, 500)


def attempt(model: str, outcome: AttemptOutcome, **values: Any) -> Attempt:
    given = {
        "confidence": None,
        "tokens": Tokens(input_tokens=10, output_tokens=5),
        "cost_usd_nanos": 7,
        "latency_us": 2_500_000,
    }
    return Attempt(model, "p", "d", outcome, "", **{**given, **values})


def errand(**values: Any) -> Errand:
    candidates = (candidate("small"), candidate("large", Role.ESCALATION))
    route = Route(
        candidates, "cascade", "cascade of 2", 9, 5, 99, 4, 0.7, rule_id="r1", complexity=0.25, requested_model="farthing/auto"
    )
    given = {
        "prices": None,
        "conversation": None,
        "parameters": None,
        "wants_json": False,
        "service_tier": "",
        "ends_at_s": 9.0,
    }
    of = {"task": "chat", "request_id": ID, "scope": "organizations/acme/workspaces/w", "calls_left": 4}
    return Errand(route=route, **{**given, **of, **values})


def finished(model: str = "large", **values: Any) -> Finished:
    attempts = (
        attempt("small", AttemptOutcome.REJECTED, confidence=0.2),
        attempt(model, AttemptOutcome.ACCEPTED, confidence=0.9, cost_usd_nanos=30),
    )
    return Finished(UpstreamAnswer("a secret answer", "", "stop", "", None), model, attempts, True, 3_000_000, **values)


def decided(one: Errand, end: Finished | None, error: BaseException | None = None) -> Decision:
    return decision_of(one, end, error, decided_at=NOW, decision_id=ID)


def test_a_decision_says_what_was_chosen_and_what_came_of_it() -> None:
    made = decided(errand(), finished())
    assert (made.organization, made.scope) == ("acme", "organizations/acme/workspaces/w")
    assert (made.candidates, made.served_model, made.outcome) == (("small", "large"), "large", "escalated")
    assert (made.escalated, made.confidence, made.cost_usd_nanos) == (True, 0.9, 37)
    assert (made.latency_ms, made.attempts, made.rule_id, made.complexity) == (3000, 2, "r1", 0.25)
    assert not made.failed
    assert "secret" not in str(made)


def test_every_kind_of_end_has_its_word() -> None:
    failing = errand(failures=[attempt("small", AttemptOutcome.FAILED, failure_kind="overloaded")])
    failed = decided(failing, None, AllAttemptsFailed(attempts=failing.failures))
    assert (failed.outcome, failed.served_model, failed.failed) == ("every attempt failed: overloaded", "", True)
    left = decided(errand(), None, asyncio.CancelledError())
    assert (left.outcome, left.failed) == ("the caller left", False)
    assert decided(errand(), None, GeneratorExit()).outcome == "the caller left"
    refused = UpstreamRejected(provider="p", status=400, what="the prompt says: my secret")
    assert decided(errand(), None, refused).outcome == "refused as malformed"
    assert decided(errand(), finished(), RuntimeError()).outcome == "the stream broke"
    assert decided(errand(), finished(reason="agrees")).outcome == "escalated: agrees"
    assert decided(errand(), None, AllAttemptsFailed(attempts=[])).outcome == "no time for a call"


def test_what_callers_made_up_is_cut_and_has_no_byte_that_a_database_refuses() -> None:
    made = decided(errand(task="x\x00y", shadow_of="s" * 900), finished())
    assert (made.task, len(made.shadow_of)) == ("xy", 200)


def values(**given: str) -> tuple[str, ...]:
    return tuple(given.get(name, "") for name in LABELS)


def test_label_sets_stay_bounded_whatever_callers_send() -> None:
    places, keys = Places(values_max=10, places_max=50), set()
    for number in range(5_000):
        made = values(task=f"t{number}", rule_id=f"r{number % 700}", arm=f"a{number % 30}", strategy="cascade")
        keys.add(places.place("acme", NOW, made, shadow=number % 2 == 0).values)
    assert len(keys) <= 51
    folded = places.place("acme", NOW, values(task="new", strategy="cascade"), shadow=False)
    assert dict(zip(LABELS, folded.values, strict=True))["task"] == OTHER
    other = places.place("globex", NOW, values(task="new"), shadow=False)
    assert dict(zip(LABELS, other.values, strict=True))["task"] == "new"


def test_many_organisations_do_not_grow_what_is_remembered() -> None:
    folding = Folding(values_max=3, sets_max=100)
    for number in range(5_000):
        assert folding.fold(f"o{number}", "task", "chat") == "chat"
    assert len(folding) <= 100


def test_places_differ_by_every_label_and_by_shadow_and_are_the_same_everywhere() -> None:
    one, two = Places(), Places()
    made = [one.place("acme", NOW, values(**{name: "x"}), shadow=False) for name in LABELS]
    made.append(one.place("acme", NOW, values(), shadow=True))
    made.append(one.place("acme", NOW, values(), shadow=False))
    assert len({each.key for each in made}) == len(LABELS) + 2
    assert two.place("acme", NOW, values(), shadow=True).key == made[-2].key


class Kept:
    """A store of decisions that can be away, or refuse a task."""

    def __init__(self) -> None:
        self.away = False
        self.rows: dict[str, Decision] = {}
        self.ratings: list[Rating] = []
        self.meanwhile: list[Callable[[], None]] = []

    async def rate(self, ratings: Sequence[Rating]) -> Sequence[Rating]:
        if self.away:
            raise StoreUnavailable(problem="away")
        if self.meanwhile:
            self.meanwhile.pop()()
        known = {(row.organization, row.request_id) for row in self.rows.values()}
        self.ratings += ratings
        return [each for each in ratings if (each.organization, each.request_id) not in known]

    async def write(self, decisions: Sequence[tuple[Decision, Labelled]]) -> None:
        if any(decision.task == "poison" for decision, _ in decisions):
            raise ValueError("a row that no database takes")
        # The answer is lost after the rows are written, as on a connection that breaks.
        self.rows |= {decision.decision_id: decision for decision, _ in decisions}
        if self.away:
            raise StoreUnavailable(problem="away")


def log_on(store: Any, **terms: Any) -> DecisionLog:
    ids = iter(f"{number:032x}" for number in range(10**6))
    return DecisionLog(store, clock=ManualClock(), new_id=lambda: next(ids), terms=DecisionLogTerms(**terms))


async def test_decisions_wait_for_the_database_bounded_and_what_finds_no_room_is_counted() -> None:
    store = Kept()
    log = log_on(store, waiting_max=5, batch_max=2)
    store.away = True
    for _ in range(4):
        log.ended(errand(), finished(), None)
    assert not await log.flush()
    assert len(store.rows) == 2
    for _ in range(5):
        log.ended(errand(), finished(), None)
    assert log.dropped == 2
    store.away = False
    assert await log.flush()
    assert len(store.rows) == 7


async def test_a_rating_goes_with_its_decision_where_that_still_waits_and_after_it_where_not() -> None:
    store = Kept()
    log = log_on(store)
    log.ended(errand(), finished(), None)
    log.rated("acme", ID, "large", 0.75)
    assert await log.flush()
    assert [each.quality for each in store.rows.values()] == [0.75]
    assert store.ratings == []
    store.away = True
    log.rated("acme", ID, "large", 0.25)
    log.rated("globex", ID, "large", 0.5)
    assert not await log.flush()
    log.rated("acme", ID, "large", 1.0)
    store.away = False
    assert await log.flush()
    assert [(each.organization, each.quality) for each in store.ratings] == [("acme", 1.0), ("globex", 0.5)]
    # Whom nobody knows may be about to be written down by another replica: asked for once more, and then no longer.
    assert await log.flush()
    assert await log.flush()
    assert [each.organization for each in store.ratings] == ["acme", "globex", "globex"]


async def test_a_rating_of_a_decision_that_comes_while_others_are_rated_is_not_lost() -> None:
    store = Kept()
    log = log_on(store)
    log.ended(errand(), finished(), None)
    assert await log.flush()

    def another() -> None:
        log.ended(errand(request_id="another"), finished(), None)
        log.rated("acme", "another", "large", 0.5)

    store.meanwhile.append(another)
    log.rated("acme", ID, "large", 0.25)
    assert await log.flush()
    assert await log.flush()
    assert {each.request_id: each.quality for each in store.rows.values()} == {ID: None, "another": 0.5}


async def test_a_batch_that_cannot_be_written_does_not_hold_up_the_others() -> None:
    store = Kept()
    log = log_on(store, batch_max=2)
    for task in ("chat", "poison", "chat"):
        log.ended(errand(task=task), finished(), None)
    assert await log.flush()
    assert (len(store.rows), log.dropped) == (1, 2)


@pytest.mark.parametrize("end", [finished(), None])
async def test_what_waits_is_written_when_the_log_ends(end: Finished | None) -> None:
    store = Kept()
    log = log_on(store, flush_s=60)
    store.forget = lambda **_: asyncio.sleep(0, 0)  # type: ignore[attr-defined]
    async with log.running():
        log.ended(errand(), end, None)
    assert len(store.rows) == 1
