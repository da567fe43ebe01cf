"""Migrations: each service's alembic history, brought up to date at start under an advisory lock.

Replicas that start together wait for one another. A database that is current is recognised by one query, without importing alembic:
that import alone takes longer than the rest of a warm start.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from farthing_runtime.catalog import Target
from farthing_runtime.postgres import quoted

_LOCK_KEY = 0x6661_7274_6869_6E67  # "farthing"
_LOCK_TIMEOUT_S = 120.0
_REVISION = re.compile(r'^revision = "(\w+)"', re.MULTILINE)
_FOLLOWED = re.compile(r'^down_revision = "(\w+)"', re.MULTILINE)


async def migrate(database_url: str, targets: Sequence[Target]) -> list[str]:
    """Brings the schema of every target up to date; returns what was done, a line each."""
    done: list[str] = []
    connection = await asyncpg.connect(database_url, timeout=30.0)
    try:
        stale = [target for target in targets if target.schema and await _revision(connection, target) != head_of(target)]
        if not stale:
            return done
        async with asyncio.timeout(_LOCK_TIMEOUT_S):
            await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
        for target in stale:
            before = await _revision(connection, target)
            if before == head_of(target):
                continue
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(target.schema)}")
            await asyncio.to_thread(_upgrade, database_url, target)
            done.append(f"{target.name}: {before or 'nothing'} → {head_of(target)}")
    finally:
        await connection.close()
    return done


async def _revision(connection: asyncpg.Connection, target: Target) -> str | None:
    table = f"{quoted(target.schema)}.alembic_version"
    if await connection.fetchval("SELECT to_regclass($1)", table) is None:
        return None
    revision: str | None = await connection.fetchval(f"SELECT version_num FROM {table}")
    return revision


def migrations_dir(target: Target) -> Path:
    """A service's migrations: beside its package in the workspace, inside it in a wheel."""
    spec = importlib.util.find_spec(target.package)
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def head_of(target: Target) -> str:
    """The newest revision: the one that no other follows. Numbers alone do not tell, since work on several goes on side by side."""
    texts = [path.read_text(encoding="utf-8") for path in (migrations_dir(target) / "versions").glob("[0-9]*_*.py")]
    followed = {found.group(1) for text in texts if (found := _FOLLOWED.search(text))}
    (head,) = {found.group(1) for text in texts if (found := _REVISION.search(text))} - followed
    return head


def _upgrade(database_url: str, target: Target) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_dir(target)).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


def run_env(schema: str) -> None:
    """The body of every service's migrations/env.py."""
    from alembic import context
    from sqlalchemy import Connection, pool, text
    from sqlalchemy.ext.asyncio import create_async_engine

    database_url: str = context.config.attributes["database_url"]

    def run(connection: Connection) -> None:
        connection.execute(text(f"SET search_path TO {quoted(schema)}, public"))
        connection.commit()
        context.configure(connection=connection, version_table_schema=schema, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()

    async def go() -> None:
        async def connect() -> asyncpg.Connection:
            return await asyncpg.connect(database_url)

        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=pool.NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(run)
        await engine.dispose()

    asyncio.run(go())
