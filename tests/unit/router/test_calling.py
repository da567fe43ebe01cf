"""Buying answers at several deployments: who is asked next, how long is waited, what is charged. The upstream does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.catalog import parse_catalog
from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.pricing.price_book import PriceBook
from farthing_router.routing.calling import Caller
from farthing_router.routing.cascade import Cascade
from farthing_router.routing.errands import AllAttemptsFailed, Attempt, AttemptOutcome, Errand, StreamBroken
from farthing_router.routing.judges import Judges
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.routes import Candidate, Role, Route
from farthing_router.store import NewPrice, PriceRow
from farthing_router.store.cooldowns_memory import MemoryCooldowns
from farthing_router.upstreams import Call, FailureKind, UpstreamAnswer, UpstreamFailed, UpstreamPiece, UpstreamRejected
from farthing_router.upstreams.payloads import Reported

Script = Callable[[Call], Awaitable[UpstreamAnswer]]
USD = {"input_usd_per_million_tokens": "1", "output_usd_per_million_tokens": "2"}
DEARER = {"input_usd_per_million_tokens": "10", "output_usd_per_million_tokens": "20"}
GOOD = UpstreamAnswer("forty-two", "", "stop", "", Reported(10, 3))


class EmptyBook:
    """A PriceStore without rows."""

    async def add(self, price: NewPrice, *, request_id: str, fingerprint: bytes) -> tuple[PriceRow, bool]:
        raise AssertionError

    async def after(self, number: int, *, rows_max: int) -> list[PriceRow]:
        return []


class Scripted:
    """An Upstream: each deployment does as its script says, mostly answering."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.streams: dict[str, Callable[[Call], AsyncGenerator[Any, None]]] = {}
        self.calls: list[Call] = []
        self.cancelled: list[str] = []

    @property
    def asked(self) -> list[str]:
        return [call.deployment.name for call in self.calls]

    async def complete(self, call: Call) -> UpstreamAnswer:
        self.calls.append(call)
        script = self.scripts.get(call.deployment.name)
        try:
            return await script(call) if script else GOOD
        except asyncio.CancelledError:
            self.cancelled.append(call.deployment.name)
            raise

    async def stream(self, call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
        self.calls.append(call)
        items = self.streams.get(call.deployment.name, spoken)(call)
        try:
            async for item in items:
                yield item
        except asyncio.CancelledError:
            self.cancelled.append(call.deployment.name)
            raise
        finally:
            await items.aclose()


async def spoken(call: Call) -> AsyncGenerator[UpstreamPiece | UpstreamAnswer, None]:
    yield UpstreamPiece("forty", "")
    yield UpstreamPiece("-two", "")
    yield GOOD


def fails(kind: FailureKind, *, retryable: bool = True, **facts: Any) -> Script:
    async def script(call: Call) -> UpstreamAnswer:
        raise UpstreamFailed(what=f"{kind} it is", retryable=retryable, kind=kind, **facts)

    return script


async def hangs(call: Call) -> UpstreamAnswer:
    await asyncio.Event().wait()
    raise AssertionError


async def refuses(call: Call) -> UpstreamAnswer:
    raise UpstreamRejected(provider="p", status=400, what="temperature is too hot")


class Stage:
    """Models `m` (at a, b, c) and `spare` (at d), an upstream, and a clock that sleeping moves on."""

    def __init__(
        self, *, retries: int = 1, hedge: Any = None, content_filter: str = "stop", only: str = "abc", seed: int = 1
    ) -> None:
        providers = {
            name: {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True, "retries": retries} for name in ("p", "q")
        }
        windows = {"a": 8_000, "b": 8_000, "c": 64_000}
        places = [
            {"provider": "q" if name == "c" else "p", "name": name, "context_window_tokens": windows[name]} for name in only
        ]
        for place in places:
            place["price"] = DEARER if place["provider"] == "q" else USD
        config = {
            "providers": providers,
            "models": {
                "m": {"deployments": places, **({"hedge": hedge} if hedge else {})},
                "spare": {"deployments": [{"provider": "p", "name": "d"}], "price": USD, "context_window_tokens": 64_000},
            },
            "routing": {"content_filter": content_filter},
        }
        self.catalog = parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)
        self.clock, self.slept = ManualClock(), list[float]()
        self.cooldowns = Cooldowns(clock=self.clock, store=MemoryCooldowns(self.clock))
        self.balancer = Balancer(self.catalog, cooldowns=self.cooldowns, rng=Random(seed))
        self.upstream = Scripted()
        lengths = OutputLengths()
        caller = Caller(
            self.upstream, balancer=self.balancer, lengths=lengths, clock=self.clock, rng=Random(1), sleep=self.sleep
        )
        self.cascade = Cascade(caller, judges=Judges(None, prompt_of=lambda conversation: ""))
        self.book = PriceBook(catalog=self.catalog, store=EmptyBook(), clock=self.clock, list_price=lambda *_: None)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    def errand(
        self, *, calls_max: int = 10, cost_usd_nanos_max: int = 0, timeout_s: float = 60.0, spare: bool = False
    ) -> Errand:
        candidates = [Candidate("m", Role.FIRST, "p", "a", 10, 100, 50, 10 * 10_000 + 100 * 20_000, 100)]
        if spare:
            candidates.append(Candidate("spare", Role.FALLBACK, "p", "d", 10, 100, 50, 10 * 1_000 + 100 * 2_000, 100))
        return Errand(
            route=Route(tuple(candidates), "fixed", "", 10**9, 100, 110, calls_max, 0.0, cost_usd_nanos_max=cost_usd_nanos_max),
            prices=self.book.prices("acme"),
            conversation=[],
            parameters=None,
            task="chat",
            request_id="r",
            wants_json=False,
            service_tier="",
            ends_at_s=self.clock.monotonic_s() + timeout_s,
            calls_left=calls_max,
            scope="organizations/acme",
        )


