"""Rates by kind of unit, tiers of long prompts and of service, and the arithmetic: multiplied first, divided once, rounded up once.

A kind without a rate of its own falls back to an upper bound, never to zero. The multiples are the largest that provider lists show
(2026-11): writing a cache costs 1.25 times (five minutes) or twice (an hour) a plain token, audio up to 57 times a text token, an image
token up to 20 times, a dearer tier of service up to 2.5 times the usual one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from operator import mul

from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.money import TOKENS_PER_PRICE, Nanos

from farthing_router.pricing.tokens import Tokens

TOKEN_KINDS = (
    "input",
    "cached_input",
    "cache_write_5m",
    "cache_write_1h",
    "audio_input",
    "cached_audio_input",
    "image_input",
    "cached_image_input",
    "output",
    "reasoning",
    "audio_output",
    "image_output",
)
PIECE_KINDS = ("request", "image")
KINDS = TOKEN_KINDS + PIECE_KINDS
_PART_OF = {
    "cached_input": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "input",
    "audio_input": "input",
    "cached_audio_input": "audio_input",
    "image_input": "input",
    "cached_image_input": "image_input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
    "request": "",
    "image": "",
}
CHEAPER_TIERS = frozenset({"batch", "flex"})
"""Tiers of service that no provider charges more for than for the usual one."""
DEARER_TIER_FACTOR = 3
AUDIO_FACTOR = 60
IMAGE_FACTOR = 20
DISCOUNT_BPS_MAX = 10_000

Rates = Mapping[str, int]
"""Nanodollars by kind: per million tokens, or per piece. A kind that is absent falls back."""


class RateMissing(FarthingError):
    """Usage of a kind for which a price names no rate, and none bounds it."""

    def __init__(self, *, kind: str, source: str) -> None:
        super().__init__(
            f"the price ({source}) names no rate for {kind}, and no other bounds it", kind=kind, price_source=source
        )


@dataclass(frozen=True, slots=True)
class Part:
    """What one kind comes to. `unknown` says that the rate is an upper bound because the price names none."""

    kind: str
    quantity: int
    rate_usd_nanos: int
    cost_usd_nanos: int
    unknown: bool


class Table:
    """Rates with every gap filled: what one schedule charges for prompts of one range of lengths."""

    __slots__ = ("_millionths", "_text", "_worst", "gaps", "image_known", "rates", "stated")

    def __init__(self, stated: Rates) -> None:
        self.stated = dict(stated)
        full, gaps = _filled(self.stated)
        self.rates = tuple(full[kind] for kind in KINDS)
        self.gaps = frozenset(KINDS.index(kind) for kind in gaps)
        self.image_known = "image" in self.stated
        self._millionths = tuple(full[kind] * (TOKENS_PER_PRICE if kind in PIECE_KINDS else 1) for kind in KINDS)
        self._text = (full["input"], full["output"], full["request"] * TOKENS_PER_PRICE)
        self._worst = {flags: _worst(self.stated, full, *flags) for flags in product((False, True), repeat=3)}

    def total(self, quantities: tuple[int, ...]) -> int:
        """Millionths of a nanodollar."""
        return sum(map(mul, self._millionths, quantities))

    def total_of_text(self, input_tokens: int, output_tokens: int) -> int:
        """Millionths of a nanodollar, for a call of plain text."""
        rate, output_rate, request = self._text
        return input_tokens * rate + output_tokens * output_rate + request

    def worst(self, input_tokens: int, output_tokens: int, may: tuple[bool, bool, bool]) -> tuple[int, int, bool]:
        """The most that so many tokens can come to, in millionths; the dearest output rate; whether a gap is among these rates.

        `may` says whether the prompt may ask for caching, and whether there may be audio and images in it.
        """
        rate, output_rate, gap = self._worst[may]
        return input_tokens * rate + output_tokens * output_rate + self._text[2], output_rate, gap

    def bounded(self, quantities: tuple[int, ...]) -> bool:
        """Whether a rate was used that is only an upper bound."""
        return any(quantities[index] for index in self.gaps)


def _worst(stated: Rates, full: Rates, cache_writes: bool, audio: bool, images: bool) -> tuple[int, int, bool]:
    """The dearest rates of either side. Images may be made, and caches written unasked, where a price names a rate for it."""
    sent, said = [full["input"]], [full["output"], full["reasoning"], stated.get("image_output", 0)]
    sent.append(stated.get("cache_write_5m", 0))
    if cache_writes:
        sent += [full["cache_write_5m"], full["cache_write_1h"]]
    if audio:
        sent.append(full["audio_input"])
        said.append(full["audio_output"])
    if images:
        sent.append(full["image_input"])
    return max(sent), max(said), audio and not {"audio_input", "audio_output"} <= stated.keys()


def _filled(stated: Rates) -> tuple[dict[str, int], set[str]]:
    full, gaps = dict(stated), set[str]()
    rate, output = full["input"], full["output"]
    full.setdefault("cached_input", rate)
    full.setdefault("cache_write_5m", -(-rate * 5 // 4))
    full.setdefault("cache_write_1h", max(2 * rate, full["cache_write_5m"]))
    full.setdefault("reasoning", output)
    full.setdefault("image_input", rate)
    full.setdefault("cached_image_input", full["image_input"])
    for kind, bound in (
        ("audio_input", rate * AUDIO_FACTOR),
        ("audio_output", output * AUDIO_FACTOR),
        ("image_output", output * IMAGE_FACTOR),
    ):
        if kind not in full:
            full[kind] = bound
            gaps.add(kind)
    if "cached_audio_input" not in full:
        full["cached_audio_input"] = full["audio_input"]
        gaps |= {"cached_audio_input"} if "audio_input" in gaps else set()
    full.setdefault("request", 0)
    full.setdefault("image", 0)
    return full, gaps


class Schedule:
    """What one tier of service charges, by length of the prompt: (tokens that a prompt has more than, rates), rising."""

    __slots__ = ("_long", "rates", "short")

    def __init__(self, rates: Rates, long_context: Iterable[tuple[int, Rates]] = ()) -> None:
        self.short = Table(rates)
        self.rates = self.short.stated
        self._long = tuple((over, Table(each)) for over, each in long_context)

    @property
    def long_context(self) -> tuple[tuple[int, Rates], ...]:
        """The steps above the first."""
        return tuple((over, table.stated) for over, table in self._long)

    def table(self, input_tokens: int) -> tuple[int, Table]:
        """The rates for a prompt, and the threshold that it is above (0 for none): they count for the whole request."""
        for over, table in reversed(self._long):
            if input_tokens > over:
                return over, table
        return 0, self.short

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and (self.rates, self.long_context) == (other.rates, other.long_context)

    def __hash__(self) -> int:
        return hash(tuple(self.rates.items()))


@dataclass(frozen=True, slots=True)
class RateCard:
    """All rates of a model: the usual ones, and those of other tiers of service."""

    usual: Schedule
    tiers: Mapping[str, Schedule] = field(default_factory=dict)

    def schedule(self, tier: str) -> tuple[str, Schedule, int]:
        """The tier whose rates count, its schedule, and the factor that bounds what is not known (1 where it is)."""
        found = self.tiers.get(tier)
        if found is not None:
            return tier, found, 1
        return "", self.usual, DEARER_TIER_FACTOR if tier and tier not in CHEAPER_TIERS else 1

    @property
    def distinct_kinds(self) -> list[str]:
        """The kinds that cost something else than what they are a part of."""
        full = dict(zip(KINDS, self.usual.short.rates, strict=True))
        return [kind for kind in self.usual.rates if kind in _PART_OF and full[kind] != full.get(_PART_OF[kind], 0)]

    def all_rates(self) -> Iterable[Rates]:
        """The rates of every tier and length."""
        for schedule in (self.usual, *self.tiers.values()):
            yield schedule.rates
            yield from (rates for _, rates in schedule.long_context)


def plain_card(input_rate: int, output_rate: int, **other: int) -> RateCard:
    """A card of one schedule."""
    return RateCard(Schedule({"input": input_rate, "output": output_rate, **other}))


def check_schedule(rates: Rates, long_context: Iterable[tuple[int, Rates]], *, field: str, like: Rates | None = None) -> None:
    """Raises FieldInvalid, naming the field under `field`, where rates are missing that must be there.

    Input and output must be named, and wherever the usual short rates (`like`) name a kind, every other step must name it, too: else
    long prompts or dearer tiers would be charged what short ones are.
    """
    must = {"input", "output", *(like or ())}
    over_before = 0
    steps = [(f"{field}.rates", 0, rates), *((f"{field}.long_context[{n}].rates", *s) for n, s in enumerate(long_context))]
    for number, (where, over, step) in enumerate(steps):
        if missing := [kind for kind in KINDS if kind in must and kind not in step]:
            raise FieldInvalid(field=where, problem=f"names no {missing[0]}")
        if number and over <= over_before:
            place = where.removesuffix(".rates")
            raise FieldInvalid(field=f"{place}.input_tokens_over", problem=f"must be more than {over_before}")
        over_before, must = over, must | set(rates)


def quantities(tokens: Tokens) -> tuple[int, ...]:
    """How much of each of KINDS a call used, every token in one kind."""
    cached = max(0, tokens.cached_input_tokens - tokens.cached_audio_input_tokens - tokens.cached_image_input_tokens)
    writes_5m, writes_1h = tokens.cache_write_5m_tokens, tokens.cache_write_1h_tokens
    audio = max(0, tokens.audio_input_tokens - tokens.cached_audio_input_tokens)
    images = max(0, tokens.image_input_tokens - tokens.cached_image_input_tokens)
    cached_media = tokens.cached_audio_input_tokens + tokens.cached_image_input_tokens
    plain = max(0, tokens.input_tokens - cached - cached_media - writes_5m - writes_1h - audio - images)
    said = tokens.output_tokens - tokens.reasoning_tokens - tokens.audio_output_tokens - tokens.image_output_tokens
    return (
        plain,
        cached,
        writes_5m,
        writes_1h,
        audio,
        tokens.cached_audio_input_tokens,
        images,
        tokens.cached_image_input_tokens,
        max(0, said),
        tokens.reasoning_tokens,
        tokens.audio_output_tokens,
        tokens.image_output_tokens,
        1,
        tokens.images,
    )


def nanos(millionths: int, *, factor: int = 1, discount_bps: int = 0) -> Nanos:
    """Whole nanodollars, after factor and discount: divided once, rounded up."""
    if not discount_bps:
        return Nanos(-(-millionths * factor // TOKENS_PER_PRICE))
    return Nanos(-(-millionths * factor * (DISCOUNT_BPS_MAX - discount_bps) // (TOKENS_PER_PRICE * DISCOUNT_BPS_MAX)))
