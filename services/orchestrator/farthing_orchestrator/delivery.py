"""What of a streamed answer has come so far."""

from __future__ import annotations

from dataclasses import replace

from farthing_orchestrator.journey import Journey
from farthing_orchestrator.request import Generated, Line, Offer, Piece


class Delivery:
    """Attempts that ended, who speaks, and what it all came to in the end."""

    def __init__(self, journey: Journey) -> None:
        assert journey.planned is not None
        self._offers = journey.planned.offers
        self._unmasker = journey.unmasker()
        self.generated: Generated | None = None
        self.ended: list[Line] = []
        self.model = ""

    def note(self, item: Piece | Line | Generated) -> None:
        """Takes an item in."""
        if isinstance(item, Generated):
            self.generated = item
        elif isinstance(item, Line):
            self.ended.append(item)
        else:
            self.model = item.model or self.model

    def unmasked(self, piece: Piece) -> Piece | None:
        """The piece with its originals; None while all of it is held back."""
        if self._unmasker is None:
            return piece
        content = self._unmasker.piece(piece.content)
        extra_json = self._unmasker.json(piece.extra_json)
        return replace(piece, content=content, extra_json=extra_json) if content or extra_json else None

    def rest(self) -> Piece | None:
        """What was held back at the end."""
        text = self._unmasker.rest() if self._unmasker else ""
        return Piece(text, "", self.model) if text else None

    def lines(self, output_tokens: int, outcome: str) -> tuple[Line, ...]:
        """What is owed when the answer ends before it is whole: attempts that ended, and what was delivered of those under way.

        Of one that has not spoken yet its prompt is owed; of one that answers in one piece, likely its whole answer.
        """
        return (*self.ended, *(_owed(offer, tokens, outcome) for offer, tokens in self._under_way(output_tokens)))

    def _under_way(self, output_tokens: int) -> list[tuple[Offer, int]]:
        for offer in self._offers:
            if offer.model == self.model:
                whole = any(line.model == self.model and line.outcome == "rejected" for line in self.ended)
                return [] if whole and not offer.streams else [(offer, output_tokens)]
        ended = {line.model for line in self.ended}
        left = [offer for offer in self._offers if offer.model not in ended] or [*self._offers[-1:]]
        opening = [] if ended else [offer for offer in left if offer.opens and not offer.streams]
        return [(offer, 0 if offer.streams else offer.output_tokens_likely) for offer in opening or left[:1]]


def _owed(offer: Offer, output_tokens: int, outcome: str) -> Line:
    tokens = min(output_tokens, offer.output_tokens_max)
    return Line(
        model=offer.model,
        provider=offer.provider,
        deployment="",
        input_tokens=offer.input_tokens,
        cached_input_tokens=0,
        output_tokens=tokens,
        cost_usd_nanos=offer.cost_usd_nanos(tokens),
        outcome=outcome,
        estimated=True,
        tokens_source="estimated",
        price_source=offer.price_source,
        price_unknown=offer.price_unknown,
    )
