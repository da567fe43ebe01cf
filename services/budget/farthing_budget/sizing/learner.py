"""Learns how long answers get, from streams that ended and from those that still run.

Per key and bin it keeps the hazard: the share of the streams that reached a bin and ended in it. A stream counts in every bin it went
through, whether it has ended or not, and for half a bin where it is now: the life table's actuarial estimate (Cutler and Ederer,
Journal of Chronic Diseases 8, 1958). Without the running ones a cold start would see only short answers. Hazards are shrunk from the key
towards the project's model and task, from there towards the organisation's model, and from there towards Lomax's law with α = 3 and
t0 = 768 tokens, whose mean is 384: that is what holds are sized by where nothing is known yet.

Streams that have become longer without notice are found by a cumulative sum (Page, Biometrika 41, 1954): as soon as what was seen is
likelier by far under half the hazards, these are believed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import log
from typing import NamedTuple

from farthing_budget.sizing.bins import BINS, bin_end
from farthing_budget.sizing.counts import KEEPS, Counts, hazards
from farthing_budget.sizing.pool import MEMORIES, Risk
from farthing_budget.sizing.risk import risk_of

SHRINK = 20.0
"""How many exposures what is above a key is worth to it."""
SURE = 16.0
"""The log of how much likelier longer streams must be before they are believed in: a false alarm in about nine million exposures."""
RISKS_PER_KEY_MAX = 256
KEYS_MAX = 4096
_ANY = -1
_HAZARD_MAX = 0.98


class StreamKey(NamedTuple):
    """What streams of like length have in common; the buckets are binary orders of magnitude."""

    scope: str
    model: str
    task: str
    input_bucket: int
    max_bucket: int

    @property
    def line(self) -> tuple[StreamKey, StreamKey, StreamKey]:
        """The key, that of the same scope, model and task, and that of the organisation's model."""
        organization = "/".join(self.scope.split("/", 2)[:2])
        return self, self._replace(input_bucket=_ANY, max_bucket=_ANY), StreamKey(organization, self.model, "", _ANY, _ANY)


@dataclass(slots=True)
class _Entry:
    """What is known of a key, how many of its streams run in each bin, and the risks reckoned from a snapshot of it.

    Streams that run are counted as this process sees them, and fade: one may have begun before a restart or end on another replica.
    `doubt` is the cumulative sum that speaks for longer streams, and `gains` what a stream that goes on from a bin adds to it.
    """

    line: tuple[StreamKey, StreamKey, StreamKey]
    counts: Counts = field(default_factory=Counts)
    running: list[float] = field(default_factory=lambda: [0.0] * BINS)
    seen: int = 0
    events_left: int = 0
    hazards: list[list[float]] = field(default_factory=list)
    risks: dict[tuple[int, int, int], Risk] = field(default_factory=dict)
    gains: list[float] = field(default_factory=lambda: [0.0] * BINS)
    doubt: float = 0.0

    def stop(self, index: int) -> None:
        """A stream runs in this bin no more."""
        self.running[index] = max(0.0, self.running[index] * KEEPS[-1] - 1.0)


