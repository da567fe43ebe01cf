"""What is known of one request while it is under way, and the receipt it leaves with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from farthing_core.auto_models import AUTO_MODEL, AUTO_MODELS
from farthing_core.clock import Clock

from farthing_orchestrator.accounting import Account
from farthing_orchestrator.lookups import Flight, Lookup
from farthing_orchestrator.policy import Policy, TaskPolicy
from farthing_orchestrator.ports import Refused, Usage
from farthing_orchestrator.request import (
    Ask,
    BudgetLeft,
    BudgetPace,
    Generated,
    Line,
    Planned,
    RouteWish,
    Shaped,
    Step,
    StepOutcome,
)
from farthing_orchestrator.unmasking import Unmasker
from farthing_orchestrator.wanting import Wanted


@dataclass(frozen=True, slots=True)
class Receipt:
    """The itemised account of one request. Cost + saving = baseline."""

    ask: Ask
    steps: tuple[Step, ...]
    account: Account
    lookup: Lookup | None
    attempts: Any
    escalated: bool
    left: BudgetLeft | None
    objection: Refused | None
    masked_spans: int
    added_latency_us: int
    policy: str
    route: Any = None
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """An answer with its receipt; `usage` and `answer` are opaque. `unmasker` puts originals back where there are any."""

    answer: Any
    model: str
    usage: Any
    extra_json: str
    unmasker: Unmasker | None
    receipt: Receipt


@dataclass(slots=True)
class Journey:
    """One request under way.

    `limited` is whether a rate limit counts it, and `handed_on` whether a purchase, which may outlive its caller, will say when it ended.
    `reserved` is None where nobody knows whether money was set aside. `paid_tokens` are those of a streamed answer that the hold pays
    for, None for all. `objection` is what the ledger said before open models were taken instead. `tokens_used` is None until it is known.
    On a `dry_run` nothing is bought. `checked` is whether a fresh answer is bought beside, to compare a hit with. `flight` is the one that
    it leads, `sign_of_life` when its leader is heard of next.
    """

    ask: Ask
    policy: Policy
    task: TaskPolicy
    clock: Clock
    ends_at_s: float
    began_s: float
    wanted: Wanted = field(default_factory=Wanted)
    steps: list[Step] = field(default_factory=list)
    originals: dict[str, str] = field(default_factory=dict)
    cache_ask: Ask | None = None
    lookup: Lookup | None = None
    shaped: Shaped | None = None
    planned: Planned | None = None
    left: BudgetLeft | None = None
    pace: BudgetPace | None = None
    limited: bool = False
    handed_on: bool = False
    reserved: bool | None = False
    paid_tokens: int | None = None
    objection: Refused | None = None
    tokens_used: int | None = 0
    upstream_us: int = 0
    dry_run: bool = False
    checked: bool = False
    flight: Flight | None = None
    sign_of_life: asyncio.TimerHandle | None = None

    def time_left_s(self) -> float:
        """Seconds until the request's deadline."""
        return max(0.001, self.ends_at_s - self.clock.monotonic_s())

    @property
    def critical(self) -> bool:
        """Whether it may go beyond a limit."""
        return self.task.critical is True or self.ask.overrides.critical

    def step(self, name: str) -> _StepTimer:
        """Times a step; what the block notes goes into the receipt. A block that raises leaves no step."""
        return _StepTimer(self, name)

    def skip(self, name: str, why: str) -> None:
        """Notes a step that was not needed."""
        self.steps.append(Step(name, StepOutcome.SKIPPED, why, 0))

    def defer(self, name: str, what: str) -> None:
        """Notes a step that goes on after the answer."""
        self.steps.append(Step(name, StepOutcome.DEFERRED, what, 0))

    def unmasker(self) -> Unmasker | None:
        """What puts this request's originals back; None when nothing was masked."""
        return Unmasker(self.originals) if self.originals else None

    def model_policy(self) -> str:
        """Whose answers may be served for this request: a named model's, or those that this policy routes for its task and tier."""
        ask = self.ask
        if ask.model not in AUTO_MODELS:
            return ask.model
        return f"{AUTO_MODEL}|policy={self.policy.version}|task={ask.task}|tier={ask.tier}{self.wanted.key}"

    def sharing(self) -> str:
        """Who may share the answer: what was personal enough to be masked, or is said to be, stays with its user."""
        personal = self.originals or self.ask.overrides.cache_personal
        return "user" if personal else self.ask.overrides.cache_sharing or self.policy.cache.sharing

    def route_wish(self) -> RouteWish:
        """What a route is planned for, as things stand."""
        embedding = self.lookup.embedding if self.lookup is not None else b""
        return RouteWish(
            ask=self.ask,
            shaped=self.shaped,
            baseline_model=self.policy.baseline_model or "",
            timeout_ms=round(1000 * self.time_left_s()),
            embedding=embedding,
            budget_pace=self.pace,
            wanted=self.wanted,
        )

    def with_ask(self, **changes: Any) -> None:
        """Changes what is sent on."""
        self.ask = replace(self.ask, **changes)

    def receipt(self, account: Account, generated: Generated | None) -> Receipt:
        """The receipt as things stand."""
        total_us = int((self.clock.monotonic_s() - self.began_s) * 1e6)
        return Receipt(
            ask=self.ask,
            steps=tuple(self.steps),
            account=account,
            lookup=self.lookup,
            attempts=generated.attempts if generated else (),
            escalated=generated.escalated if generated else False,
            left=self.left,
            objection=self.objection,
            masked_spans=len(self.originals),
            added_latency_us=max(0, total_us - self.upstream_us),
            policy=f"farthing.yaml@{self.policy.version}",
            route=self.planned.route if self.planned is not None else None,
            checked=self.checked,
        )

    def usage(self, account: Account, lines: tuple[Line, ...]) -> Usage:
        """What the ledger is to write down."""
        saving = {"cache": account.cache_usd_nanos, "prompt": account.prompt_usd_nanos, "route": account.route_usd_nanos}
        return Usage(self.ask, lines, account.baseline_usd_nanos, saving)


class _StepTimer:
    """A step under way, and what it says of itself."""

    __slots__ = ("_began_s", "_journey", "_name", "outcome", "text")

    def __init__(self, journey: Journey, name: str) -> None:
        self._journey = journey
        self._name = name
        self.outcome = StepOutcome.DONE
        self.text = ""

    def __enter__(self) -> _StepTimer:
        self._began_s = self._journey.clock.monotonic_s()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is None:
            took_us = int((self._journey.clock.monotonic_s() - self._began_s) * 1e6)
            self._journey.steps.append(Step(self._name, self.outcome, self.text, took_us))

    def unavailable(self, why: str) -> None:
        """The step's peer was out of reach and the request goes on without."""
        self.outcome = StepOutcome.UNAVAILABLE
        self.text = why
