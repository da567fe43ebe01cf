"""What planning a route costs, with many models and rules.

`python -m evals.planning [--models 50] [--rules 100] [--rounds 200] [--data DIR]`.
Every strategy in turn, with every latency and quality known, and the rule that decides behind all others: each of them has to be looked at.
Medians and the best of the rounds; the machine's noise is in the former.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, get_args

import uvloop
from farthing_core.clock import SystemClock
from farthing_router.calibration.complexity import complexity
from farthing_router.catalog import Catalog, parse_catalog
from farthing_router.pricing.price_book import PriceBook
from farthing_router.routing.advisers import Advisers
from farthing_router.routing.lengths import OutputLengths
from farthing_router.routing.matching import RuleIndex
from farthing_router.routing.planning import Planner
from farthing_router.routing.ports import Known
from farthing_router.routing.routes import Wish
from farthing_router.routing.rules import Action, Match, Rule, Strategy
from farthing_router.store import NewPrice, PriceRow

from evals.report import print_figures, print_table

_SPACE = "organizations/acme/workspaces/search"
_SCOPE = f"{_SPACE}/projects/ranker/users/ann"


class _Everything:
    """Speeds and Qualities of every model."""

    def latency_ms(self, model: str, task: str, *, output_tokens: int) -> int | None:
        return 500 + 37 * int(model) % 1_000

    def error_rate(self, model: str) -> float:
        return 0.01

    def quality(self, model: str, wish: Wish) -> Known | None:
        return Known(0.5 + int(model) / 200, 0.4, 1.0, 50, "feedback")


class _NoRows:
    """An empty price book."""

    async def add(self, price: NewPrice, *, request_id: str, fingerprint: bytes) -> tuple[PriceRow, bool]:
        return PriceRow(1, price), False

    async def after(self, number: int, *, rows_max: int) -> list[PriceRow]:
        return []


def catalog(models: int) -> Catalog:
    """So many models of two providers, each dearer than the one before."""
    entries: dict[str, Any] = {
        str(number): {
            "provider": "pq"[number % 2],
            "price": {"input_usd_per_million_tokens": str(number + 1), "output_usd_per_million_tokens": str(3 * number + 1)},
        }
        for number in range(models)
    }
    providers = {name: {"base_url": "http://127.0.0.1:9/v1", "api_key_optional": True} for name in "pq"}
    return parse_catalog(
        {"providers": providers, "models": entries, "routing": {}}, key_of=lambda _: None, list_price=lambda *_: None
    )


def rules(count: int, action: Action) -> RuleIndex:
    """A rule for everything, behind so many that are looked at and do not match."""
    never = Match(tags=("nobody",), input_tokens_min=10, complexity_min=0.0)
    others = [
        Rule(str(number), _SPACE if number % 2 else "organizations/acme", never, Action("cheapest"), created_number=number)
        for number in range(count - 1)
    ]
    return RuleIndex([*others, Rule("last", "", Match(), action)])


def wish(**fields: Any) -> Wish:
    """A request whose prompt looks hard."""
    usual: dict[str, Any] = {"model": "", "task": "chat", "tier": "", "needs": frozenset(), "images": 0, "bytes_bound": 1_200}
    counted = {"input_tokens": {"o200k": 300}, "baseline_input_tokens": {}, "output_tokens_max": None}
    open_to_all = {"allowed_providers": frozenset(), "open_models_only": False, "baseline_model": "", "scope": _SCOPE}
    return Wish(**{**usual, **counted, **open_to_all, "prompt": "Prove it. " * 100, **fields})


def timed(rounds: int, what: Callable[[], Any]) -> list[float]:
    """Microseconds of every round, the first few left out."""
    took_us = []
    for _ in range(rounds + 5):
        began_s = time.perf_counter()
        what()
        took_us.append((time.perf_counter() - began_s) * 1e6)
    return took_us[5:]


async def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("models", 50), ("rules", 100), ("rounds", 200)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--data", help="not used: everything is made up here")
    given = parser.parse_args(arguments)
    known, everything, asked = catalog(given.models), _Everything(), wish()
    book = PriceBook(catalog=known, store=_NoRows(), clock=SystemClock(), list_price=lambda *_: None)
    measured: dict[str, list[float]] = {}
    for strategy in get_args(Strategy):
        advisers = Advisers(rules=rules(given.rules, Action(strategy)), speeds=everything, qualities=everything)
        planner = Planner(known, OutputLengths(), advisers=advisers)
        measured[strategy] = timed(given.rounds, lambda planner=planner: planner.plan(asked, book.prices("acme")))  # type: ignore[misc]
    named, index = wish(model="3"), rules(given.rules, Action("cheapest"))
    measured["a named model"] = timed(given.rounds, lambda: planner.plan(named, book.prices("acme")))
    measured["finding the rule"] = timed(given.rounds, lambda: index.find(asked, tier="premium", complexity=lambda: 0.5))
    measured["complexity of 1 KB"] = timed(given.rounds, lambda: complexity(asked.prompt))
    rows = [(name, f"{statistics.median(each):.0f}", f"{min(each):.0f}") for name, each in measured.items()]
    print_table(("planning", "median µs", "best µs"), rows)
    print_figures(
        "planning", {f"{name.replace(' ', '_')}_us": round(statistics.median(each), 1) for name, each in measured.items()}
    )


if __name__ == "__main__":
    uvloop.run(main())
