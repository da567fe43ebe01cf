"""Learns how long answers get, from streams that ended and from those that still run.

Per key and bin it keeps the hazard: the share of the streams that reached a bin and ended in it. A stream counts in every bin it went
through, whether it has ended or not, and for half a bin where it is now: the life table's actuarial estimate (Cutler and Ederer,
Journal of Chronic Diseases 8, 1958). Without the running ones a cold start would see only short answers. Hazards are shrunk from the key
towards its parent (service, model, task), and from there towards Lomax's law with α = 2 and t0 = 512 tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from farthing_core.errors import FieldInvalid

from farthing_budget.sizing.bins import BINS, bin_end
from farthing_budget.sizing.pool import MEMORIES, Risk
from farthing_budget.sizing.risk import risk_of

KEEPS = (1 - 1 / 1000, 1 - 1 / 300)
"""What a memory keeps of a bin's counts at each new exposure: a long and a short one."""
SHRINK = 20.0
"""How many exposures what is above a key is worth to it."""
RISKS_PER_KEY_MAX = 256
FORMAT = 1


class StreamKey(NamedTuple):
    """What streams of like length have in common; the buckets are binary orders of magnitude."""

    service: str
    model: str
    task: str
    input_bucket: int
    max_bucket: int


@dataclass(slots=True)
class _Counts:
    """Of one key or parent, by memory and bin: streams that left the bin, and those of them that ended in it; by bin: streams in it."""

    left: list[list[float]] = field(default_factory=lambda: [[0.0] * BINS for _ in KEEPS])
    ended: list[list[float]] = field(default_factory=lambda: [[0.0] * BINS for _ in KEEPS])
    running: list[int] = field(default_factory=lambda: [0] * BINS)

    def leave(self, index: int, *, ended: bool) -> None:
        for left, ends, keep in zip(self.left, self.ended, KEEPS, strict=True):
            left[index] = left[index] * keep + 1.0
            ends[index] = ends[index] * keep + ended

    def stop(self, index: int) -> None:
        if self.running[index]:  # streams that began before a restart were never counted in
            self.running[index] -= 1

    def hazards(self, above: Sequence[Sequence[float]]) -> list[list[float]]:
        return [
            [
                (count + SHRINK * prior) / (gone + 0.5 * now + SHRINK)
                for count, gone, now, prior in zip(ends, left, self.running, priors, strict=True)
            ]
            for ends, left, priors in zip(self.ended, self.left, above, strict=True)
        ]


@dataclass(slots=True)
class _Entry:
    """A key's counts, and the risks reckoned from a snapshot of them that is renewed as evidence grows."""

    parent: _Counts
    counts: _Counts = field(default_factory=_Counts)
    seen: int = 0
    events_left: int = 0
    hazards: list[list[float]] = field(default_factory=list)
    risks: dict[tuple[int, int, int], Risk] = field(default_factory=dict)


