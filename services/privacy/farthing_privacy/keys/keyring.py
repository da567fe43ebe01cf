"""The keyring: an organisation's data keys of each purpose, numbered from 1."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from farthing_core.clock import Clock
from farthing_core.errors import FarthingError
from farthing_runtime.envelopes import DataKeys, bound

from farthing_privacy.keys.masters import MasterKeys
from farthing_privacy.store import Erasure, KeyChanges, KeyState, KeyStore, Rotation, StoredKey

KEYS_MAX = 1_000
"""Keys of one purpose that still decrypt: all of them are lent at once."""


class KeysFull(FarthingError):
    """A purpose has as many keys as can be kept."""

    def __init__(self, *, organization: str, purpose: str) -> None:
        super().__init__(
            f"there are {KEYS_MAX} keys for {purpose!r} already", organization=organization, purpose=purpose, keys_max=KEYS_MAX
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """Keys on loan, by number, for so many seconds."""

    keys: dict[int, bytes] = field(repr=False)
    lease_s: int


class Keyring:
    """Makes, lends, rotates and erases data keys. It keeps none: what was erased is unreadable here at once."""

    def __init__(
        self, *, keys: KeyStore, masters: MasterKeys, clock: Clock, new_key: Callable[[], bytes], lease_s: int
    ) -> None:
        self._keys = keys
        self._masters = masters
        self._clock = clock
        self._new_key = new_key
        self._lease_s = lease_s

    async def to_encrypt(self, organization: str, purpose: str) -> DataKeys:
        """The keys of a purpose; the first is made if there is none. Raises KeysErased, MasterKeyMissing, StoreUnavailable."""
        return DataKeys(organization, purpose, await self._unwrapped(await self._live(organization, purpose)))

    async def to_decrypt(self, organization: str, purpose: str) -> DataKeys:
        """The keys of a purpose that are left, perhaps none. Raises MasterKeyMissing, StoreUnavailable."""
        return DataKeys(organization, purpose, await self._unwrapped(await self._keys.live(organization, purpose)))

    async def lease(self, organization: str, purpose: str) -> Lease:
        """Keys to use elsewhere; the first is made if there is none. Raises KeysErased, MasterKeyMissing, StoreUnavailable."""
        return Lease(await self._unwrapped(await self._live(organization, purpose)), self._lease_s)

    async def rotate(self, organization: str, purpose: str, *, request_id: str, rewrap_only: bool) -> Rotation:
        """A new key for each purpose (all that have keys when none is named), or every key wrapped anew; once for a request_id.

        Raises KeysErased, KeysFull, MasterKeyMissing, RequestIdReused, StoreUnavailable; nothing is done then.
        """
        fingerprint = hashlib.sha256(repr((purpose, rewrap_only)).encode()).digest()
        async with self._keys.changing(organization) as changes:
            known = await changes.rotation(request_id, fingerprint)
            if known is not None:
                return known
            if purpose:
                await changes.check_not_erased(purpose)
            made = rewrapped = 0
            for each in [purpose] if purpose else await changes.purposes():
                if rewrap_only:
                    rewrapped += await self._rewrap(changes, each)
                else:
                    await self._add(changes, organization, each)
                    made += 1
            rotation = Rotation(made, rewrapped)
            await changes.note_rotation(request_id, fingerprint, rotation, at=self._clock.now())
        return rotation

    async def erase(self, organization: str, erasure: Erasure) -> tuple[int, int]:
        """Erases keys for ever: (how many, seconds until the last lease has ended). Raises StoreUnavailable."""
        async with self._keys.changing(organization) as changes:
            erased = await changes.erase(erasure, at=self._clock.now())
        return erased, self._lease_s

    async def states(self, organization: str, *, after: tuple[str, int], count_max: int) -> list[KeyState]:
        """What is known of keys, by purpose and number. Raises StoreUnavailable."""
        return await self._keys.states(organization, after=after, count_max=count_max)

    async def _live(self, organization: str, purpose: str) -> Sequence[StoredKey]:
        known = await self._keys.live(organization, purpose)
        if known:
            return known
        async with self._keys.changing(organization) as changes:
            await changes.check_not_erased(purpose)
            # Read under the lock: a racing twin has made the first key, or waits for us to have made it.
            return await changes.live(purpose) or [await self._add(changes, organization, purpose)]

    async def _add(self, changes: KeyChanges, organization: str, purpose: str) -> StoredKey:
        if len(await changes.live(purpose)) >= KEYS_MAX:
            raise KeysFull(organization=organization, purpose=purpose)
        number = await changes.next_number(purpose)
        wrapped = await self._masters.wrap(self._new_key(), bound_to=_place(organization, purpose, number))
        key = StoredKey(organization, purpose, number, wrapped)
        await changes.add(key, at=self._clock.now())
        return key

    async def _rewrap(self, changes: KeyChanges, purpose: str) -> int:
        old = [key for key in await changes.live(purpose) if key.wrapped.master_key_id != self._masters.current_id]
        for key in old:
            place = _place(key.organization, key.purpose, key.number)
            opened = await self._masters.unwrap(key.wrapped, bound_to=place)
            wrapped = await self._masters.wrap(opened, bound_to=place)
            await changes.replace(StoredKey(key.organization, key.purpose, key.number, wrapped))
        return len(old)

    async def _unwrapped(self, keys: Sequence[StoredKey]) -> dict[int, bytes]:
        return {
            key.number: await self._masters.unwrap(key.wrapped, bound_to=_place(key.organization, key.purpose, key.number))
            for key in keys
        }


def _place(organization: str, purpose: str, number: int) -> bytes:
    """What a wrapped key is bound to, so that rows cannot be swapped."""
    return bound(b"farthing/data-key", organization.encode(), purpose.encode(), number.to_bytes(4, "big"))
