"""How often streams left each bin of tokens, and how often they ended there: what is learned of the lengths of answers.

Counts fade with every exposure of their own bin, in two memories. So counts that were gathered apart (by another replica, or since the
last time they were saved) add up without a record of when each came: n exposures weigh w = (1 − kⁿ) / (1 − k) where one keeps k, and what
came before them has by then faded by kⁿ = 1 − w · (1 − k).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from farthing_core.errors import FieldInvalid

from farthing_budget.sizing.bins import BINS
from farthing_budget.sizing.pool import MEMORIES

KEEPS = (1 - 1 / 1000, 1 - 1 / 300)
"""What a memory keeps of a bin's counts at each new exposure: a long and a short one."""
LIGHTLY = 50.0
"""How many exposures of a bin are left of what is no longer believed."""
_FORMAT = 1
_PACKED = struct.Struct(f"<BI{2 * MEMORIES * BINS}d")
_EPOCHS_MAX = 2**32 - 1
_SLACK = 1e-6


def _nothing() -> list[list[float]]:
    return [[0.0] * BINS for _ in KEEPS]


@dataclass(slots=True)
class Counts:
    """By memory and bin: how many streams left the bin, and how many of them ended in it.

    `epoch` is how often it was found that streams had become longer than was counted.
    """

    left: list[list[float]] = field(default_factory=_nothing)
    ended: list[list[float]] = field(default_factory=_nothing)
    epoch: int = 0

    def leave(self, index: int, *, ended: bool) -> None:
        """A stream left a bin: it ended there, or went on in the next."""
        for left, ends, keep in zip(self.left, self.ended, KEEPS, strict=True):
            left[index] = left[index] * keep + 1.0
            ends[index] = ends[index] * keep + ended

    def retract(self, index: int) -> None:
        """A stream that was said to have gone on from a bin had not."""
        for left, ends in zip(self.left, self.ended, strict=True):
            left[index] = max(ends[index], left[index] - 1.0)

    def add(self, later: Counts) -> None:
        """Counts in what was gathered apart, as if it had come after all that is here."""
        if later.epoch > self.epoch:  # several replicas may have found it, of one and the same change
            self.lengthen(later.epoch)
        for mine, mine_ended, new, new_ended, keep in zip(self.left, self.ended, later.left, later.ended, KEEPS, strict=True):
            for index, weight in enumerate(new):
                if weight:
                    kept = max(0.0, 1.0 - weight * (1.0 - keep))
                    mine[index] = mine[index] * kept + weight
                    mine_ended[index] = mine_ended[index] * kept + new_ended[index]

    def lengthen(self, epoch: int) -> None:
        """Begins an epoch: believes that streams go on twice as long as was counted before it, and holds that lightly."""
        self.epoch = min(epoch, _EPOCHS_MAX)
        for left, ends in zip(self.left, self.ended, strict=True):
            for index, gone in enumerate(left):
                kept = min(1.0, LIGHTLY / gone) if gone else 0.0
                left[index] *= kept
                ends[index] *= 0.5 * kept

    def copy(self) -> Counts:
        """The same counts, apart."""
        return Counts([list(part) for part in self.left], [list(part) for part in self.ended], self.epoch)

    def packed(self) -> bytes:
        """As they are kept."""
        return _PACKED.pack(_FORMAT, self.epoch, *[value for part in (*self.left, *self.ended) for value in part])


def unpacked(kept: bytes) -> Counts:
    """Counts as they were kept. Raises FieldInvalid for what is none."""
    if len(kept) != _PACKED.size or kept[0] != _FORMAT:
        raise FieldInvalid(field="counts", problem="are not in a form that can be read")
    _, epoch, *values = _PACKED.unpack(kept)
    parts = [list(values[start : start + BINS]) for start in range(0, len(values), BINS)]
    counts = Counts(parts[:MEMORIES], parts[MEMORIES:], epoch)
    for left, ended, keep in zip(counts.left, counts.ended, KEEPS, strict=True):
        most = 1.0 / (1.0 - keep) + _SLACK
        if not all(0.0 <= ends <= gone + _SLACK <= most + _SLACK for ends, gone in zip(ended, left, strict=True)):
            raise FieldInvalid(field="counts", problem="are more than can be")
    return counts


def hazards(counts: Counts, running: Sequence[float], above: Sequence[Sequence[float]], *, shrink: float) -> list[list[float]]:
    """By memory and bin, the share of the streams in a bin that end there. What is above counts like `shrink` exposures."""
    return [
        [
            (end + shrink * prior) / (gone + 0.5 * now + shrink)
            for end, gone, now, prior in zip(ends, left, running, priors, strict=True)
        ]
        for ends, left, priors in zip(counts.ended, counts.left, above, strict=True)
    ]
