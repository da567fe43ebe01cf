"""The meter that a streamed answer runs past: nothing is delivered that is not paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from farthing_core.errors import FarthingError

from farthing_orchestrator.ports import PeerUnavailable, Refused
from farthing_orchestrator.request import Piece

AHEAD_TOKENS = 16
"""With no more than this paid for, more is asked for beside the stream: a quarter of the ledger's first bin."""
_BUDGET_REASONS = frozenset({"BUDGET_EXHAUSTED", "BUDGET_DEGRADED"})

TopUp = Callable[[int], Awaitable[int]]
"""Asks that so many output tokens be paid for in all; gives how many are now. Raises Refused, PeerUnavailable."""


class BudgetCut(FarthingError):
    """An answer was cut off, because nothing more of it could be paid. The facts are the ledger's, and how much was delivered."""

    def __init__(self, refused: Refused, *, output_tokens: int) -> None:
        facts = {**refused.facts, "output_tokens_delivered": str(output_tokens)}
        super().__init__(f"{refused.message}; the answer was cut off after {output_tokens} tokens", **facts)
        self.retry_after_s = refused.retry_after_s


class Meter:
    """Counts the tokens of an answer as it is delivered, and has them paid for ahead of need.

    A piece counts as one token at least, for that is how providers cut answers, and all pieces together as the quarters of a token that
    their text likely comes to, since some providers bundle. Once the ledger grants no more, every byte counts as a token: what is left of
    the hold is never passed. `paid_tokens` is None where all is paid for.
    """

    def __init__(
        self, *, top_up: TopUp, paid_tokens: int | None, tokens_max: int, models: frozenset[str], unpaid_if_unreachable: bool
    ) -> None:
        self._top_up = top_up
        self._paid_tokens = paid_tokens
        self._tokens_max = tokens_max
        self._models = models
        self._unpaid_if_unreachable = unpaid_if_unreachable
        self._pieces = 0
        self._quarters = 0
        self._asking: asyncio.Task[None] | None = None
        self._refused: Refused | None = None
        self._unreachable: PeerUnavailable | None = None
        self.tokens = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._asking is not None:
            self._asking.cancel()

    async def admit(self, piece: Piece) -> None:
        """Counts a piece, once it is paid for. Waits for the ledger where it is not.

        Raises BudgetCut where it says no, and PeerUnavailable where it is out of reach and the policy lets nothing pass unpaid.
        """
        tokens = self._tokens_with(piece)
        if self._paid_tokens is not None and piece.model in self._models:
            await self._pay(min(tokens, self._tokens_max), self._paid_tokens)
        self.tokens = tokens

    def _tokens_with(self, piece: Piece) -> int:
        if self._refused is not None:
            return self.tokens + max(1, piece.text_bytes)
        self._pieces += 1
        self._quarters += piece.token_quarters
        return max(self._pieces, -(-self._quarters // 4))

    async def _pay(self, tokens: int, paid: int) -> None:
        if tokens > paid:
            paid = await self._paid_at_last(tokens)
        if paid - tokens <= AHEAD_TOKENS and paid < self._tokens_max and self._asking is None and self._refused is None:
            # One token more is the whole next bin, or as much of it as is free.
            self._asking = asyncio.create_task(self._ask_ahead(paid + 1))

    async def _paid_at_last(self, tokens: int) -> int:
        if self._asking is not None:
            await self._asking
        if tokens > (self._paid_tokens or 0) and self._refused is None:
            await self._ask(tokens)
        paid = self._paid_tokens or 0
        if tokens <= paid:
            return paid
        if self._refused is not None:
            budget = self._refused.reason in _BUDGET_REASONS
            raise BudgetCut(self._refused, output_tokens=self.tokens) if budget else self._refused
        assert self._unreachable is not None
        if not self._unpaid_if_unreachable:
            text = f"{self._unreachable.message}; the answer was cut off after {self.tokens} tokens"
            raise PeerUnavailable(peer="budget", message=text)
        self._paid_tokens = self._tokens_max
        return self._tokens_max

    async def _ask_ahead(self, tokens: int) -> None:
        try:
            await self._ask(tokens)
        finally:
            self._asking = None

    async def _ask(self, tokens: int) -> None:
        try:
            self._paid_tokens = max(self._paid_tokens or 0, await self._top_up(tokens))
        except Refused as refused:
            self._refused = refused
        except PeerUnavailable as error:
            self._unreachable = error
