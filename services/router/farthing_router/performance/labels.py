"""Label sets that stay small, whatever callers send: what is one too many becomes "other"."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

OTHER = "other"
LABELS = ("task", "strategy", "reason", "rule_id", "calibration_id", "experiment_id", "arm", "served_model", "candidates")
"""What sums of decisions are told apart by; shadows are told apart besides."""
_SEPARATOR = "\x1f"
_PLACES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Labelled:
    """A place among sums: its labels in the order of LABELS, whether it is for shadows, and a key made of these."""

    key: bytes
    values: tuple[str, ...]
    shadow: bool


class Folding:
    """The first values of each kind in an organisation are kept, all others become "other"; who was quiet longest is forgotten."""

    def __init__(self, *, values_max: int, sets_max: int = 20_000) -> None:
        self._values_max = values_max
        self._sets_max = sets_max
        self._known: OrderedDict[tuple[str, str], set[str]] = OrderedDict()

    def fold(self, organization: str, kind: str, value: str) -> str:
        """The value, or "other"."""
        known = self._known.get((organization, kind))
        if known is None:
            known = self._known[organization, kind] = set()
            if len(self._known) > self._sets_max:
                self._known.popitem(last=False)
        elif value in known:
            return value
        if not value or value == OTHER:
            return value
        if len(known) >= self._values_max:
            return OTHER
        known.add(value)
        return value

    def __len__(self) -> int:
        return sum(len(known) for known in self._known.values())


class Places:
    """The places of decisions among the sums: at most so many an organisation and hour; one for each strategy takes the rest."""

    def __init__(self, *, values_max: int = 100, places_max: int = 1_000) -> None:
        self._folding = Folding(values_max=values_max)
        self._places_max = places_max
        self._hour: datetime | None = None
        self._known: dict[tuple[str, tuple[str, ...], bool], Labelled] = {}
        self._counts: dict[str, int] = {}

    def place(self, organization: str, hour: datetime, values: tuple[str, ...], *, shadow: bool) -> Labelled:
        """Where a decision of this hour with these labels is counted."""
        if hour != self._hour or len(self._known) >= _PLACES_MAX:
            self._hour = hour
            self._known.clear()
            self._counts.clear()
        known = self._known.get((organization, values, shadow))
        if known is None:
            known = self._new(organization, values, shadow)
            self._known[organization, values, shadow] = known
        return known

    def _new(self, organization: str, values: tuple[str, ...], shadow: bool) -> Labelled:
        folded = tuple(self._folding.fold(organization, kind, value) for kind, value in zip(LABELS, values, strict=True))
        count = self._counts.get(organization, 0)
        if count >= self._places_max:
            folded = tuple(value if kind == "strategy" else OTHER for kind, value in zip(LABELS, folded, strict=True))
        else:
            self._counts[organization] = count + 1
        text = _SEPARATOR.join((*folded, "shadow" if shadow else ""))
        return Labelled(blake2b(text.encode(), digest_size=16).digest(), folded, shadow)