class Learner:
    """Hazards of a bounded number of keys, those longest unused forgotten first. Not for use from several threads.

    What it learned since it was last asked is kept apart as well, to be shared with other replicas and with the next start.
    """

    def __init__(self, *, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._entries: OrderedDict[StreamKey, _Entry] = OrderedDict()
        self._fresh: OrderedDict[StreamKey, Counts] = OrderedDict()

    def started(self, key: StreamKey) -> None:
        """A stream began: it owns the first bin."""
        for entry in self._seen(key):
            entry.running[0] += 1.0

    def moved(self, key: StreamKey, before: int, after: int) -> None:
        """A stream went on from one bin to a later one; or back, where it turned out that it had not got so far."""
        line = self._seen(key)
        for index in range(before, after):
            self._left(line, index, ended=False)
        for index in range(after, before):
            for entry in line:
                entry.counts.retract(index)
                self._fresh_of(entry.line[0]).retract(index)
        for entry in line:
            entry.stop(before)
            entry.running[after] += 1.0

    def ended(self, key: StreamKey, index: int) -> None:
        """A stream came to its own end in this bin."""
        line = self._seen(key)
        self._left(line, index, ended=True)
        for entry in line:
            entry.stop(index)

    def stopped(self, key: StreamKey, index: int) -> None:
        """A stream was stopped in this bin by its max_tokens, its client or a cut: how long it would have been is not known."""
        for entry in self._seen(key):
            entry.stop(index)

    def risk(self, key: StreamKey, index: int, *, tokens_max: int, price: int) -> Risk:
        """What a stream that owns everything up to the end of this bin may still cost, at this price in nanodollars per million tokens."""
        entry = self._entry(key)
        if entry.events_left <= 0:
            self._renew(entry)
        question = index, tokens_max, price
        risk = entry.risks.get(question)
        if risk is None:
            if len(entry.risks) >= RISKS_PER_KEY_MAX:
                entry.risks.clear()
            risk = entry.risks[question] = risk_of(entry.hazards, index, tokens_max=tokens_max, price=price)
        return risk

    def take_fresh(self) -> dict[StreamKey, Counts]:
        """What was learned since the last time; it is the caller's now."""
        taken, self._fresh = self._fresh, OrderedDict()
        return dict(taken)

    def give_back(self, fresh: Mapping[StreamKey, Counts]) -> None:
        """Takes back what could not be shared, as if it had never been asked for."""
        since, self._fresh = self._fresh, OrderedDict(fresh)
        for key, counts in since.items():
            self._fresh_of(key).add(counts)

    def adopt(self, shared: Mapping[StreamKey, Counts]) -> None:
        """Puts what all replicas know of some keys in the place of what this one knows; what is fresh here comes on top."""
        for key, counts in shared.items():
            entry = self._entry(key)
            if counts.epoch > entry.counts.epoch:
                entry.doubt = 0.0  # another replica found the same change first
            entry.counts = counts.copy()
            entry.events_left = 0
            if key in self._fresh:
                entry.counts.add(self._fresh[key])

    def _left(self, line: tuple[_Entry, ...], index: int, *, ended: bool) -> None:
        """A stream left a bin, because it ended or because it went on."""
        for entry in line:
            entry.counts.leave(index, ended=ended)
            self._fresh_of(entry.line[0]).leave(index, ended=ended)
        family = line[1]
        family.doubt = max(0.0, family.doubt - log(2.0) if ended else family.doubt + line[0].gains[index])
        if family.doubt > SURE:
            family.doubt = 0.0
            self._lengthen(family.line[1])

    def _lengthen(self, family: StreamKey) -> None:
        """Streams of a family have become longer than was learned of them."""
        for key, entry in self._entries.items():
            if entry.line[1] == family:
                entry.counts.lengthen(entry.counts.epoch + 1)
                # Until hazards are taken afresh, nothing more speaks for a change that is believed already.
                entry.events_left, entry.gains = 0, [0.0] * BINS
                self._fresh_of(key).lengthen(entry.counts.epoch)

    def _seen(self, key: StreamKey) -> tuple[_Entry, ...]:
        """Where an event of a key counts."""
        entry = self._entry(key)
        entry.seen += 1
        entry.events_left -= 1
        return entry, self._entry(entry.line[1]), self._entry(entry.line[2])

    def _entry(self, key: StreamKey) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(key.line)
            if len(self._entries) > self._keys_max:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(key)
        return entry

    def _fresh_of(self, key: StreamKey) -> Counts:
        counts = self._fresh.get(key)
        if counts is None:
            if len(self._fresh) >= self._keys_max:
                self._fresh.popitem(last=False)
            entry = self._entries.get(key)
            counts = self._fresh[key] = Counts(epoch=entry.counts.epoch if entry else 0)
        return counts

    def _renew(self, entry: _Entry) -> None:
        """Takes hazards afresh: at every event at first, then each time that evidence has grown by a thirty-second part."""
        above = _PRIORS
        for key in reversed(entry.line[1:]):
            higher = self._entry(key)
            above = hazards(higher.counts, higher.running, above, shrink=SHRINK)
        entry.hazards = hazards(entry.counts, entry.running, above, shrink=SHRINK)
        entry.gains = [log((1.0 - 0.5 * hazard) / (1.0 - hazard)) for hazard in (min(_HAZARD_MAX, h) for h in entry.hazards[0])]
        entry.risks.clear()
        entry.events_left = 1 + min(entry.seen // 32, 64)


def stream_key(*, scope: str, model: str, task: str, input_tokens: int, tokens_max: int) -> StreamKey:
    """The key that a stream is learnt and sized by; `scope` tells who asks."""
    return StreamKey(scope, model, task, input_tokens.bit_length(), tokens_max.bit_length())


def _lomax_hazards(*, alpha: float, t0_tokens: float) -> list[float]:
    ends = [0, *(bin_end(index) for index in range(BINS))]
    return [1.0 - ((t0_tokens + start) / (t0_tokens + end)) ** alpha for start, end in pairwise(ends)]


_PRIORS = [_lomax_hazards(alpha=3.0, t0_tokens=768.0)] * MEMORIES
