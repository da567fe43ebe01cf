"""What is owed for a streamed answer whose caller leaves before it is whole: every call that was made, once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from farthing_orchestrator.delivery import Delivery
from farthing_orchestrator.request import Line, Offer, Piece


def offer(model: str, *, streams: bool = False, opens: bool = False) -> Offer:
    return Offer(model, "p", True, streams, 10, 500, 100, 510_000, 1_000_000_000, opens=opens)


CASCADE = (offer("small", opens=True), offer("peer", opens=True), offer("middle"), offer("dear", streams=True))


def delivery(*offers: Offer) -> Delivery:
    journey: Any = SimpleNamespace(planned=SimpleNamespace(offers=offers), unmasker=lambda: None)
    return Delivery(journey)


def ended(model: str, outcome: str = "rejected") -> Line:
    return Line(model, "p", "p", 10, 0, 40, 50_000, outcome)


def owed(given: Delivery, output_tokens: int = 0) -> list[tuple[str, int]]:
    return [(line.model, line.output_tokens) for line in given.lines(output_tokens, "cancelled")]


def test_those_that_open_side_by_side_are_all_owed() -> None:
    assert owed(delivery(*CASCADE)) == [("small", 100), ("peer", 100)]


def test_what_ended_is_owed_as_it_was_and_who_comes_next_as_far_as_it_came() -> None:
    given = delivery(*CASCADE)
    for model in ("small", "peer"):
        given.note(ended(model))
    assert owed(given) == [("small", 40), ("peer", 40), ("middle", 100)]
    given.note(ended("middle"))
    assert owed(given)[2:] == [("middle", 40), ("dear", 0)]
    given.note(Piece("two", "", "dear", 3, 6))
    assert owed(given, 7)[2:] == [("middle", 40), ("dear", 7)]


def test_an_answer_that_was_bought_before_it_is_delivered_is_owed_once() -> None:
    given = delivery(*CASCADE)
    for model in ("small", "peer", "dear"):
        given.note(ended(model))
    given.note(Piece("two", "", "small", 3, 6))
    assert owed(given, 7) == [("small", 40), ("peer", 40), ("dear", 40)]