async def test_when_one_deployment_fails_another_is_asked_at_once() -> None:
    stage, errand = Stage(), None
    for name in "ab":
        stage.upstream.scripts[name] = fails(FailureKind.SERVER_ERROR)
    for _ in range(20):
        errand = stage.errand()
        assert (await stage.cascade.run(errand)).answer is GOOD
        assert errand.bought[0].attempt.deployment == "c"
    assert stage.slept == []
    assert stage.upstream.asked.count("a") <= 5


async def test_each_attempt_says_where_it_was_and_is_charged_what_that_one_costs() -> None:
    for seed in range(50):
        stage = Stage(seed=seed)
        stage.upstream.scripts |= {name: fails(FailureKind.OVERLOADED) for name in "ab"}
        finished = await stage.cascade.run(stage.errand())
        if len(finished.attempts) == 3:
            break
    assert sorted(each.deployment for each in finished.attempts) == ["a", "b", "c"]
    by_name = {each.deployment: each for each in finished.attempts}
    assert (by_name["a"].failure_kind, by_name["a"].cost_usd_nanos, by_name["a"].provider) == ("overloaded", 0, "p")
    assert (by_name["c"].cost_usd_nanos, by_name["c"].provider) == (10 * 10_000 + 3 * 20_000, "q")


async def test_a_failed_call_that_may_be_billed_is_charged_as_an_answer_of_likely_length() -> None:
    stage = Stage()
    stage.upstream.scripts |= {name: fails(FailureKind.TIMEOUT, retryable=False, may_be_billed=True) for name in "ab"}
    while "a" not in stage.upstream.asked:
        finished = await stage.cascade.run(stage.errand())
    lost = next(each for each in finished.attempts if each.deployment == "a")
    assert (lost.outcome, lost.tokens.estimated) == (AttemptOutcome.FAILED, True)
    assert lost.cost_usd_nanos == 10 * 1_000 + lost.tokens.output_tokens * 2_000 > 10 * 1_000


async def test_one_deployment_is_asked_again_after_waiting_by_chance_and_longer_each_time() -> None:
    stage = Stage(retries=5, only="a")
    stage.upstream.scripts["a"] = fails(FailureKind.SERVER_ERROR)
    with pytest.raises(AllAttemptsFailed, match="server_error it is"):
        await stage.cascade.run(stage.errand(timeout_s=3.0))
    assert len(stage.upstream.calls) == 5  # then its circuit is open
    assert all(0 <= wait_s <= 0.2 * 2**number for number, wait_s in enumerate(stage.slept[:4]))
    assert len(set(stage.slept)) == len(stage.slept)


async def test_retry_after_is_waited_for_where_nobody_else_is_there() -> None:
    stage = Stage(only="a")

    async def busy_until_7(call: Call) -> UpstreamAnswer:
        if stage.clock.monotonic_s() < 7:
            raise UpstreamFailed(what="later", retryable=True, retry_after_s=7.0, kind=FailureKind.RATE_LIMITED)
        return GOOD

    stage.upstream.scripts["a"] = busy_until_7
    assert (await stage.cascade.run(stage.errand())).answer is GOOD
    assert 7.0 <= sum(stage.slept) <= 8.2  # callers who were told the same moment do not come back together
    assert stage.upstream.asked == ["a", "a"]


