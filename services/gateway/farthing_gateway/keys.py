"""API keys: random, shown once, kept as hashes, speaking for a scope and everything below it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from farthing_core.clock import Clock
from farthing_core.errors import FarthingError, FieldInvalid
from farthing_core.ids import NewId
from farthing_core.scopes import Scope, parse_scope

from farthing_gateway.store import KeyStore

SECRET_PREFIX = "fk-"
_SHOWN_CHARACTERS = 9
_KNOWN_MAX = 10_000
_SECRET_CHARACTERS_MAX = 200

_OWN_ORIGIN = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\]|[a-z0-9-]{1,63}\.localhost)(:[0-9]{1,5})?")

NewSecret = Callable[[], str]
"""Makes at least 192 random bits as text."""


class KeyInvalid(FarthingError):
    """A secret that opens nothing: unknown, expired or revoked, without saying which."""

    def __init__(self) -> None:
        super().__init__("this API key is not valid")


class KeyNotFound(FarthingError):
    """No such key in this organisation."""

    def __init__(self, *, key_id: str) -> None:
        super().__init__(f"no key {key_id}", key_id=key_id)


class ScopeForbidden(FarthingError):
    """The key does not speak for this scope."""

    def __init__(self) -> None:
        super().__init__("this API key does not speak for that scope")


class OriginForbidden(FarthingError):
    """A web page of another site, which a browser on this machine was made to open, asks without a key."""

    def __init__(self) -> None:
        super().__init__("pages of other sites need an API key, even on this machine")


class StoreUnavailable(FarthingError):
    """The database is out of reach."""

    def __init__(self) -> None:
        super().__init__("the database of keys is out of reach")


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret."""

    key_id: str
    scope: str
    display_name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def opens(self, now: datetime) -> bool:
        """Whether it is good at a moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class Caller(NamedTuple):
    """Who calls: the scope that it acts in, and its key; empty without one."""

    scope: str
    key_id: str


class Keyring:
    """Makes, checks and ends keys.

    A key that was checked is believed for `trust_s` seconds without asking the database again: a revoked key dies within that time.
    """

    def __init__(self, store: KeyStore, *, clock: Clock, new_id: NewId, new_secret: NewSecret, trust_s: float) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._new_secret = new_secret
        self._trust_s = trust_s
        self._known: dict[bytes, tuple[Key, float]] = {}

    async def create(self, scope: Scope, *, display_name: str, ttl_s: int) -> tuple[Key, str]:
        """A new key and its secret, which nobody can show again."""
        secret, now = SECRET_PREFIX + self._new_secret(), self._clock.now()
        expires_at = now + timedelta(seconds=ttl_s) if ttl_s else None
        key = Key(self._new_id(), scope.path, display_name, secret[:_SHOWN_CHARACTERS], now, expires_at, None)
        await self._store.add(scope.organization, key, secret_hash(secret))
        return key, secret

    async def whose(self, secret: str) -> Key:
        """The key of a secret. Raises KeyInvalid."""
        if not secret.startswith(SECRET_PREFIX) or len(secret) > _SECRET_CHARACTERS_MAX or not secret.isascii():
            raise KeyInvalid
        digest, now_s = secret_hash(secret), self._clock.monotonic_s()
        known = self._known.get(digest)
        if known is None or known[1] < now_s:
            key = await self._store.find(digest)
            if key is None:
                self._known.pop(digest, None)
                raise KeyInvalid
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            known = self._known[digest] = (key, now_s + self._trust_s)
        if not known[0].opens(self._clock.now()):
            raise KeyInvalid
        return known[0]

    async def check_store(self) -> None:
        """Raises StoreUnavailable when keys cannot be looked up."""
        await self._store.find(b"")

    async def list_from(self, scope: Scope, *, after: str, count_max: int) -> list[Key]:
        """Keys at and below a scope, oldest first. Raises FieldInvalid for a page that was never announced."""
        found = await self._store.list_from(scope, after=after, count_max=count_max)
        if after and not found:
            raise FieldInvalid(field="page_token", problem="must be the next_page_token of an earlier page")
        return found

    async def revoke(self, scope: Scope, key_id: str) -> Key:
        """Ends a key. Raises KeyNotFound, also for one of another organisation."""
        key = await self._store.revoke(scope.organization, key_id, self._clock.now())
        if key is None:
            raise KeyNotFound(key_id=key_id)
        self._known.clear()
        return key


def scope_for(key: Key | None, asked: str, *, default: str) -> str:
    """The scope that a caller acts in: what it asked for, within what its key speaks for. Raises ScopeForbidden, FieldInvalid."""
    if key is None:
        return parse_scope(asked or default, field="x-farthing-scope").path
    if not asked:
        return key.scope
    if not parse_scope(key.scope).contains(parse_scope(asked, field="x-farthing-scope")):
        raise ScopeForbidden
    return asked


def check_origin(origin: str | None) -> None:
    """Raises OriginForbidden unless a request without a key comes from a program, or from a page of this machine.

    A browser lets any page send requests to this machine; it names the page in the `Origin` header, which programs do not send.
    """
    if origin is not None and not _OWN_ORIGIN.fullmatch(origin):
        raise OriginForbidden


def secret_hash(secret: str) -> bytes:
    """What is kept of a secret. It has 192 random bits, so a plain hash cannot be guessed back."""
    return hashlib.sha256(secret.encode()).digest()
