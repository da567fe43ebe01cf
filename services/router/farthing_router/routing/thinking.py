"""One request while its route is planned: what is known of it so far, and what was thought of each model."""

from __future__ import annotations

from dataclasses import dataclass, field

from farthing_router.pricing.price_book import Prices
from farthing_router.routing.deciding import Intent, Looks
from farthing_router.routing.ports import Known, Option
from farthing_router.routing.routes import Wish


@dataclass(slots=True)
class Thinking:
    """`why` has the models that are out and why, `options` those that were weighed, `notes` what else is worth saying of the route."""

    wish: Wish
    prices: Prices
    looks: Looks
    intent: Intent | None = None
    why: dict[str, str] = field(default_factory=dict)
    options: list[Option] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    qualities: dict[str, Known | None] = field(default_factory=dict)
