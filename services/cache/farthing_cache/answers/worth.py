"""What an answer is worth: the expected cost that it saves, by likely reuse and stability, for the bytes that it takes.

An entry's rank is the logarithm of its expected saving per byte, and uses count the less the longer ago they were. Instead of ageing every
entry, a later use counts for more (forward decay: G. Cormode et al., "Forward Decay", ICDE 2009): ranks are compared as they stand, at any
time, in one index. Who asks for what is not kept yet is counted in sketches that forget (G. Einziger et al., "TinyLFU: A Highly Efficient
Cache Admission Policy", ACM Transactions on Storage 13(4), 2017).
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from dataclasses import dataclass

from farthing_cache.answers.sketch import Sketch

HALF_LIFE_S = 43_200
"""After which a use counts half. Part of every rank that is kept: a change makes old and new ranks incomparable."""
OVERHEAD_BYTES = 1_000
"""What an entry takes beside its answer: its row, question and vector."""
_COST_MIN = 1_000
_STABLE_S = 14_400
_ORGANIZATIONS_MAX = 256
_COUNTERS = 4_096
_USES_FIRST = 0.3
_PRIOR_LOOKUPS = 20
_ONE_OFF = 0.2
_LONG_CHARACTERS = 1_500
_PERSONAL = re.compile(r"\b(?:my|mine|i|i'm|me|dear|hi|regards|sincerely|yours|attached|below)\b", re.IGNORECASE)
_PERSONAL_MIN = 4
_WORDS = re.compile(r"\w+")
_EXPONENT_MAX = 1_000.0
_64_BITS = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that may be kept: what it cost and takes, how long it stays true, and how it was asked for.

    `text` is the last user turn, None where that is no plain text.
    """

    key: bytes
    partition: bytes
    text: str | None
    cost_usd_nanos: int
    payload_bytes: int
    ttl_s: int


def rank(*, uses: float, cost_usd_nanos: int, payload_bytes: int, at_s: float) -> float:
    """The rank of an entry of which so many uses are expected or were made at a moment (seconds since the epoch)."""
    return math.log2(max(uses, 1e-9)) + log_density(cost_usd_nanos, payload_bytes) + at_s / HALF_LIFE_S


def log_density(cost_usd_nanos: int, payload_bytes: int) -> float:
    """The logarithm of what one use of an entry saves for each of its bytes. What cost nothing still saves time."""
    return math.log2(max(cost_usd_nanos, _COST_MIN) / (payload_bytes + OVERHEAD_BYTES))


def used(before: float, *, uses: int, cost_usd_nanos: int, payload_bytes: int, at_s: float) -> float:
    """The rank after further uses."""
    more = rank(uses=uses, cost_usd_nanos=cost_usd_nanos, payload_bytes=payload_bytes, at_s=at_s)
    high, low = max(before, more), min(before, more)
    return high + math.log2(1 + 2 ** -min(high - low, _EXPONENT_MAX))


def value_usd_nanos(given: float, *, payload_bytes: int, at_s: float) -> int:
    """What keeping an entry of a rank is expected to save, in nanodollars, as things stand."""
    exponent = given - at_s / HALF_LIFE_S
    return int((payload_bytes + OVERHEAD_BYTES) * 2 ** min(max(exponent, -_EXPONENT_MAX), 62.0))


@dataclass(slots=True)
class _Demand:
    """What one organisation asks for."""

    keys: Sketch
    partitions_asked: Sketch
    partitions_hit: Sketch


class Worth:
    """Reckons how likely answers are to be used again, from what look-ups of this process came to.

    Of at most 256 organisations, those that asked last; a counter never says less than was asked, and all of them halve in time.
    """

    def __init__(self) -> None:
        self._demands: OrderedDict[str, _Demand] = OrderedDict()

    def note(self, organization: str, *, key: bytes, partition: bytes, hit: bool, text: str | None = None) -> None:
        """Takes a look-up in; `text` where the question was compared by meaning and nothing was found."""
        demand = self._demand(organization)
        demand.partitions_asked.add(partition)
        demand.keys.add(key)
        if hit:
            return demand.partitions_hit.add(partition)
        if text is not None:
            demand.keys.add(gist(text))
        return None

    def uses(self, organization: str, candidate: Candidate) -> float:
        """How often an answer is likely to be used again within a half-life.

        As often as others of its partition are, as far as that is known; and whoever has asked before is likely to ask again. What was
        asked just now is not counted: it is why there is an answer.
        """
        demand = self._demand(organization)
        asked, hits = demand.partitions_asked.count(candidate.partition), demand.partitions_hit.count(candidate.partition)
        usual = (hits + _PRIOR_LOOKUPS * _USES_FIRST) / (max(asked - hits, 0) + _PRIOR_LOOKUPS)
        before: float = max(demand.keys.count(candidate.key) - 1, 0)
        if candidate.text is not None:
            before += max(demand.keys.count(gist(candidate.text)) - 1 - before, 0) / 2
        if candidate.text is not None and _is_one_off(candidate.text):
            usual *= _ONE_OFF
        return (usual + before) * stability(candidate.ttl_s)

    def _demand(self, organization: str) -> _Demand:
        found = self._demands.get(organization)
        if found is None:
            found = self._demands[organization] = _Demand(Sketch(_COUNTERS), Sketch(_COUNTERS // 4), Sketch(_COUNTERS // 4))
            if len(self._demands) > _ORGANIZATIONS_MAX:
                self._demands.popitem(last=False)
        self._demands.move_to_end(organization)
        return found


def stability(ttl_s: int) -> float:
    """The share of the uses of the next hours that come while an answer is still true."""
    return ttl_s / (ttl_s + _STABLE_S)


def gist(text: str) -> bytes:
    """Stands for a question whatever the order, case and small words of it."""
    words = {word for word in _WORDS.findall(text[:_LONG_CHARACTERS].lower()) if len(word) > 3}
    number = hash(frozenset(words)) & _64_BITS
    return (number | (number * _ODD & _64_BITS) << 64).to_bytes(16, "little")


def _is_one_off(text: str) -> bool:
    """Long texts about oneself are hardly ever asked about twice."""
    return len(text) > _LONG_CHARACTERS and len(_PERSONAL.findall(text[:_LONG_CHARACTERS])) >= _PERSONAL_MIN
