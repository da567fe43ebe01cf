"""Grants that nobody was told of: the connection broke while they were committed.

Whoever asks again is the first to hear of such a hold. Told that it is a repeat, a caller would think that somebody else has the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime

from farthing_budget.lane import Verdict
from farthing_budget.operations import Hold, Operation, Outcome

_KNOWN_MAX = 10_000


class Untold:
    """Remembers when this process made the holds of commits whose outcome it never learned; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], datetime] = OrderedDict()

    def remember(self, holds: Iterable[Hold]) -> None:
        """These were being committed when the connection broke."""
        for hold in holds:
            self._made[hold.organization, hold.request_id] = hold.created_at
        while len(self._made) > _KNOWN_MAX:
            self._made.popitem(last=False)

    def told(self, operations: Sequence[Operation], verdicts: list[Verdict]) -> list[Verdict]:
        """The verdicts as they are told: what was committed unheard is no repeat the first time."""
        if self._made:
            for number, operation in enumerate(operations):
                made = self._made.pop((operation.scope.organization, operation.request_id), None)
                verdict = verdicts[number]
                if made is not None and isinstance(verdict, Outcome) and verdict.hold.created_at == made:
                    verdicts[number] = verdict._replace(repeated=False)
        return verdicts
