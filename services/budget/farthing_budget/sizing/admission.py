"""Who may start on a budget, who may go on, and what a refusal says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from farthing_core.money import TOKENS_PER_PRICE

from farthing_budget.sizing.bins import TOKENS_MAX, bin_end, bin_of
from farthing_budget.sizing.learner import Learner, StreamKey
from farthing_budget.sizing.pool import NO_RISK, Pool, Risk, add, bound, subtract, worst


@dataclass(slots=True)
class Node:
    """A budget on a path: what is settled, what running streams have drawn (input included), and their pooled risk."""

    name: str
    limit_usd_nanos: int
    spent_usd_nanos: int = 0
    drawn_usd_nanos: int = 0
    pool: Pool = NO_RISK

    @property
    def free_usd_nanos(self) -> int:
        """What nobody has spent or drawn."""
        return self.limit_usd_nanos - self.spent_usd_nanos - self.drawn_usd_nanos


@dataclass(slots=True)
class Stream:
    """An answer on its way. `price` is in nanodollars per million output tokens; everything it owns is drawn on every node of its path."""

    key: StreamKey
    price: int
    input_usd_nanos: int
    tokens_max: int
    owned_tokens: int = 0
    risk: Risk = field(default=NO_RISK, repr=False)

    @property
    def drawn_usd_nanos(self) -> int:
        """The cost of its input and of the output tokens it owns."""
        return self.cost_usd_nanos(self.owned_tokens)

    def cost_usd_nanos(self, tokens: int) -> int:
        """The cost of its input and of this many output tokens."""
        return self.input_usd_nanos - (-tokens * self.price // TOKENS_PER_PRICE)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a stream may not start: the node with the least to spare, what was needed there, and what is free of it.

    `tokens_max` is a max_tokens with which the same request would have been admitted at this moment; None where not even one token is.
    """

    node: str
    need_usd_nanos: int
    free_usd_nanos: int
    tokens_max: int | None


def admit(path: Sequence[Node], stream: Stream, learner: Learner) -> Refusal | None:
    """Starts a stream that owns its first bin, if every node of the path holds that and what all its streams may still cost."""
    first = min(bin_end(0), stream.tokens_max)
    risk = learner.risk(stream.key, 0, tokens_max=stream.tokens_max, price=stream.price)
    drawn = stream.cost_usd_nanos(first)
    pools = [add(node.pool, risk) for node in path]
    for node, pool in zip(path, pools, strict=True):
        if drawn + worst(pool) > node.free_usd_nanos and drawn + bound(pool) > node.free_usd_nanos:
            return _refusal(path, pools, stream=stream, drawn=drawn)
    for node, pool in zip(path, pools, strict=True):
        node.drawn_usd_nanos += drawn
        node.pool = pool
    stream.owned_tokens, stream.risk = first, risk
    learner.started(stream.key)
    return None


def draw(path: Sequence[Node], stream: Stream, learner: Learner) -> int:
    """Gives a running stream its next bin, or as much of it as is free, ahead of newcomers; how many tokens. None: it must be cut.

    Called when the stream has used up what it owns; must not be called at its max_tokens.
    """
    owned = stream.owned_tokens
    index = bin_of(owned + 1)
    target = min(bin_end(index), stream.tokens_max) if owned < TOKENS_MAX else min(2 * owned, stream.tokens_max)
    free = min(node.free_usd_nanos for node in path)
    drawn = stream.drawn_usd_nanos
    if stream.cost_usd_nanos(target) - drawn > free:
        target = min(target, (drawn - stream.input_usd_nanos + free) * TOKENS_PER_PRICE // stream.price)
        if target <= owned:
            return 0
    if index > bin_of(owned):
        learner.advanced(stream.key, bin_of(owned))
    risk = learner.risk(stream.key, index, tokens_max=stream.tokens_max, price=stream.price)
    more = stream.cost_usd_nanos(target) - drawn
    for node in path:
        node.drawn_usd_nanos += more
        node.pool = add(subtract(node.pool, stream.risk), risk)
    stream.owned_tokens, stream.risk = target, risk
    return target - owned


def settle(path: Sequence[Node], stream: Stream, learner: Learner, *, tokens: int, natural: bool) -> int:
    """Ends a stream that gave this many tokens; what it cost, which is above what was drawn only where more came than it owned.

    Not `natural`: its max_tokens, its client or a cut stopped it, so that its length says little.
    """
    cost = stream.cost_usd_nanos(tokens)
    drawn = stream.drawn_usd_nanos
    for node in path:
        node.drawn_usd_nanos -= drawn
        node.spent_usd_nanos += cost
        node.pool = subtract(node.pool, stream.risk)
    owned = bin_of(stream.owned_tokens)
    for passed in range(owned, bin_of(tokens)):
        learner.advanced(stream.key, passed)
    (learner.ended if natural else learner.stopped)(stream.key, max(owned, bin_of(tokens)))
    return cost


def _refusal(path: Sequence[Node], pools: Sequence[Pool], *, stream: Stream, drawn: int) -> Refusal:
    node, pool = min(zip(path, pools, strict=True), key=lambda each: each[0].free_usd_nanos - bound(each[1]))
    # A stream adds no more to the bound than its own worst case, so what is over without it can all be promised in tokens.
    over = min(each.free_usd_nanos - bound(each.pool) for each in path) - stream.input_usd_nanos
    tokens = min(over * TOKENS_PER_PRICE // stream.price, stream.tokens_max) if stream.price > 0 else 0
    return Refusal(node.name, drawn + bound(pool), node.free_usd_nanos, tokens if tokens > 0 else None)
