"""Exploring without falling under a quality floor, in every window of WINDOW requests.

A request that goes to another model than the reference may lose an answer that the reference would have had. Before one is sent there,
the window that it would stand in is reckoned with it: the loss to be feared of every such request, plus how far luck may go beyond what
is expected, must leave at least `share` of the reference's quality (conservative bandits: Wu, Shariff, Lattimore and Szepesvári, 2016,
here in a sliding window). Luck is bounded at every moment at once by the normal mixture of Robbins (1970; Howard, Ramdas, McAuliffe and
Sekhon, 2021).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

WINDOW = 200
_ALPHA = 0.05
_MIXTURE = 5.0
_FEARED_DEVIATIONS = 1.3
_TOGETHER = 0.6
"""Two models are right and wrong together more than chance would have it: they differ on about six tenths of what independence says."""
_LUCK_PER_VARIANCE = 0.4
_NOTHING = 1e-9
_WINDOWS_MAX = 4_000


@dataclass(frozen=True, slots=True)
class Stake:
    """What is expected of the model and of the reference on one request, and how sure that is (standard deviations)."""

    quality: float
    deviation: float
    reference_quality: float
    reference_deviation: float

    @property
    def feared_loss(self) -> float:
        """By how much the model may be worse than the reference; a little below zero at best."""
        spread = math.hypot(self.deviation, self.reference_deviation)
        return max(-0.05, self.reference_quality - self.quality + _FEARED_DEVIATIONS * spread)

    @property
    def risk(self) -> float:
        """About what it takes of what a window may lose: the loss to be feared, and its part of what luck may do."""
        return max(0.0, self.feared_loss) + _LUCK_PER_VARIANCE * self.variance

    @property
    def variance(self) -> float:
        """Of the difference of the two answers."""
        good, reference = self.quality, self.reference_quality
        return _TOGETHER * (good * (1 - reference) + reference * (1 - good))


@dataclass(slots=True)
class _Window:
    """The last requests: feared loss, variance and what the reference is expected to reach; sums kept along."""

    stakes: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    loss: float = 0.0
    variance: float = 0.0
    reference: float = 0.0

    def add(self, loss: float, variance: float, reference: float) -> None:
        gone = self.stakes[0] if len(self.stakes) == WINDOW else (0.0, 0.0, 0.0)
        self.stakes.append((loss, variance, reference))
        self.loss += loss - gone[0]
        self.variance += variance - gone[1]
        self.reference += reference - gone[2]


class Floors:
    """The windows of every organisation and task, in this replica's memory. Each replica keeps the floor on its own requests, and so all do
    together."""

    def __init__(self) -> None:
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()

    def allows(self, key: tuple[str, str], stake: Stake, *, share: float) -> bool:
        """Whether a request may go to another model than the reference while at least `share` of the reference's quality stays safe."""
        window = self._windows.get(key) or _Window()
        gone = window.stakes[0] if len(window.stakes) == WINDOW else (0.0, 0.0, 0.0)
        loss = max(0.0, window.loss - gone[0] + stake.feared_loss)
        variance = window.variance - gone[1] + stake.variance
        reference = window.reference - gone[2] + stake.reference_quality
        # A window that is not full yet is judged as if the rest of it went to the reference.
        reference += (WINDOW - min(WINDOW, len(window.stakes) + 1)) * stake.reference_quality
        return loss + luck(variance) <= (1 - share) * reference

    def used(self, key: tuple[str, str], stake: Stake, *, share: float) -> float:
        """How much of what may be risked in the window is risked, 0 to 1."""
        window = self._windows.get(key)
        if window is None:
            return 0.0
        reference = window.reference + (WINDOW - len(window.stakes)) * stake.reference_quality
        risked = max(0.0, window.loss) + luck(window.variance)
        return min(1.0, risked / max(1e-9, (1 - share) * reference))

    def sent(self, key: tuple[str, str], stake: Stake | None, *, reference_quality: float) -> None:
        """A request was sent: to another model at this stake, or to the reference (None)."""
        window = self._windows.setdefault(key, _Window())
        self._windows.move_to_end(key)
        if stake is None:
            window.add(0.0, 0.0, reference_quality)
        else:
            window.add(stake.feared_loss, stake.variance, stake.reference_quality)
        while len(self._windows) > _WINDOWS_MAX:
            self._windows.popitem(last=False)


def luck(variance: float) -> float:
    """How far a sum of this variance strays from its expectation, at every moment with probability 95 % no farther."""
    if variance <= _NOTHING:
        return 0.0
    mixed = variance + _MIXTURE
    return math.sqrt(mixed * (math.log(mixed / _MIXTURE) + 2 * math.log(1 / _ALPHA)))
