"""How payloads are kept from eyes that have no key."""

from __future__ import annotations

from typing import Protocol

from farthing_core.errors import FarthingError

QUESTION, READING = b"/question", b"/reading"
"""What follows an entry's key where its question and its reading are bound to it; its payload is bound to the key alone."""
_PLAIN = b"\0"
"""What is kept as it is begins with it; what is sealed never does."""


class SealUnavailable(FarthingError):
    """There is no key to be had: nothing is written."""

    def __init__(self, problem: str = "the keys to seal it with are out of reach") -> None:
        super().__init__(f"nothing is stored: {problem}", peer="privacy")


class KeysGone(SealUnavailable):
    """The organisation's keys were erased and are not made again."""

    def __init__(self) -> None:
        super().__init__("the organisation's keys were erased")


class Seals(Protocol):
    """Seals and opens what an organisation keeps. `belongs_to` binds it to its row: it opens only together with the same bytes."""

    async def seal(self, organization: str, belongs_to: bytes, payload: bytes) -> bytes:
        """What may be written down. Raises SealUnavailable where there is no key to be had: then nothing is written."""
        ...

    async def open(self, organization: str, belongs_to: bytes, sealed: bytes) -> bytes | None:
        """What was sealed; None where it cannot be read: no key, another one, or changed bytes."""
        ...

    def gone(self, organization: str, sealed: bytes) -> bool:
        """Whether what `open` could not read never can be, so that it may go; False while keys are out of reach."""
        ...

    async def headers(self, organization: str) -> list[bytes] | None:
        """What texts that can be read begin with; None where that is not known now."""
        ...


class Unsealed:
    """The Seals of an installation that encrypts its disks instead. What was sealed before it was told to is not read, and stays."""

    async def seal(self, organization: str, belongs_to: bytes, payload: bytes) -> bytes:
        """The payload, marked as plain."""
        return _PLAIN + payload

    async def open(self, organization: str, belongs_to: bytes, sealed: bytes) -> bytes | None:
        """The payload, where it was kept plain."""
        return sealed[1:] if sealed[:1] == _PLAIN else None

    def gone(self, organization: str, sealed: bytes) -> bool:
        """Nothing is: keys may come back with a setting."""
        return False

    async def headers(self, organization: str) -> list[bytes] | None:
        """Not known."""
        return None
