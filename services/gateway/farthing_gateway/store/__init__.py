"""What the keyring needs of a database. The promises are tested in tests/contract/test_key_store.py."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from farthing_core.scopes import Scope

if TYPE_CHECKING:
    from farthing_gateway.keys import Key


class KeyStore(Protocol):
    """Keeps keys by the hash of their secret. Every method may raise StoreUnavailable."""

    async def add(self, organization: str, key: Key, digest: bytes) -> None:
        """Keeps a new key."""
        ...

    async def find(self, digest: bytes) -> Key | None:
        """The key of a secret's hash, also when it has expired or was revoked."""
        ...

    async def list_from(self, scope: Scope, *, after: str, count_max: int) -> list[Key]:
        """Keys at and below a scope from behind the key `after`, oldest first."""
        ...

    async def revoke(self, organization: str, key_id: str, at: datetime) -> Key | None:
        """Ends a key, once; a key that had ended keeps its first end. None when there is none."""
        ...
