"""Three deployments under steady traffic, of which one goes bad for a while: calls move away within seconds, and come back."""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import count
from random import Random

import pytest
from farthing_core.clock import ManualClock
from farthing_router.catalog import parse_catalog
from farthing_router.deployments.balancing import Balancer
from farthing_router.deployments.cooldowns import Cooldowns
from farthing_router.deployments.places import Place, Ticket
from farthing_router.store.cooldowns_memory import MemoryCooldowns
from farthing_router.upstreams import FailureKind, UpstreamFailed

CALLS_PER_S = 30.0
LATENCY_S = 1.0
BAD_FROM_S, BAD_UNTIL_S, END_S = 60.0, 180.0, 330.0


class World:
    """Calls arrive by chance and take a time by chance; from one moment to another `c` is slow, or fails, or refuses."""

    def __init__(
        self, seed: int, *, slower: float = 1.0, failing: float = 0.0, kind: FailureKind = FailureKind.SERVER_ERROR
    ) -> None:
        self.clock, self.rng = ManualClock(), Random(seed)
        deployments = [{"provider": "p", "name": name} for name in "abc"]
        config = {
            "providers": {"p": {"base_url": "http://127.0.0.1:1/v1", "api_key_optional": True}},
            "models": {"m": {"deployments": deployments}},
        }
        catalog = parse_catalog(config, key_of=lambda _: None, list_price=lambda *_: None)
        cooldowns = Cooldowns(clock=self.clock, store=MemoryCooldowns(self.clock))
        self.balancer = Balancer(catalog, cooldowns=cooldowns, rng=Random(seed + 1))
        self.places = self.balancer.of(catalog.model("m"))
        self.slower, self.failing, self.kind = slower, failing, kind
        self.asked: list[tuple[float, str]] = []
        self.failed_s: list[float] = []

    def run(self) -> None:
        ends: list[tuple[float, int, Place, Ticket, bool]] = []
        order, arrives_s = count(), 0.0
        while arrives_s < END_S:
            arrives_s += self.rng.expovariate(CALLS_PER_S)
            while ends and ends[0][0] <= arrives_s:
                self._end(*heapq.heappop(ends))
            self.clock.advance(arrives_s - self.clock.monotonic_s())
            place = self.balancer.choose(self.places, arrives_s, tokens=100)
            if not isinstance(place, Place):
                continue
            self.asked.append((arrives_s, place.deployment.name))
            bad = place.deployment.name == "c" and BAD_FROM_S <= arrives_s < BAD_UNTIL_S
            fails = bad and self.rng.random() < self.failing
            takes_s = self.rng.gammavariate(4, LATENCY_S / 4) * (self.slower if bad else 1.0) * (0.05 if fails else 1.0)
            ticket = place.begin(arrives_s, tokens=100, given_s=120.0)
            heapq.heappush(ends, (arrives_s + takes_s, next(order), place, ticket, fails))

    def share(self, start_s: float, end_s: float) -> float:
        counts = Counter(name for moment_s, name in self.asked if start_s <= moment_s < end_s)
        return counts["c"] / sum(counts.values())

    def _end(self, now_s: float, number: int, place: Place, ticket: Ticket, fails: bool) -> None:
        self.clock.advance(now_s - self.clock.monotonic_s())
        if fails:
            self.failed_s.append(now_s)
            place.failed(ticket, now_s, UpstreamFailed(what="down", retryable=True, kind=self.kind))
        else:
            place.answered(ticket, now_s, output_tokens=200, used=100, limits=None)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("world", "seconds"),
    [
        ({"slower": 10.0}, 15.0),
        ({"failing": 0.5}, 5.0),
        ({"failing": 1.0}, 3.0),
        ({"failing": 1.0, "kind": FailureKind.RATE_LIMITED}, 3.0),
    ],
    ids=["ten times slower", "every second call fails", "every call fails", "refuses every call"],
)
def test_calls_move_away_from_what_goes_bad_within_seconds_and_come_back(
    world: dict[str, float], seconds: float, seed: int
) -> None:
    made = World(seed, **world)  # type: ignore[arg-type]
    made.run()
    assert made.share(10, BAD_FROM_S) == pytest.approx(1 / 3, abs=0.06)
    assert made.share(BAD_FROM_S + seconds, BAD_UNTIL_S) < 0.06
    assert made.share(BAD_UNTIL_S + 100, END_S) == pytest.approx(1 / 3, abs=0.06)
    assert len(made.failed_s) < 0.03 * CALLS_PER_S * (BAD_UNTIL_S - BAD_FROM_S)


def test_deployments_of_different_speed_share_calls_so_that_nobody_waits_much_longer() -> None:
    made = World(1)
    made.run()
    assert [made.share(start, start + 60) for start in (60, 180)] == [pytest.approx(1 / 3, abs=0.05)] * 2