async def test_while_one_call_tries_a_deployment_again_the_others_look_rarely_whether_it_is_back() -> None:
    stage = Stage(only="a", retries=0)
    place = stage.balancer.places["a"]
    for _ in range(5):
        place.circuit.failed(0.0, probe=False, reason="down")
    stage.clock.advance(3.0)
    probe = place.begin(stage.clock.monotonic_s(), tokens=1, given_s=60.0)
    with pytest.raises(AllAttemptsFailed, match="its circuit is open"):
        await stage.cascade.run(stage.errand(timeout_s=30.0))
    assert 4 < len(stage.slept) < 12
    assert sum(stage.slept) < 7, "whoever calls one that is broken hears of it soon"
    assert stage.upstream.asked == []
    place.left(probe)
    assert (await stage.cascade.run(stage.errand())).answer is GOOD


async def test_another_model_is_asked_rather_than_waiting_long() -> None:
    stage = Stage(only="a")
    stage.upstream.scripts["a"] = fails(FailureKind.RATE_LIMITED, retry_after_s=7.0)
    assert (await stage.cascade.run(stage.errand(spare=True))).model == "spare"
    assert sum(stage.slept) < 1.0
    assert (await stage.cascade.run(stage.errand(spare=True))).model == "spare"
    assert stage.upstream.asked == ["a", "d", "d"]


async def test_a_wait_that_passes_the_deadline_is_not_begun_and_the_error_says_why() -> None:
    stage = Stage(only="a")
    stage.cooldowns.extend("a", 30.0, "told to wait")
    with pytest.raises(AllAttemptsFailed, match=r"a cools down \(told to wait\)"):
        await stage.cascade.run(stage.errand(timeout_s=10.0))
    assert stage.slept == []


async def test_who_refuses_the_request_itself_speaks_for_all() -> None:
    stage = Stage()
    stage.upstream.scripts |= dict.fromkeys("abc", refuses)
    with pytest.raises(UpstreamRejected):
        await stage.cascade.run(stage.errand(spare=True))
    assert len(stage.upstream.calls) == 1


async def test_a_prompt_too_long_goes_only_where_the_window_is_larger() -> None:
    stage = Stage()
    stage.upstream.scripts |= {name: fails(FailureKind.CONTEXT_TOO_LONG, retryable=False) for name in "ab"}
    for _ in range(10):
        assert (await stage.cascade.run(stage.errand())).attempts[-1].deployment == "c"
    assert "ab" not in "".join(stage.upstream.asked)
    assert "ba" not in "".join(stage.upstream.asked)
    stage.upstream.scripts["c"] = fails(FailureKind.CONTEXT_TOO_LONG, retryable=False)
    with pytest.raises(AllAttemptsFailed):
        await stage.cascade.run(stage.errand(spare=True))
    assert "d" not in stage.upstream.asked  # its window is no larger than c's


@pytest.mark.parametrize(("policy", "asked"), [("stop", 1), ("fallback", 2)])
async def test_what_a_filter_refuses_goes_to_another_model_only_where_that_is_wished(policy: str, asked: int) -> None:
    stage = Stage(content_filter=policy)
    stage.upstream.scripts |= {name: fails(FailureKind.CONTENT_FILTER, retryable=False) for name in "abc"}
    if policy == "stop":
        with pytest.raises(AllAttemptsFailed, match="content_filter"):
            await stage.cascade.run(stage.errand(spare=True))
    else:
        assert (await stage.cascade.run(stage.errand(spare=True))).model == "spare"
    assert len(stage.upstream.calls) == asked


async def test_a_stream_that_fails_before_its_first_piece_is_spoken_by_another() -> None:
    stage = Stage()

    async def mute(call: Call) -> AsyncGenerator[Any, None]:
        raise UpstreamFailed(what="down", retryable=True)
        yield

    stage.upstream.streams |= {"a": mute, "b": mute}
    items = [item async for item in stage.cascade.stream(stage.errand())]
    assert "".join(item.content for item in items if isinstance(item, UpstreamPiece)) == "forty-two"
    assert items[-1].attempts[-1].deployment == "c"  # type: ignore[union-attr]


