"""What money is set aside for: all that a route may cost, or a part of it that grows while its answer comes."""

from __future__ import annotations

from dataclasses import dataclass

from farthing_orchestrator.request import Ask, BudgetLeft, Planned


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the ledger sizes a hold by: what is certain or cannot be stopped, and the price and the most tokens of what streams.

    `rate` is in nanodollars per million tokens.
    """

    model: str
    input_usd_nanos: int
    input_tokens: int
    rate: int
    output_tokens_max: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What a hold is asked for. Without `sizing` it is the worst case of the whole route."""

    ask: Ask
    planned: Planned
    critical: bool
    sizing: Sizing | None = None

    @property
    def open_models(self) -> bool:
        """Whether only open models may be asked."""
        return not any(offer.hosted for offer in self.planned.offers)


@dataclass(frozen=True, slots=True)
class Held:
    """What was set aside. Of a sized hold `output_tokens` are paid for."""

    left: BudgetLeft
    output_tokens: int = 0


def sizing_of(planned: Planned) -> Sizing | None:
    """What a route's hold is sized by; None where no answer of it can be stopped.

    Whoever speaks live is one of those that stream, so the dearest of them counts. The others answer in one piece, to be judged first.
    """
    live = [offer for offer in planned.offers if offer.streams]
    if not live:
        return None
    others = [offer for offer in planned.offers if not offer.streams]
    return Sizing(
        model=live[0].model,
        input_usd_nanos=max(offer.prompt_usd_nanos for offer in live) + sum(offer.worst_case_usd_nanos for offer in others),
        input_tokens=max(offer.input_tokens for offer in live)
        + sum(offer.input_tokens + offer.output_tokens_max for offer in others),
        rate=max(offer.rate for offer in live),
        output_tokens_max=max(offer.output_tokens_max for offer in live),
    )


def paid_tokens(held: Held, sizing: Sizing | None) -> int | None:
    """How many output tokens a hold pays for; None where it pays for all, or where nothing that it is charged to limits them."""
    if sizing is None or held.output_tokens >= sizing.output_tokens_max:
        return None
    limited = held.left.free_tokens is not None or (held.left.free_usd_nanos is not None and sizing.rate > 0)
    return held.output_tokens if limited else None
