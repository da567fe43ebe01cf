"""The room of each organisation: what is let in, and how much has to go."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_ORGANIZATIONS_MAX = 10_000
_FULL = 0.9
_EMPTIED_TO = 0.95
_SHARE_MAX = 8


@dataclass(frozen=True, slots=True)
class Room:
    """What an organisation's entries take."""

    entries: int
    payload_bytes: int


@dataclass(slots=True)
class _Known:
    room: Room
    floor: float | None = None


class Rooms:
    """What is known here of how full organisations are; the store says it every few seconds.

    The rank that went last is what an answer has to exceed while the room stays full: it would be the next to go.
    """

    def __init__(self, *, entries_max: int, payload_bytes_max: int) -> None:
        self.entries_max = entries_max
        self.payload_bytes_max = payload_bytes_max
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def objection(self, organization: str, *, rank: float, payload_bytes: int) -> str:
        """Why an answer is not let in; empty where it is."""
        if payload_bytes > self.payload_bytes_max // _SHARE_MAX:
            return "larger than an eighth of the organisation's room"
        known = self._known.get(organization)
        if known is None or known.floor is None or not self._is_full(known.room) or rank > known.floor:
            return ""
        return "worth less than what would have to go"

    @property
    def down_to(self) -> Room:
        """What is left after an eviction: a little less than the bounds, so that the next answers do not evict one by one."""
        return Room(int(_EMPTIED_TO * self.entries_max), int(_EMPTIED_TO * self.payload_bytes_max))

    def note(self, organization: str, room: Room) -> bool:
        """Takes in how full an organisation is; whether it is too full."""
        known = self._known.get(organization)
        if known is None:
            self._known[organization] = _Known(room)
            if len(self._known) > _ORGANIZATIONS_MAX:
                self._known.popitem(last=False)
        else:
            known.room = room
            self._known.move_to_end(organization)
        return room.entries > self.entries_max or room.payload_bytes > self.payload_bytes_max

    def note_evicted(self, organization: str, *, rank_max: float) -> None:
        """Takes in the highest rank that had to go."""
        if known := self._known.get(organization):
            known.floor = rank_max

    def _is_full(self, room: Room) -> bool:
        return room.entries >= _FULL * self.entries_max or room.payload_bytes >= _FULL * self.payload_bytes_max
