"""Taking in answers: nothing waits, everything is bounded, and what cannot be written is counted."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.learning.outcomes import Outcome, Part
from farthing_router.learning.recording import Recorder
from farthing_router.pricing.tokens import Tokens
from farthing_router.store import StoreUnavailable
from farthing_router.upstreams import UpstreamAnswer

SCOPE = "organizations/acme"


class Notebook:
    """A store that keeps what it is given, or raises what it is told to."""

    def __init__(self) -> None:
        self.written: list[Outcome] = []
        self.failing: BaseException | None = None

    async def add(self, outcomes: Sequence[Outcome]) -> None:
        if self.failing is not None:
            raise self.failing
        self.written += outcomes


class Nobody:
    """No organisation has opinions."""

    def of(self, organization: str) -> None:
        return None


def recorder(store: Notebook, *, scored_per_s: float = 1_000.0, listeners: Any = (), clock: Any = None) -> Recorder:
    return Recorder(
        store=store,  # type: ignore[arg-type]
        fitted=Nobody(),
        clock=clock or ManualClock(),
        prompt_of=lambda conversation: "What is 6 * 7?",
        scored_per_s=scored_per_s,
        listeners=listeners,
    )


def bought(model: str, text: str) -> Any:
    answer = UpstreamAnswer(text, "", "stop", "", None)
    attempt = SimpleNamespace(cost_usd_nanos=10, tokens=Tokens(input_tokens=5, output_tokens=3))
    return SimpleNamespace(candidate=SimpleNamespace(model=model), answer=answer, attempt=attempt)


def ended(request_id: str, *, shadow_of: str = "", scope: str = SCOPE) -> tuple[Any, Any]:
    answers = [bought("small", "The answer is 41."), bought("large", "The answer is 42.")]
    errand = SimpleNamespace(
        request_id=request_id,
        scope=scope,
        task="sums",
        shadow_of=shadow_of,
        embedding=b"",
        conversation=[],
        parameters=SimpleNamespace(tools_json="[]"),
        wants_json=True,
        asked=SimpleNamespace(json=True, tools=()),
        bought=answers,
    )
    return errand, SimpleNamespace(answer=answers[1].answer)


async def test_the_served_answer_and_those_passed_over_are_written_with_what_they_needed() -> None:
    store, heard = Notebook(), []
    taking = recorder(store, listeners=[lambda *told: heard.append(told)])
    taking.ended(*ended("R1"), None)
    await taking.flush()
    assert [(each.model, each.part) for each in store.written] == [("small", Part.PASSED_OVER), ("large", Part.SERVED)]
    served = store.written[1]
    assert (served.request_id, served.cost_usd_nanos, served.needs) == ("r1", 10, {"json", "tools"})
    assert served.automatic is not None
    assert heard == [("acme", "r1", "large", served.automatic)]


async def test_a_shadow_is_known_as_one_and_what_has_no_scope_or_answer_is_left_out() -> None:
    store = Notebook()
    taking = recorder(store)
    taking.ended(*ended("r1", shadow_of="r0"), None)
    taking.ended(ended("r2")[0], None, RuntimeError())
    taking.ended(*ended("r3", scope=""), None)
    await taking.flush()
    assert [each.part for each in store.written if each.model == "large"] == [Part.SHADOW]


async def test_an_answer_is_at_hand_before_it_is_written() -> None:
    store = Notebook()
    taking = recorder(store)
    taking.ended(*ended("R1"), None)
    taking.ended(*ended("r2"), None)
    found = taking.recent("acme", "r2")
    assert found is not None
    assert found.model == "large"
    assert not store.written
    assert taking.recent("other", "r2") is None
    await taking.flush()
    assert sorted({each.request_id for each in store.written}) == ["r1", "r2"]


async def test_while_the_database_is_away_answers_wait_up_to_a_bound_and_the_rest_is_counted() -> None:
    store = Notebook()
    store.failing = StoreUnavailable(problem="gone")
    taking = recorder(store)
    for number in range(2_500):
        taking.ended(*ended(f"r{number}"), None)
    assert taking.dropped == 500
    for _ in range(2):
        try:
            await taking.flush()
        except StoreUnavailable:
            continue
    store.failing = None
    await taking.flush()
    assert len({each.request_id for each in store.written}) == 2_000


async def test_a_batch_that_cannot_be_written_does_not_keep_back_what_comes_after() -> None:
    store = Notebook()
    store.failing = ValueError("strange")
    taking = recorder(store)
    taking.ended(*ended("r1"), None)
    await taking.flush()
    store.failing = None
    taking.ended(*ended("r2"), None)
    await taking.flush()
    assert {each.request_id for each in store.written} == {"r2"}
    assert taking.dropped == 2


async def test_a_strange_answer_is_counted_and_ends_nothing() -> None:
    store = Notebook()
    taking = recorder(store)
    errand, finished = ended("r1")
    errand.bought[1].attempt = None
    taking.ended(errand, finished, None)
    taking.ended(*ended("r2"), None)
    await taking.flush()
    assert {each.request_id for each in store.written} == {"r2"}
    assert taking.dropped == 1


async def test_more_answers_than_can_be_scored_are_written_unscored() -> None:
    store, clock = Notebook(), ManualClock()
    taking = recorder(store, scored_per_s=3.0, clock=clock)
    for number in range(10):
        taking.ended(*ended(f"r{number}"), None)
    await taking.flush()
    served = [each for each in store.written if each.part is Part.SERVED]
    assert (len(served), sum(each.automatic is not None for each in served)) == (10, 3)
    clock.advance(1.0)
    taking.ended(*ended("later"), None)
    await taking.flush()
    assert store.written[-1].automatic is not None


async def test_while_the_database_is_away_no_conversation_is_kept_in_memory() -> None:
    class Conversation(list[Any]):
        pass

    store, kept = Notebook(), list[weakref.ref[Any]]()
    store.failing = StoreUnavailable(problem="gone")
    taking = recorder(store)
    for number in range(600):
        errand, finished = ended(f"r-{number}")
        errand.conversation = Conversation()
        kept.append(weakref.ref(errand.conversation))
        taking.ended(errand, finished, None)
    del errand, finished
    with pytest.raises(StoreUnavailable):
        await taking.flush()
    gc.collect()
    assert all(each() is None for each in kept)
