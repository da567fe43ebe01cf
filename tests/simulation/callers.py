"""What callers ask for in a world. The same request always says the same, so that repeats are repeats."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from farthing_budget.operations import (
    ANY_WORK,
    Adjust,
    Dispatch,
    Lapse,
    Operation,
    Record,
    Release,
    Reserve,
    Reset,
    Settle,
    Sizing,
    TopUp,
    Work,
)
from farthing_budget.periods import Period
from farthing_budget.usage import Saving, UsageLine, UsageRecord
from farthing_core.scopes import Scope

# Few values, so that sums often meet a limit exactly, and often miss it by one.
AMOUNTS = (0, 1, 1, 249, 250, 250, 500, 750, 1_000, 1_250)
_KINDS = (
    ("reserve",) * 6
    + ("settle",) * 4
    + ("release", "lapse", "lapse", "dispatch", "dispatch", "top up", "top up", "record", "adjust", "reset", "reset")
)
_LATER = ("settle", "release", "lapse", "dispatch", "top up")
_MODELS = ("small", "large")
_PROVIDERS = {"small": "north", "large": "south"}


class Callers:
    """Makes operations at random. `budget_ids` tells which budgets there are just now."""

    def __init__(self, rng: Random, scopes: Sequence[Scope], budget_ids: Callable[[], Sequence[str]], *, sizes: bool) -> None:
        self._rng, self._scopes, self._budget_ids, self._sizes = rng, scopes, budget_ids, sizes
        self._ids = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(30)]
        self._sent: dict[str, Operation] = {}

    def scope_of(self, request_id: str) -> Scope:
        """Who asks under an id."""
        return self._scopes[int(request_id[-4:], 16) % len(self._scopes)]

    def batch(self, count_max: int, *, foreseeable: bool = False) -> list[Operation]:
        """Some operations; on request only those whose verdict nobody need hear to know it. How large a sized hold is, and how far it
        holds others back, is the ledger's to say.
        """
        made = [self._operation() for _ in range(self._rng.randrange(1, count_max + 1))]
        return [each for each in made if not isinstance(each, Reserve | TopUp)] if foreseeable and self._sizes else made

    def _operation(self) -> Operation:
        rng, kind = self._rng, self._rng.choice(_KINDS)
        # Corrections have ids of their own: settling a correction would be another story.
        request_id = rng.choice(self._ids[:8] if kind in ("adjust", "reset") else self._ids[8:])
        granted = [each for each, first in self._sent.items() if isinstance(first, Reserve)]
        if kind in _LATER and granted and rng.random() < 0.8:
            request_id = rng.choice(granted)
        scope = self.scope_of(request_id)
        if kind in ("reserve", "record", "adjust", "reset", "reset"):
            # An id stands for a request; once in a while it is used for two.
            name = f"{kind}/{request_id}" if kind == "record" and rng.random() < 0.3 else request_id
            if name not in self._sent:
                self._sent[name] = self._new(kind, request_id, scope)
            return self._sent[name]
        if kind == "settle":
            return Settle(scope, request_id, self._usage(request_id), b"s" * 32)
        if kind == "top up":
            usd, tokens = rng.choice(AMOUNTS) + rng.choice(AMOUNTS), rng.choice(AMOUNTS)
            return TopUp(scope, request_id, usd, tokens, rng.choice((0, 30, 200, 1_000)))
        return {"release": Release, "lapse": Lapse, "dispatch": Dispatch}[kind](scope, request_id)

    def _new(self, kind: str, request_id: str, scope: Scope) -> Operation:
        rng, budgets = self._rng, self._budget_ids()
        granted = [each for each in self._sent.values() if isinstance(each, Reserve)]
        if kind == "reset" and budgets:
            return Reset(scope, request_id, budgets[0] if rng.random() < 0.6 else rng.choice(budgets), "", b"z" * 32)
        if kind == "adjust" and granted:
            corrected = rng.choice(granted)
            amount, tokens = rng.choice((-250, -1, 1, 250)), rng.choice((-1, 0, 1))
            return Adjust(corrected.scope, request_id, corrected.request_id, "", amount, tokens, "", b"a" * 32)
        if kind != "reserve":
            return Record(scope, request_id, self._usage(request_id), b"c" * 32)
        ttl_s, dispatch, amount = rng.choice((60, 600)), rng.random() < 0.3, rng.choice(AMOUNTS)
        sizing = (
            Sizing(rng.choice((1, 100)), 10, 250_000, 1_500, "large", "chat") if self._sizes and rng.random() < 0.4 else None
        )
        if sizing is not None:
            amount = sizing.input_usd_nanos + 375
        return Reserve(scope, request_id, amount, rng.choice(AMOUNTS), ttl_s, b"r" * 32, self._work(), dispatch, sizing)

    def _work(self) -> Work:
        rng = self._rng
        if rng.random() < 0.4:
            return ANY_WORK
        models = tuple(rng.sample(_MODELS, rng.randrange(3)))
        tags = ("blue",) if rng.random() < 0.4 else ()
        return Work(models, tuple(_PROVIDERS[each] for each in models), tags, rng.random() < 0.2, rng.random() < 0.2)

    def _usage(self, request_id: str) -> UsageRecord:
        """What a request used: one line or two, by its id."""
        digits = [int(digit, 16) for digit in request_id[:6]]
        models = _MODELS[: 1 + digits[0] % 2] if digits[1] % 2 else _MODELS[1:]
        lines = []
        for model, digit in zip(models, digits[2:], strict=False):
            cost = AMOUNTS[digit % len(AMOUNTS)]
            lines.append(UsageLine(model, _PROVIDERS[model], "d", cost, 0, digit, cost, "accepted", False))
        tags = ("blue",) if digits[5] % 3 == 0 else ()
        return UsageRecord("chat", tuple(lines), 0, Saving(), tags=tags)


def budget_of(rng: Random, scope: str, *, plain: bool) -> dict[str, Any]:
    """The terms of a budget, at random, in the model's words. The ledger has a quick way for plain ones."""
    period = rng.choice((Period.DAY, Period.DAY, Period.MONTH, Period.YEAR, *(() if plain else (Period.ROLLING,))))
    limits = [250 * rng.randrange(3, 20) - rng.choice((0, 0, 1)), None, None]
    if rng.random() < 0.3:
        limits[1] = 250 * rng.randrange(6, 30)
    if not plain and rng.random() < 0.3:
        limits[2] = rng.randrange(3, 12)
    return {
        "scope": scope,
        "period": period,
        "zone": rng.choice(("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe")),
        "start_month": rng.choice((1, 4)) if period is Period.YEAR else 1,
        "window_s": rng.choice((3_600, 86_400)) if period is Period.ROLLING else 0,
        "limits": tuple(limits),
        "soft": 0 if plain else rng.choice((0, 0, 80)),
        "critical": rng.choice((200, 200, 100, 150)),
        "degrades": rng.random() < 0.2,
        "only": rng.choice((None, None, None, ("model", "large"), ("provider", "north"), ("tag", "blue"))),
    }