class Learner:
    """Hazards of a bounded number of keys, those longest unused forgotten first. Not for use from several threads."""

    def __init__(self, *, keys_max: int = 4096) -> None:
        self._keys_max = keys_max
        self._entries: OrderedDict[StreamKey, _Entry] = OrderedDict()
        self._parents: OrderedDict[tuple[str, str, str], _Counts] = OrderedDict()

    def started(self, key: StreamKey) -> None:
        """A stream began: it owns the first bin."""
        entry = self._event(key)
        entry.counts.running[0] += 1
        entry.parent.running[0] += 1

    def advanced(self, key: StreamKey, left: int) -> None:
        """A stream used up the bin `left` without ending, and goes on in the next."""
        entry = self._event(key)
        for counts in (entry.counts, entry.parent):
            counts.stop(left)
            counts.leave(left, ended=False)
            counts.running[min(left + 1, BINS - 1)] += 1

    def ended(self, key: StreamKey, index: int) -> None:
        """A stream came to its own end in this bin."""
        entry = self._event(key)
        for counts in (entry.counts, entry.parent):
            counts.stop(index)
            counts.leave(index, ended=True)

    def stopped(self, key: StreamKey, index: int) -> None:
        """A stream was stopped in this bin by its max_tokens, its client or a cut: how long it would have been is not known."""
        entry = self._event(key)
        entry.counts.stop(index)
        entry.parent.stop(index)

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

    def dump(self) -> dict[str, Any]:
        """What was learnt, in types that JSON has. Running streams are left out: they end in this process or are not heard of again."""
        return {
            "format": FORMAT,
            "parents": [[list(name), *_dump(counts)] for name, counts in self._parents.items()],
            "keys": [[list(key), *_dump(entry.counts)] for key, entry in self._entries.items()],
        }

    @classmethod
    def load(cls, state: Mapping[str, Any], *, keys_max: int = 4096) -> Learner:
        """The learner that `dump` wrote down; raises FieldInvalid for anything else."""
        learner = cls(keys_max=keys_max)
        try:
            if state["format"] != FORMAT:
                raise FieldInvalid(field="state.format", problem=f"is {state['format']!r}; {FORMAT} is what can be read")
            for (service, model, task), left, ended in state["parents"]:
                learner._parents[str(service), str(model), str(task)] = _load(left, ended)
            for (service, model, task, inputs, most), left, ended in state["keys"]:
                entry = learner._entry(StreamKey(str(service), str(model), str(task), int(inputs), int(most)))
                entry.counts = _load(left, ended)
        except (KeyError, TypeError, ValueError) as error:
            raise FieldInvalid(field="state", problem="is not what a learner writes down") from error
        return learner

    def _entry(self, key: StreamKey) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(self._parent(key[:3]))
            if len(self._entries) > self._keys_max:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(key)
        return entry

    def _parent(self, name: tuple[str, str, str]) -> _Counts:
        counts = self._parents.get(name)
        if counts is None:
            counts = self._parents[name] = _Counts()
            if len(self._parents) > self._keys_max:
                self._parents.popitem(last=False)
        else:
            self._parents.move_to_end(name)
        return counts

    def _event(self, key: StreamKey) -> _Entry:
        entry = self._entry(key)
        entry.seen += 1
        entry.events_left -= 1
        return entry

    def _renew(self, entry: _Entry) -> None:
        """Takes hazards afresh: at every event at first, then each time that evidence has grown by a thirty-second part."""
        entry.hazards = entry.counts.hazards(entry.parent.hazards(_PRIORS))
        entry.risks.clear()
        entry.events_left = 1 + min(entry.seen // 32, 32)


def stream_key(*, service: str, model: str, task: str, input_tokens: int, tokens_max: int) -> StreamKey:
    """The key that a stream is learnt and sized by; `service` is any word for who asks, such as a project's scope."""
    return StreamKey(service, model, task, input_tokens.bit_length(), tokens_max.bit_length())


def _lomax_hazards(*, alpha: float, t0_tokens: float) -> list[float]:
    ends = [0, *(bin_end(index) for index in range(BINS))]
    return [1.0 - ((t0_tokens + start) / (t0_tokens + end)) ** alpha for start, end in pairwise(ends)]


_PRIORS = [_lomax_hazards(alpha=2.0, t0_tokens=512.0)] * MEMORIES


def _dump(counts: _Counts) -> tuple[list[list[float]], list[list[float]]]:
    return [list(part) for part in counts.left], [list(part) for part in counts.ended]


def _load(left: Any, ended: Any) -> _Counts:
    counts = _Counts([[float(each) for each in part] for part in left], [[float(each) for each in part] for part in ended])
    parts = [*counts.left, *counts.ended]
    if len(counts.left) != MEMORIES or len(counts.ended) != MEMORIES or any(len(part) != BINS for part in parts):
        raise ValueError("not as many memories or bins as there are")
    for gone, ends in zip(counts.left, counts.ended, strict=True):
        if not all(0.0 <= end <= all_of_them < float("inf") for end, all_of_them in zip(ends, gone, strict=True)):
            raise ValueError("more ends than streams")
    return counts
