"""What the keyring promises, shown on the real Postgres: racing callers, rotation, erasure, master keys."""

from __future__ import annotations

import asyncio
import secrets
import stat
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from farthing_core.clock import ManualClock
from farthing_core.errors import FieldInvalid
from farthing_privacy.keys.keyring import Keyring
from farthing_privacy.keys.masters import GivenMasterKeys, MasterKeyMissing, kept_masters, parsed_masters
from farthing_privacy.store import Erasure, KeysErased, RequestIdReused, StoreUnavailable
from farthing_privacy.store.keys import PostgresKeys
from farthing_runtime.postgres import open_pool

OLD, NEW = {"old": b"m" * 32}, {"new": b"n" * 32}


def new_key() -> bytes:
    return secrets.token_bytes(32)


def keyring(pool: asyncpg.Pool, masters: dict[str, bytes] = OLD) -> Keyring:
    return Keyring(keys=PostgresKeys(pool), masters=GivenMasterKeys(masters), clock=ManualClock(), new_key=new_key, lease_s=60)


def erasure(purpose: str = "", *, may_begin_again: bool = False) -> Erasure:
    return Erasure(purpose, may_begin_again, "ann", "asked to be forgotten")


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with open_pool(database_url, schema="privacy", size_max=8) as opened:
        yield opened


async def rotate(ring: Keyring, purpose: str = "cache", *, rewrap_only: bool = False, request_id: str = "") -> tuple[int, int]:
    done = await ring.rotate("acme", purpose, request_id=request_id or str(uuid.uuid4()), rewrap_only=rewrap_only)
    return done.made, done.rewrapped


async def test_racing_replicas_get_the_same_first_key(pool: asyncpg.Pool, database_url: str) -> None:
    async with open_pool(database_url, schema="privacy", size_max=8) as other:
        rings = [keyring(pool), keyring(other)]
        leases = await asyncio.gather(*(rings[number % 2].lease("acme", "cache") for number in range(40)))
    assert all(lease.keys == leases[0].keys for lease in leases)
    assert list(leases[0].keys) == [1]
    assert (await keyring(pool).lease("other", "cache")).keys != leases[0].keys
    assert (await keyring(pool).lease("acme", "receipts")).keys != leases[0].keys
    assert await pool.fetchval("SELECT count(*) FROM data_keys") == 3


async def test_no_key_lies_there_unwrapped_and_rows_cannot_be_swapped(pool: asyncpg.Pool) -> None:
    ring = keyring(pool)
    keys = {name: (await ring.lease(name, "cache")).keys[1] for name in ("acme", "other")}
    rows = {row["organization"]: row["wrapped"] for row in await pool.fetch("SELECT organization, wrapped FROM data_keys")}
    assert not any(key in wrapped for key in keys.values() for wrapped in rows.values())
    await pool.execute("UPDATE data_keys SET wrapped = $1 WHERE organization = 'other'", rows["acme"])
    with pytest.raises(MasterKeyMissing):
        await ring.lease("other", "cache")


async def test_a_rotation_adds_a_key_and_its_repeat_adds_none(pool: asyncpg.Pool) -> None:
    ring = keyring(pool)
    sealed = (await ring.to_encrypt("acme", "cache")).seal(b"payload", belongs_to=b"row")
    request_id = str(uuid.uuid4())
    assert [await rotate(ring, request_id=request_id) for _ in range(3)] == [(1, 0)] * 3
    keys = await ring.to_encrypt("acme", "cache")
    assert keys.numbers == {1, 2}
    assert keys.open(sealed, belongs_to=b"row") == b"payload"
    with pytest.raises(RequestIdReused):
        await rotate(ring, rewrap_only=True, request_id=request_id)
    made = await asyncio.gather(*(rotate(ring, "") for _ in range(8)))
    assert made == [(1, 0)] * 8
    assert (await ring.to_decrypt("acme", "cache")).numbers == set(range(1, 11))


