"""How payloads are kept from eyes that have no key."""

from __future__ import annotations

from typing import Protocol

QUESTION, READING = b"/question", b"/reading"
"""What follows an entry's key where its question and its reading are bound to it; its payload is bound to the key alone."""


class Seals(Protocol):
    """Seals and opens what an organisation keeps. `belongs_to` binds it to its row: it opens only together with the same bytes."""

    async def seal(self, organization: str, belongs_to: bytes, payload: bytes) -> bytes:
        """What may be written down. Raises SealUnavailable where there is no key to be had: then nothing is written."""
        ...

    async def open(self, organization: str, belongs_to: bytes, sealed: bytes) -> bytes | None:
        """What was sealed; None where it cannot be read: no key, another one, or changed bytes."""
        ...


class Unsealed:
    """The Seals of an installation that encrypts its disks instead: everything stays as it is."""

    async def seal(self, organization: str, belongs_to: bytes, payload: bytes) -> bytes:
        """The payload."""
        return payload

    async def open(self, organization: str, belongs_to: bytes, sealed: bytes) -> bytes | None:
        """The payload."""
        return sealed
