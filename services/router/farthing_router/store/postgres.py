"""The price book's rows in Postgres: a table that only grows."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson

from farthing_router.pricing.rates import RateCard, Schedule
from farthing_router.store import NewPrice, PriceBookFull, PriceRow, RequestIdReused
from farthing_router.store.connections import connected, writing

_STORED = "SELECT * FROM prices WHERE organization = $1 AND request_id = $2::text::uuid"
_COUNT = "SELECT count(*) FROM prices"
_INSERT = """
    INSERT INTO prices
        (organization, price_id, request_id, fingerprint, provider, model, effective_at, expires_at, terms, source, recorded_at)
    VALUES ($1, $2::text::uuid, $3::text::uuid, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11) RETURNING *
"""
_AFTER = "SELECT * FROM prices WHERE number > $1 ORDER BY number LIMIT $2"


class PostgresPrices:
    """The PriceStore."""

    def __init__(self, pool: asyncpg.Pool, *, rows_max: int) -> None:
        self._pool = pool
        self._rows_max = rows_max

    async def add(self, price: NewPrice, *, request_id: str, fingerprint: bytes) -> tuple[PriceRow, bool]:
        """Writes a row, or gives the stored one."""
        async with writing(self._pool, "prices") as connection:
            stored = await connection.fetchrow(_STORED, price.organization, request_id)
            if stored is not None:
                if stored["fingerprint"] != fingerprint:
                    raise RequestIdReused(request_id=request_id)
                return _row(stored), True
            if await connection.fetchval(_COUNT) >= self._rows_max:
                raise PriceBookFull(rows_max=self._rows_max)
            row = await connection.fetchrow(
                _INSERT,
                price.organization,
                price.price_id,
                request_id,
                fingerprint,
                price.provider,
                price.model,
                price.effective_at,
                price.expires_at,
                _terms(price),
                price.source,
                price.recorded_at,
            )
        return _row(row), False

    async def after(self, number: int, *, rows_max: int) -> list[PriceRow]:
        """The rows with larger numbers."""
        async with connected(self._pool) as connection:
            return [_row(row) for row in await connection.fetch(_AFTER, number, rows_max)]


def _terms(price: NewPrice) -> str:
    if price.card is None:
        return orjson.dumps({} if price.discount_bps is None else {"discount_bps": price.discount_bps}).decode()
    tiers = {name: _schedule_json(schedule) for name, schedule in price.card.tiers.items()}
    return orjson.dumps({"usual": _schedule_json(price.card.usual), "tiers": tiers}).decode()


def _schedule_json(schedule: Schedule) -> dict[str, Any]:
    return {"rates": schedule.rates, "long_context": [[over, rates] for over, rates in schedule.long_context]}


def _row(row: asyncpg.Record) -> PriceRow:
    terms = orjson.loads(row["terms"])
    card = None
    if "usual" in terms:
        card = RateCard(_schedule(terms["usual"]), {name: _schedule(each) for name, each in terms["tiers"].items()})
    return PriceRow(
        row["number"],
        NewPrice(
            price_id=str(row["price_id"]),
            organization=row["organization"],
            provider=row["provider"],
            model=row["model"],
            effective_at=row["effective_at"],
            expires_at=row["expires_at"],
            card=card,
            discount_bps=terms.get("discount_bps"),
            source=row["source"],
            recorded_at=row["recorded_at"],
        ),
    )


def _schedule(given: Any) -> Schedule:
    return Schedule(given["rates"], [(over, rates) for over, rates in given["long_context"]])