async def test_a_new_master_key_reads_what_is_old_and_rewraps_it(pool: asyncpg.Pool) -> None:
    lease = await keyring(pool).lease("acme", "cache")
    with pytest.raises(MasterKeyMissing) as missing:
        await keyring(pool, NEW).lease("acme", "cache")
    assert missing.value.facts == {"master_key_id": "old"}
    both = keyring(pool, NEW | OLD)
    assert (await both.lease("acme", "cache")).keys == lease.keys
    assert await rotate(both, "", rewrap_only=True) == (0, 1)
    assert await rotate(both, "", rewrap_only=True) == (0, 0)
    assert (await keyring(pool, NEW).lease("acme", "cache")).keys == lease.keys


async def test_erased_keys_are_gone_and_not_made_again(pool: asyncpg.Pool) -> None:
    ring = keyring(pool)
    sealed = (await ring.to_encrypt("acme", "cache")).seal(b"payload", belongs_to=b"row")
    assert await ring.erase("acme", erasure()) == (1, 60)
    assert await ring.erase("acme", erasure()) == (0, 60)
    assert (await ring.to_decrypt("acme", "cache")).open(sealed, belongs_to=b"row") is None
    for purpose in ("cache", "never used"):
        with pytest.raises(KeysErased):
            await ring.lease("acme", purpose)
    with pytest.raises(KeysErased):
        await rotate(ring)
    assert await pool.fetchval("SELECT count(*) FROM data_keys WHERE wrapped IS NOT NULL") == 0
    (state,) = await ring.states("acme", after=("", 0), count_max=10)
    assert (state.purpose, state.number, state.erased_by, state.master_key_id) == ("cache", 1, "ann", "")
    assert state.erased_at is not None
    assert await pool.fetchval("SELECT count(*) FROM key_erasures WHERE actor = 'ann' AND reason <> ''") == 2
    assert (await ring.lease("other", "cache")).keys


async def test_who_may_begin_again_gets_a_new_key_under_a_new_number(pool: asyncpg.Pool) -> None:
    ring = keyring(pool)
    old = await ring.lease("acme", "cache")
    await ring.erase("acme", erasure("cache", may_begin_again=True))
    new = await ring.lease("acme", "cache")
    assert (list(old.keys), list(new.keys)) == ([1], [2])
    assert old.keys[1] != new.keys[2]
    await ring.erase("acme", erasure())
    await ring.erase("acme", erasure("cache", may_begin_again=True))  # the latest word counts
    assert list((await ring.lease("acme", "cache")).keys) == [3]


async def test_erasing_and_making_at_once_leaves_no_key_behind(pool: asyncpg.Pool) -> None:
    ring = keyring(pool)
    calls: list[Any] = [ring.lease("acme", "cache") for _ in range(12)]
    calls.insert(6, ring.erase("acme", erasure()))
    await asyncio.gather(*calls, return_exceptions=True)
    assert await pool.fetchval("SELECT count(*) FROM data_keys WHERE wrapped IS NOT NULL") == 0


async def test_a_database_out_of_reach_is_named_so(database_url: str) -> None:
    async with open_pool(database_url, schema="privacy", size_max=1) as pool:
        ring = keyring(pool)
        await pool.close()
        with pytest.raises(StoreUnavailable):
            await ring.lease("acme", "cache")


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    made = kept_masters(path, new_key=new_key)
    assert kept_masters(path, new_key=new_key) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(FieldInvalid, match="chmod 600"):
        kept_masters(path, new_key=new_key)


@pytest.mark.parametrize("text", ["", "a", "a:", "a:c2hvcnQ=", ":" + "A" * 43 + "=", "a:" + "A" * 43 + "=,a:" + "A" * 43 + "="])
def test_a_master_key_that_cannot_be_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(FieldInvalid) as refused:
        parsed_masters(text)
    assert "AAAA" not in refused.value.message
    assert "c2hv" not in refused.value.message
