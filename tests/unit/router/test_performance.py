"""Counting calls: histograms that add up, lines through latencies, and a meter that holds nobody up."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.performance.cells import EVERYBODY, KINDS, KINDS_MAX, LEVELS, Cell, CellKey, Flush, level_of, rolled_up
from farthing_router.performance.histograms import BUCKETS, LATENCY_MS, TOKENS_PER_S, dense
from farthing_router.performance.meter import Meter, MeterTerms
from farthing_router.performance.speeds import Line, ModelSpeeds
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.errands import Attempt, AttemptOutcome, Errand, Finished, StreamBroken
from farthing_router.routing.routes import Candidate, Role, Route
from farthing_router.store import StoreUnavailable
from farthing_router.upstreams import FailureKind, UpstreamAnswer
from hypothesis import given, settings
from hypothesis import strategies as st

HOUR = datetime(2026, 7, 1, 12, tzinfo=UTC)
LATENCIES = st.lists(st.floats(min_value=1.0, max_value=3.6e6), min_size=1, max_size=200)


def counted(values: Sequence[float]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for value in values:
        number = LATENCY_MS.bucket(value)
        counts[number] = counts.get(number, 0) + 1
    return counts


@settings(max_examples=300, deadline=None)
@given(LATENCIES, st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_within_five_percent(values: list[float], share: float) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values) - 1e-9)) - 1]
    found = LATENCY_MS.quantiles([dense(counted(values))], (share,))[0][0]
    assert abs(found - exact) <= 0.05 * exact


@settings(deadline=None)
@given(LATENCIES, LATENCIES)
def test_a_merged_histogram_is_that_of_the_union(one: list[float], other: list[float]) -> None:
    merged = [a + b for a, b in zip(dense(counted(one)), dense(counted(other)), strict=True)]
    assert merged == dense(counted([*one, *other]))


def test_histograms_are_bounded_and_take_any_value() -> None:
    for value in (0.0, 1e-9, 1.0, 1e12, LATENCY_MS.largest):
        assert 0 <= LATENCY_MS.bucket(value) < BUCKETS
    assert LATENCY_MS.largest > 3_600_000
    assert TOKENS_PER_S.largest > 100_000
    assert math.isnan(LATENCY_MS.quantiles([[0] * BUCKETS], (0.5,))[0][0])


def attempt(outcome: AttemptOutcome = AttemptOutcome.ACCEPTED, **values: Any) -> Attempt:
    given = {"model": "m", "provider": "p", "deployment": "d", "reason": "", "confidence": None}
    of = {"tokens": Tokens(input_tokens=10, output_tokens=50), "cost_usd_nanos": 7, "latency_us": 2_500_000}
    return Attempt(outcome=outcome, **{**given, **of, **values})


def test_every_kind_of_failure_has_its_place_and_there_is_room_for_more() -> None:
    assert {kind.value for kind in FailureKind} <= set(KINDS)
    assert len(KINDS) < KINDS_MAX


def test_a_cell_tells_answers_failures_and_calls_that_were_called_off_apart() -> None:
    cell = Cell()
    cell.take(attempt(first_token_us=300_000))
    cell.take(attempt(AttemptOutcome.REJECTED))
    cell.take(attempt(AttemptOutcome.FAILED, failure_kind="overloaded", cost_usd_nanos=0))
    cell.take(attempt(AttemptOutcome.FAILED, failure_kind="content_filter"))
    cell.take(attempt(AttemptOutcome.CANCELLED, hedge=True))
    assert (cell.attempts, cell.answers, cell.failures, cell.cancelled, cell.down) == (5, 2, 2, 1, 1)
    assert (cell.cost_usd_nanos, cell.input_tokens, cell.output_tokens) == (28, 50, 250)
    assert sum(cell.latency.values()) == 2
    assert sum(cell.first_token.values()) == 1
    assert cell.kinds == {KINDS.index("overloaded"): 1, KINDS.index("content_filter"): 1}


def test_answers_of_a_batch_do_not_say_how_fast_a_model_is() -> None:
    cell = Cell()
    cell.take(attempt(service_tier="batch", latency_us=10**10))
    assert (cell.answers, cell.paced, cell.line_ms) == (1, 0, 0.0)


def test_everybody_is_the_sum_of_all_organisations() -> None:
    cells = []
    for organization, count in (("acme", 3), ("globex", 4)):
        cell = Cell()
        for _ in range(count):
            cell.take(attempt())
        cells.append((CellKey(organization, HOUR, "p", "m", "d", "chat"), cell))
    of = {(place.organization, place.level): cell.attempts for place, cell in rolled_up(cells)}
    assert of == {(name, level): count for name, count in ((EVERYBODY, 7), ("acme", 3), ("globex", 4)) for level in LEVELS}
    assert cells[0][1].attempts == 3


def test_a_question_reads_the_level_with_the_fewest_rows_that_tells_enough_apart() -> None:
    assert [level_of(names) for names in ((), ("model",), ("task",), ("deployment", "model"), ("task", "model"))] == [
        "model",
        "model",
        "task",
        "deployment",
        "all",
    ]


def seen(points: Sequence[tuple[int, float]], task: str = "chat") -> ModelSpeeds:
    speeds = ModelSpeeds()
    for tokens, latency_ms in points:
        speeds.take("m", task, output_tokens=tokens, latency_ms=latency_ms)
    return speeds


def test_a_prediction_is_fair_to_longer_answers() -> None:
    rng = random.Random(5)
    points = [(tokens, (400 + 20 * tokens) * rng.uniform(0.8, 1.2)) for tokens in (rng.randrange(10, 800) for _ in range(400))]
    speeds = seen(points)
    for tokens in (10, 100, 1_000):
        found = speeds.latency_ms("m", "chat", output_tokens=tokens)
        assert found == pytest.approx(400 + 20 * tokens, rel=0.2)


def test_nothing_is_said_of_what_nobody_saw() -> None:
    speeds = seen([])
    assert speeds.latency_ms("m", "chat", output_tokens=10) is None
    assert speeds.error_rate("m") == 0
    speeds.fail("m", "chat", down=True)
    assert speeds.latency_ms("m", "chat", output_tokens=10) is None
    assert speeds.error_rate("m") == 0.5


def test_answers_of_one_length_still_tell_longer_ones_apart() -> None:
    speeds = seen([(100, 2_000.0)] * 50)
    at = speeds.latency_ms("m", "chat", output_tokens=100)
    longer = speeds.latency_ms("m", "chat", output_tokens=400)
    assert at == pytest.approx(2_000, rel=0.01)
    assert longer is not None
    assert 4_000 < longer < 8_000


def test_a_task_of_its_own_kind_moves_the_line_as_far_as_its_answers_bear_out() -> None:
    speeds = seen([(100, 2_000.0), (200, 3_000.0)] * 100)
    for _ in range(100):
        speeds.take("m", "long prompts", output_tokens=100, latency_ms=6_000.0)
    usual, slow = (speeds.latency_ms("m", task, output_tokens=100) for task in ("chat", "long prompts"))
    assert usual is not None
    assert slow is not None
    assert slow > usual + 2_000
    unknown = speeds.latency_ms("m", "new", output_tokens=100)
    assert unknown is not None
    assert usual < unknown < slow


def test_a_prediction_is_never_below_a_moment_nor_falls_with_length() -> None:
    speeds = seen([(10, 5_000.0), (1_000, 100.0)] * 20)
    values = [speeds.latency_ms("m", "chat", output_tokens=tokens) for tokens in (0, 10, 1_000, 100_000)]
    assert all(value is not None and value >= 1 for value in values)
    assert values == sorted(values, key=lambda value: value or 0)


def test_what_all_replicas_saw_replaces_what_was_known_and_is_not_counted_twice() -> None:
    speeds = seen([(100, 1_000.0)] * 10)
    speeds.begin()
    speeds.adopt({("m", "chat"): Line(20, 2_000, 200_000, 20_000, 2_000_000, 25, 5)})
    assert speeds.error_rate("m") == pytest.approx(5 / 26)
    assert speeds.latency_ms("m", "chat", output_tokens=100) == 1_000


def test_what_is_known_of_models_is_bounded() -> None:
    speeds = ModelSpeeds()
    for number in range(30_000):
        speeds.take(f"m{number}", "chat", output_tokens=1, latency_ms=1.0)
    assert speeds.latency_ms("m0", "chat", output_tokens=1) == 1
    assert speeds.latency_ms("m29999", "chat", output_tokens=1) is None


def errand(**values: Any) -> Errand:
    route = Route((Candidate("m", Role.FIRST, "p", "d", 10, 100, 50, 1, 1),), "fixed", "", 9, 5, 99, 4, 0.0)
    given = {
        "prices": None,
        "conversation": None,
        "parameters": None,
        "wants_json": False,
        "service_tier": "",
        "ends_at_s": 9.0,
    }
    of = {"task": "chat", "request_id": "r", "scope": "organizations/acme/workspaces/w", "calls_left": 4}
    return Errand(route=route, **{**given, **of, **values})


def finished(*attempts: Attempt) -> Finished:
    return Finished(UpstreamAnswer("", "", "stop", "", None), "m", attempts, False, 1)


class Kept:
    """A store of flushes that can be away."""

    def __init__(self) -> None:
        self.away = False
        self.flushes: dict[int, Flush] = {}
        self.known: list[tuple[str, str]] = []

    async def add(self, flush: Flush) -> None:
        # The answer is lost after the rows are written, as on a connection that breaks.
        assert self.flushes.setdefault(flush.sequence, flush) is flush
        if self.away:
            raise StoreUnavailable(problem="away")

    async def lines(self, *, now: datetime) -> dict[tuple[str, str], Line]:
        return {("m", "chat"): Line(4, 400, 40_000, 4_000, 400_000, 4, 0)}

    async def tasks(self, *, since: datetime, count_max: int) -> list[tuple[str, str]]:
        return self.known

    async def forget(self, **_: Any) -> int:
        return 0


def meter(store: Any, *, tasks_max: int = 100, **terms: Any) -> Meter:
    return Meter(store, clock=ManualClock(HOUR), new_id=lambda: "replica", terms=MeterTerms(**terms), tasks_max=tasks_max)


def attempts_in(flushes: dict[int, Flush], organization: str = "acme") -> int:
    return sum(cell.attempts for flush in flushes.values() for key, cell in flush.cells if key.organization == organization)


async def test_counts_wait_for_the_database_and_what_was_sent_is_sent_again_as_it_was() -> None:
    store = Kept()
    counting = meter(store)
    store.away = True
    for _ in range(3):
        counting.ended(errand(), finished(attempt(), attempt(AttemptOutcome.REJECTED)), None)
        assert not await counting.flush()
    store.away = False
    assert await counting.flush()
    assert attempts_in(store.flushes) == 6
    assert sorted(store.flushes) == [1, 2]
    assert counting.dropped == 0


async def test_what_finds_no_room_is_counted() -> None:
    store = Kept()
    counting = meter(store, cells_max=2)
    for name in ("a", "b", "c", "a"):
        counting.ended(errand(), finished(attempt(model=name)), None)
    assert counting.dropped == 1
    await counting.flush()
    assert attempts_in(store.flushes) == 3


async def test_case_32_label_sets_are_bounded_over_a_long_run() -> None:
    store = Kept()
    counting = meter(store, tasks_max=5)
    for number in range(20_000):
        counting.ended(errand(task=f"t{number}", scope=f"organizations/o{number % 3}"), finished(attempt()), None)
        if number % 5_000 == 0:
            await counting.flush()
    await counting.flush()
    tasks = {(key.organization, key.task) for flush in store.flushes.values() for key, _ in flush.cells}
    assert len(tasks) <= 3 * 6
    assert sum(flush.attempts for flush in store.flushes.values()) == 20_000


async def test_tasks_that_were_known_before_stay_told_apart() -> None:
    store = Kept()
    store.known = [("acme", "chat"), ("acme", "ads")]
    counting = meter(store, tasks_max=2, flush_s=60)
    async with counting.running():
        for task in ("new", "ads", "chat"):
            counting.ended(errand(task=task), finished(attempt()), None)
    assert {key.task for key, _ in store.flushes[1].cells if key.organization == "acme"} == {"other", "ads", "chat"}


async def test_speeds_begin_with_what_was_known_and_go_on_with_what_happens() -> None:
    counting = meter(Kept(), flush_s=60)
    async with counting.running():
        assert counting.speeds.latency_ms("m", "chat", output_tokens=100) == 1_000
        for _ in range(100):
            counting.ended(errand(), finished(attempt(latency_us=3_000_000, tokens=Tokens(output_tokens=100))), None)
        now_ms = counting.speeds.latency_ms("m", "chat", output_tokens=100)
        assert now_ms is not None
        assert now_ms > 2_800


async def test_broken_streams_and_refusals_are_told_apart_from_answers() -> None:
    store = Kept()
    counting = meter(store)
    counting.ended(errand(), finished(attempt()), StreamBroken(model="m", what="cut"))
    refused = errand(failures=[attempt(AttemptOutcome.FAILED)], rejected=RuntimeError())
    counting.ended(refused, None, RuntimeError())
    torso = attempt(AttemptOutcome.REJECTED, failure_kind="timeout")
    counting.ended(errand(), finished(torso, attempt(AttemptOutcome.CANCELLED, failure_kind="cancelled", hedge=True)), None)
    await counting.flush()
    cell = next(cell for key, cell in store.flushes[1].cells if key.organization == "acme")
    assert (cell.attempts, cell.answers, cell.failures, cell.cancelled, cell.down) == (4, 0, 3, 1, 2)
    assert cell.kinds == {KINDS.index("broken_stream"): 1, KINDS.index("rejected"): 1, KINDS.index("timeout"): 1}
    assert counting.speeds.error_rate("m") == 2 / 4
    (((organization, at, provider), minutes),) = store.flushes[1].minutes
    assert (organization, at, provider) == ("acme", HOUR, "p")
    assert (minutes.attempts, minutes.down) == ({0: 3}, {0: 2})
    assert HOUR + timedelta(hours=1) > at
