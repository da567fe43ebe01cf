"""What models cost: a rate card, where it is from, and what that makes of the tokens of a call."""

from __future__ import annotations

from dataclasses import dataclass

from farthing_core.errors import FarthingError
from farthing_core.money import Nanos

from farthing_router.pricing.rates import KINDS, PIECE_KINDS, Part, RateCard, RateMissing, Schedule, nanos, quantities
from farthing_router.pricing.tokens import Tokens
from farthing_router.store import PriceRow

_AT = {kind: index for index, kind in enumerate(KINDS)}


class PriceUnknown(FarthingError):
    """A model without a price, or without a rate of a kind that is needed: its use would be free by mistake."""

    def __init__(self, *, model: str, kinds: str = "") -> None:
        of = f" of {kinds}" if kinds else ""
        super().__init__(
            f"no price{of} is known for {model}: give it one in farthing.yaml (models.{model}.price) or in the price book",
            model=model,
            kinds=kinds,
        )


@dataclass(frozen=True, slots=True)
class Rated:
    """What a call costs. `unknown` says that it is an upper bound because a rate is not known."""

    cost_usd_nanos: Nanos
    unknown: bool
    service_tier: str = ""
    input_tokens_over: int = 0


@dataclass(frozen=True, slots=True)
class Worst:
    """The most a call can cost, and the dearest rate at which its answer may be billed, in nanodollars per million tokens."""

    cost_usd_nanos: Nanos
    output_usd_nanos_per_million_tokens: int
    unknown: bool


@dataclass(frozen=True, slots=True)
class Price:
    """A rate card, where it is from, and the discount of a contract, in hundredths of a percent.

    `unknown` marks an upper bound; `row` is the row of the price book that it came from, if any.
    """

    card: RateCard
    source: str
    discount_bps: int = 0
    unknown: bool = False
    row: PriceRow | None = None

    def of(self, tokens: Tokens) -> Nanos:
        """What a call costs at the usual tier of service, rounded up once. Raises RateMissing."""
        return self.rate(tokens).cost_usd_nanos

    def rate(self, tokens: Tokens, service_tier: str = "") -> Rated:
        """What a call costs, rounded up once. Raises RateMissing for images billed by the piece without a rate."""
        tier, schedule, factor = self.card.schedule(service_tier)
        over, table = schedule.table(tokens.input_tokens)
        used = quantities(tokens)
        if tokens.images and not table.image_known and not tokens.image_output_tokens:
            raise RateMissing(kind="image", source=self.source)
        cost = nanos(table.total(used), factor=factor, discount_bps=self.discount_bps)
        return Rated(cost, self.unknown or factor > 1 or table.bounded(used), tier, over)

    def parts(self, tokens: Tokens, service_tier: str = "") -> list[Part]:
        """The cost by kind. Each part is what the cost grew by when it was added, so that the parts add up to the nano."""
        _, schedule, factor = self.card.schedule(service_tier)
        _, table = schedule.table(tokens.input_tokens)
        parts: list[Part] = []
        before, sum_so_far, used = 0, 0, quantities(tokens)
        for index, kind in enumerate(KINDS):
            count, rate = used[index], table.rates[index]
            if not count or (kind in PIECE_KINDS and not rate):
                continue
            alone = tuple(count if each == index else 0 for each in range(len(KINDS)))
            sum_so_far += table.total(alone)
            cost = nanos(sum_so_far, factor=factor, discount_bps=self.discount_bps)
            parts.append(Part(kind, count, rate * factor, cost - before, factor > 1 or index in table.gaps))
            before = cost
        return parts

    def worst(
        self,
        input_tokens: int,
        output_tokens: int,
        *,
        service_tier: str = "",
        may: tuple[bool, bool, bool] = (False, False, False),
    ) -> Worst:
        """The most a call can cost.

        Prompts may be written into the provider's cache: where the price names a rate for that it counts. `may` says whether the
        request asks for caching, and whether it may have audio and images: any of these may then be all of a side.
        """
        _, schedule, factor = self.card.schedule(service_tier)
        _, table = schedule.table(input_tokens)
        total, output_rate, gap = table.worst(input_tokens, output_tokens, may)
        cost = nanos(total, factor=factor, discount_bps=self.discount_bps)
        if factor > 1 or self.discount_bps:
            output_rate = nanos(output_rate * 1_000_000, factor=factor, discount_bps=self.discount_bps)
        return Worst(cost, output_rate, self.unknown or factor > 1 or gap)

    def text(self, input_tokens: int, output_tokens: int, *, service_tier: str = "") -> Nanos:
        """What a call of plain text costs, rounded up once."""
        _, schedule, factor = self.card.schedule(service_tier)
        _, table = schedule.table(input_tokens)
        return nanos(table.total_of_text(input_tokens, output_tokens), factor=factor, discount_bps=self.discount_bps)

    def unknown_kinds(self, tokens: Tokens, service_tier: str = "") -> str:
        """The kinds of a call whose rates are not known, for people."""
        return ", ".join(part.kind for part in self.parts(tokens, service_tier) if part.unknown)

    def shown(self, kind: str) -> int:
        """The usual rate of a kind for short prompts, the discount taken off, rounded up: for lists."""
        rate = self.card.usual.short.rates[_AT[kind]]
        return nanos(rate * 1_000_000, discount_bps=self.discount_bps)

    @property
    def level(self) -> int:
        """How dear it is, for putting models in order."""
        return self.shown("input") + self.shown("output")


def upper_bound(known: list[Price], *, factor: int) -> Price | None:
    """The dearest known rates, of any tier and length, times a factor; None where nothing is known that costs anything."""
    dearest: dict[str, int] = {}
    for price in known:
        for rates in price.card.all_rates():
            for kind in KINDS:
                if kind in rates:
                    dearest[kind] = max(dearest.get(kind, 0), rates[kind] * factor)
    if not dearest.get("input") or not dearest.get("output"):
        return None
    return Price(RateCard(Schedule(dearest)), "upper bound", unknown=True)