async def test_a_stream_that_fails_after_its_first_piece_ends_with_an_error_and_its_account() -> None:
    stage = Stage(only="a")

    async def breaks(call: Call) -> AsyncGenerator[Any, None]:
        yield UpstreamPiece("forty", "")
        raise UpstreamFailed(what="cut", retryable=True, may_be_billed=True, kind=FailureKind.BROKEN_STREAM)

    stage.upstream.streams["a"] = breaks
    items: list[Any] = []
    with pytest.raises(StreamBroken):
        async for item in stage.cascade.stream(stage.errand(spare=True)):
            items.append(item)
    assert [item.content for item in items[:-1]] == ["forty"]
    assert (items[-1].answer.finish_reason, items[-1].attempts[0].failure_kind) == ("error", "broken_stream")
    assert items[-1].attempts[0].cost_usd_nanos > 0
    assert stage.upstream.asked == ["a"]


@pytest.mark.parametrize(("before", "what"), [(0, "no first token within"), (1, "no further piece within")])
async def test_silence_before_and_within_a_stream_is_bounded_and_each_is_named(before: int, what: str) -> None:
    stage = Stage(only="a")
    deployment = stage.balancer.places["a"].deployment
    object.__setattr__(deployment, "first_token_timeout_s", 0.01 if not before else 5.0)
    object.__setattr__(deployment, "idle_timeout_s", 0.01)

    async def silent(call: Call) -> AsyncGenerator[Any, None]:
        for _ in range(before):
            yield UpstreamPiece("forty", "")
        await asyncio.Event().wait()

    stage.upstream.streams["a"] = silent
    with pytest.raises(StreamBroken if before else AllAttemptsFailed, match=what):
        async for _ in stage.cascade.stream(stage.errand()):
            pass
    assert stage.balancer.places["a"].load.in_flight == 0


def warmed(stage: Stage, latency_s: float = 0.001) -> None:
    """Answers were quick so far, and many."""
    for name in "abc":
        for _ in range(30):
            stage.balancer.places[name].latencies.add(latency_s)
            stage.balancer.places[name].first_tokens.add(latency_s)
    for _ in range(100):
        stage.balancer.hedges["m"].called(stage.clock.monotonic_s())


async def test_a_second_deployment_is_asked_when_the_first_takes_unusually_long_and_the_loser_is_charged() -> None:
    stage = Stage(hedge={"quantile": 0.95})
    warmed(stage)
    stage.upstream.scripts |= {"a": hangs, "b": hangs}
    finished = await stage.cascade.run(stage.errand())
    while finished.attempts[0].deployment == "c" and len(finished.attempts) == 1:
        finished = await stage.cascade.run(stage.errand())
    lost, won = finished.attempts
    assert (won.deployment, won.hedge, won.outcome) == ("c", True, AttemptOutcome.ACCEPTED)
    assert (lost.hedge, lost.outcome, lost.reason) == (False, AttemptOutcome.CANCELLED, "another deployment was faster")
    assert lost.tokens.estimated
    assert lost.cost_usd_nanos > 0
    assert stage.upstream.cancelled == [lost.deployment]
    assert all(place.load.in_flight == 0 for place in stage.balancer.places.values())


async def test_a_hedge_that_fails_does_not_spoil_the_first_answer() -> None:
    stage = Stage(hedge={"quantile": 0.95})
    warmed(stage)
    failed = asyncio.Event()

    async def slow(call: Call) -> UpstreamAnswer:
        await failed.wait()
        return GOOD

    async def down(call: Call) -> UpstreamAnswer:
        failed.set()
        raise UpstreamFailed(what="down", retryable=True)

    for name in "abc":
        stage.upstream.scripts[name] = slow
    original = stage.upstream.complete

    async def first_slow_then_down(call: Call) -> UpstreamAnswer:
        if stage.upstream.calls:
            stage.upstream.scripts[call.deployment.name] = down
        return await original(call)

    stage.upstream.complete = first_slow_then_down  # type: ignore[method-assign]
    finished = await stage.cascade.run(stage.errand())
    assert finished.answer is GOOD
    assert sorted((each.outcome.name, each.hedge) for each in finished.attempts) == [("ACCEPTED", False), ("FAILED", True)]


