"""Sealed bytes: AES-256-GCM-SIV (RFC 8452) under an organisation's numbered data keys of one purpose.

A sealed text is a version byte, the key's number (4 bytes, big-endian), a random nonce of 96 bits, then ciphertext and tag. Authenticated
with it are organisation, purpose and what the text belongs to, so that it opens nowhere else. Plain GCM under random nonces would have to
be counted (2^32 messages a key, over every replica that holds it), and one repeated nonce would give everything away; with SIV a repeated
nonce tells no more than that the same text was sealed twice for the same place, so nobody has to count.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

VERSION = 1
KEY_BYTES = 32
OVERHEAD_BYTES = 33
"""What a sealed text is longer by."""
_NONCE_BYTES = 12
_HEADER_BYTES = 5


class DataKeys:
    """An organisation's data keys of a purpose, by number; the highest one seals. Its repr shows none of them."""

    def __init__(
        self, organization: str, purpose: str, keys: Mapping[int, bytes], *, nonce: Callable[[int], bytes] = os.urandom
    ) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

        self._ciphers: dict[int, Any] = {number: AESGCMSIV(key) for number, key in keys.items()}
        self._place = bound(b"farthing/sealed", organization.encode(), purpose.encode())
        self._nonce = nonce
        self.newest = max(self._ciphers, default=0)

    def __repr__(self) -> str:
        return f"DataKeys({sorted(self._ciphers)})"

    @property
    def numbers(self) -> frozenset[int]:
        """The keys that are here."""
        return frozenset(self._ciphers)

    def seal(self, payload: bytes, *, belongs_to: bytes) -> bytes:
        """The payload under the newest key."""
        header, nonce = header_of(self.newest), self._nonce(_NONCE_BYTES)
        sealed: bytes = self._ciphers[self.newest].encrypt(nonce, payload, self._place + header + belongs_to)
        return header + nonce + sealed

    def open(self, sealed: bytes, *, belongs_to: bytes) -> bytes | None:
        """What was sealed; None for what cannot be read, whatever the cause."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(number_of(sealed))
        if cipher is None or len(sealed) < OVERHEAD_BYTES:
            return None
        nonce_ends = _HEADER_BYTES + _NONCE_BYTES
        associated = self._place + sealed[:_HEADER_BYTES] + belongs_to
        try:
            opened: bytes = cipher.decrypt(sealed[_HEADER_BYTES:nonce_ends], sealed[nonce_ends:], associated)
        except InvalidTag:
            return None
        return opened


def header_of(number: int) -> bytes:
    """What texts sealed under a key begin with."""
    return bytes([VERSION]) + number.to_bytes(4, "big")


def number_of(sealed: bytes) -> int:
    """The number of the key that sealed a text; 0 for what is no sealed text."""
    if len(sealed) < _HEADER_BYTES or sealed[0] != VERSION:
        return 0
    return int.from_bytes(sealed[1:_HEADER_BYTES], "big")


def bound(*parts: bytes) -> bytes:
    """Parts as one text that no other parts make: each behind its length."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