async def test_a_streams_first_token_is_hedged_too() -> None:
    stage = Stage(hedge={"quantile": 0.95})
    warmed(stage)

    async def mute(call: Call) -> AsyncGenerator[Any, None]:
        await asyncio.Event().wait()
        yield

    stage.upstream.streams |= {"a": mute, "b": mute}
    for _ in range(10):
        items = [item async for item in stage.cascade.stream(stage.errand())]
        if len(stage.upstream.asked) > 1:
            break
    assert "".join(item.content for item in items if isinstance(item, UpstreamPiece)) == "forty-two"
    attempts = items[-1].attempts  # type: ignore[union-attr]
    assert sorted((each.outcome.name, each.hedge) for each in attempts) == [("ACCEPTED", True), ("CANCELLED", False)]
    assert all(place.load.in_flight == 0 for place in stage.balancer.places.values())


async def test_hedges_are_a_share_of_the_calls() -> None:
    stage = Stage(hedge={"quantile": 0.95, "calls_share_max": 0.05})
    warmed(stage)
    now_s = stage.clock.monotonic_s()
    assert sum(stage.balancer.hedges["m"].take(now_s) for _ in range(50)) == 5


async def test_an_errand_that_is_given_up_leaves_nothing_under_way() -> None:
    stage = Stage(hedge={"quantile": 0.95})
    warmed(stage)
    stage.upstream.scripts |= dict.fromkeys("abc", hangs)
    task = asyncio.create_task(stage.cascade.run(stage.errand()))
    while len(stage.upstream.calls) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(stage.upstream.cancelled) == sorted(stage.upstream.asked)
    assert all(place.load.in_flight == 0 for place in stage.balancer.places.values())


async def test_no_call_is_made_that_could_be_charged_more_than_the_route_holds() -> None:
    stage = Stage(only="a", retries=5)
    stage.upstream.scripts["a"] = fails(FailureKind.SERVER_ERROR, may_be_billed=True)
    errand = stage.errand()
    candidate = errand.route.candidates[0]
    errand.route = replace(errand.route, worst_case_usd_nanos=candidate.worst_case_usd_nanos + 200_000)
    with pytest.raises(AllAttemptsFailed, match="m: another call could cost more than is held"):
        await stage.cascade.run(errand)
    assert [each.cost_usd_nanos for each in errand.failures] == [10 * 1_000 + 50 * 2_000] * 2


async def test_whoever_leaves_a_stream_is_told_before_it_speaks_what_was_lost_on_the_way() -> None:
    stage = Stage(only="a", retries=2)
    begun = 0

    async def late(call: Call) -> AsyncGenerator[Any, None]:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise UpstreamFailed(what="gone", retryable=True, may_be_billed=True, kind=FailureKind.SERVER_ERROR)
        yield UpstreamPiece("forty", "")
        yield GOOD

    stage.upstream.streams["a"] = late
    stream = stage.cascade.stream(stage.errand())
    lost, piece = await anext(stream), await anext(stream)
    await stream.aclose()
    assert isinstance(lost, Attempt)
    assert (lost.outcome, lost.cost_usd_nanos) == (AttemptOutcome.FAILED, 10 * 1_000 + 50 * 2_000)
    assert isinstance(piece, UpstreamPiece)


async def test_whoever_leaves_a_stream_while_answers_are_judged_is_told_what_was_bought() -> None:
    stage = Stage(only="a")
    errand = stage.errand(spare=True)
    first, spare = errand.route.candidates
    last = replace(spare, role=Role.ESCALATION)

    async def doubts(call: Call) -> UpstreamAnswer:
        return replace(GOOD, content="I'm not sure.")

    stage.upstream.scripts |= {"a": doubts, "d": hangs}
    errand.route = replace(errand.route, candidates=(first, last, last), accept_confidence=0.99)
    stream = stage.cascade.stream(errand)
    bought = await anext(stream)
    assert isinstance(bought, Attempt)
    assert (bought.model, bought.cost_usd_nanos > 0) == ("m", True)
    await stream.aclose()


async def test_an_answer_that_used_what_has_no_rate_is_delivered_and_charged_as_much_as_was_held_for_it() -> None:
    stage = Stage(only="a")

    async def draws(call: Call) -> UpstreamAnswer:
        return replace(GOOD, usage=Reported(10, 3, images=1))

    stage.upstream.scripts["a"] = draws
    errand = stage.errand()
    (attempt,) = (await stage.cascade.run(errand)).attempts
    assert (attempt.cost_usd_nanos, attempt.price_unknown) == (errand.route.candidates[0].worst_case_usd_nanos, True)
    assert stage.balancer.places["a"].load.in_flight == 0
