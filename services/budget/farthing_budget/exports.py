"""Exports of usage as CSV: our own columns, FOCUS 1.2, and the lines of an invoice.

FOCUS is the FinOps Open Cost and Usage Specification; its version 1.2 has the columns below, and lets others follow whose names begin
with `x_`. Money is exact decimal text. Text that others chose never begins a cell in a way that a spreadsheet takes for a formula.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

from farthing_core.money import NANOS_PER_USD

from farthing_budget.questions import EVERYTHING, UsageFilter, UsageSum
from farthing_budget.rollups import scope_names
from farthing_budget.usage import CORRECTIONS, Source

CHUNK_BYTES = 256 * 1024
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Format(IntEnum):
    """How usage is exported; the numbers are the contract's."""

    FOCUS = 1
    CSV = 2
    INVOICE = 3


class ExportQuestion(NamedTuple):
    """Which rows are exported."""

    scope: str
    start: datetime
    end: datetime
    only: UsageFilter = EVERYTHING


class ExportRow(NamedTuple):
    """One attempt as it was written down."""

    request_id: Any
    line: int
    recorded_at: datetime
    scope: str
    task: str
    service: str
    domain: str
    key_id: str
    tags: Sequence[str]
    model: str
    provider: str
    deployment: str
    outcome: str
    carries: bool
    estimated: bool
    price_unknown: bool
    tokens_source: int
    price_source: str
    service_tier: str
    input_tokens: int
    cached_input_tokens: int
    cache_write_5m_tokens: int
    cache_write_1h_tokens: int
    audio_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    audio_output_tokens: int
    cost_usd_nanos: int
    baseline_usd_nanos: int
    saved_cache_usd_nanos: int
    saved_prompt_usd_nanos: int
    saved_route_usd_nanos: int


_TEXTS = frozenset("task service domain key_id model provider deployment outcome price_source service_tier".split())
_FLAGS = {True: "true", False: "false"}
CSV_HEADER = (
    "request_id line recorded_at scope task service domain key_id tags model provider deployment outcome carries estimated price_unknown "
    "tokens_source price_source service_tier input_tokens cached_input_tokens cache_write_5m_tokens cache_write_1h_tokens "
    "audio_input_tokens output_tokens reasoning_tokens audio_output_tokens cost_usd_nanos baseline_usd_nanos saved_cache_usd_nanos "
    "saved_prompt_usd_nanos saved_route_usd_nanos cost_usd"
).split()
"""Our own columns. `tags` is a JSON list; `carries` is true on the line that counts as the request; flags are true or false."""
_FOCUS_COLUMNS = (
    "AvailabilityZone BilledCost BillingAccountId BillingAccountName BillingAccountType BillingCurrency BillingPeriodEnd "
    "BillingPeriodStart CapacityReservationId CapacityReservationStatus ChargeCategory ChargeClass ChargeDescription ChargeFrequency "
    "ChargePeriodEnd ChargePeriodStart CommitmentDiscountCategory CommitmentDiscountId CommitmentDiscountName CommitmentDiscountQuantity "
    "CommitmentDiscountStatus CommitmentDiscountType CommitmentDiscountUnit ConsumedQuantity ConsumedUnit ContractedCost "
    "ContractedUnitPrice EffectiveCost InvoiceId InvoiceIssuerName ListCost ListUnitPrice PricingCategory PricingCurrency "
    "PricingCurrencyContractedUnitPrice PricingCurrencyEffectiveCost PricingCurrencyListUnitPrice PricingQuantity PricingUnit "
    "ProviderName PublisherName RegionId RegionName ResourceId ResourceName ResourceType ServiceCategory ServiceName ServiceSubcategory "
    "SkuId SkuMeter SkuPriceDetails SkuPriceId SubAccountId SubAccountName SubAccountType Tags"
).split()
_OWN_COLUMNS = (
    "x_RequestId x_Line x_Scope x_Task x_Service x_Domain x_KeyId x_Outcome x_InputTokens x_CachedInputTokens x_CacheWriteTokens "
    "x_OutputTokens x_ReasoningTokens x_BaselineCost x_Estimated x_PriceSource"
).split()
FOCUS_HEADER = [*_FOCUS_COLUMNS, *_OWN_COLUMNS]
INVOICE_HEADER = (
    "day model provider requests attempts input_tokens cached_input_tokens output_tokens cost_usd baseline_usd saved_usd cost_usd_nanos"
).split()
"""Such a file is also what ImportInvoice reads."""


class Csv:
    """Lines of CSV, taken away in chunks of whole lines."""

    def __init__(self, header: Sequence[str]) -> None:
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(header)
        self.rows = 0

    def add(self, lines: Iterable[Sequence[Any]]) -> Iterator[bytes]:
        """Adds lines, and gives a chunk whenever one is full."""
        for line in lines:
            self._writer.writerow(line)
            self.rows += 1
            if self._text.tell() >= CHUNK_BYTES:
                yield self.rest()

    def rest(self) -> bytes:
        """What is there and was not yet taken away."""
        chunk = self._text.getvalue().encode()
        self._text.seek(0)
        self._text.truncate()
        return chunk


def safe(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain(cell: str) -> str:
    """The text that `safe` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def usd(nanos: int) -> str:
    """An amount in dollars, exactly."""
    whole, rest = divmod(abs(nanos), NANOS_PER_USD)
    return f"{'-' if nanos < 0 else ''}{whole}.{rest:09d}"


def csv_line(row: ExportRow) -> list[Any]:
    """An attempt in our own columns."""
    line: list[Any] = [safe(value) if name in _TEXTS else value for name, value in zip(row._fields, row, strict=True)]
    line[_AT["recorded_at"]] = row.recorded_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line[_AT["tags"]] = json.dumps(row.tags, ensure_ascii=False)
    line[_AT["tokens_source"]] = Source(row.tokens_source).name.lower()
    for name in ("carries", "estimated", "price_unknown"):
        line[_AT[name]] = _FLAGS[line[_AT[name]]]
    return [*line, usd(row.cost_usd_nanos)]


_AT = {name: index for index, name in enumerate(ExportRow._fields)}


def focus_line(row: ExportRow) -> list[Any]:
    """An attempt in the columns of FOCUS 1.2. What it cost is the price of one request: no rounded unit price stands in between."""
    facts = {**_fixed(row.scope, row.recorded_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)), **_costs(row)}
    model, provider, tier = safe(row.model), safe(row.provider) or "(unknown)", row.service_tier or "standard"
    facts |= {
        "ChargeDescription": safe(
            f"{row.model}: {row.input_tokens} input and {row.output_tokens} output tokens, {row.outcome}"
        ),
        "ConsumedQuantity": row.input_tokens + row.output_tokens,
        "InvoiceIssuerName": provider,
        "ProviderName": provider,
        "PublisherName": provider,
        "ResourceId": safe(row.deployment),
        "ResourceName": safe(row.deployment),
        "ResourceType": "Model deployment" if row.deployment else "",
        "SkuId": safe(f"{row.provider}/{row.model}"),
        "SkuPriceId": safe(f"{row.provider}/{row.model}/{tier}"),
        "SkuPriceDetails": json.dumps({"Model": model, "ServiceTier": tier}, ensure_ascii=False),
        "Tags": _tags(tuple(row.tags)),
        "x_RequestId": row.request_id,
        "x_Line": row.line,
        "x_Scope": row.scope,
        "x_Task": safe(row.task),
        "x_Service": safe(row.service),
        "x_Domain": safe(row.domain),
        "x_KeyId": safe(row.key_id),
        "x_Outcome": safe(row.outcome),
        "x_InputTokens": row.input_tokens,
        "x_CachedInputTokens": row.cached_input_tokens,
        "x_CacheWriteTokens": row.cache_write_5m_tokens + row.cache_write_1h_tokens,
        "x_OutputTokens": row.output_tokens,
        "x_ReasoningTokens": row.reasoning_tokens,
        "x_Estimated": _FLAGS[row.estimated or row.price_unknown],
        "x_PriceSource": safe(row.price_source),
    }
    return [facts.get(name, "") for name in FOCUS_HEADER]


def _costs(row: ExportRow) -> dict[str, Any]:
    cost, price = usd(row.cost_usd_nanos), usd(abs(row.cost_usd_nanos))
    costs = dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingCurrencyEffectiveCost"), cost)
    unit_prices = (
        "ContractedUnitPrice",
        "ListUnitPrice",
        "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyListUnitPrice",
    )
    # A refund gives a request back.
    quantity = -1 if row.outcome in CORRECTIONS and row.cost_usd_nanos < 0 else 1
    return {
        **costs,
        **dict.fromkeys(unit_prices, price),
        "PricingQuantity": quantity,
        "x_BaselineCost": usd(row.baseline_usd_nanos),
    }


@lru_cache(maxsize=4096)
def _fixed(scope: str, hour: datetime) -> dict[str, Any]:
    """What all rows of a scope and an hour have in common."""
    month = hour.replace(day=1, hour=0)
    workspace = scope_names(scope)[0]
    organization = scope.split("/")[1]
    return {
        "BillingAccountId": organization,
        "BillingAccountType": "Organization",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _time((month + timedelta(days=32)).replace(day=1)),
        "BillingPeriodStart": _time(month),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _time(hour + timedelta(hours=1)),
        "ChargePeriodStart": _time(hour),
        "ConsumedUnit": "Tokens",
        "PricingCategory": "Standard",
        "PricingCurrency": "USD",
        "PricingUnit": "Requests",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Language model inference",
        "ServiceSubcategory": "Generative AI",
        "SkuMeter": "Model requests",
        "SubAccountId": f"organizations/{organization}/workspaces/{workspace}" if workspace else "",
        "SubAccountName": workspace,
        "SubAccountType": "Workspace" if workspace else "",
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=4096)
def _tags(tags: tuple[str, ...]) -> str:
    """Tags as FOCUS has them: `key:value` is a value of a key, anything else is true."""
    pairs = (tag.partition(":") for tag in tags)
    return json.dumps({key: value if colon else True for key, colon, value in pairs}, ensure_ascii=False) if tags else ""


def invoice_line(found: UsageSum) -> list[Any]:
    """What one model of a provider cost on one day; `keys` are day, model and provider."""
    day, model, provider = found.keys
    return [
        day,
        safe(model),
        safe(provider),
        found.requests,
        found.attempts,
        found.input_tokens,
        found.cached_input_tokens,
        found.output_tokens,
        usd(found.cost_usd_nanos),
        usd(found.baseline_usd_nanos),
        usd(found.saving.usd_nanos),
        found.cost_usd_nanos,
    ]


LINES: dict[Format, tuple[Sequence[str], Callable[[ExportRow], list[Any]]]] = {
    Format.FOCUS: (FOCUS_HEADER, focus_line),
    Format.CSV: (CSV_HEADER, csv_line),
}
"""Header and lines of the formats that have a line an attempt."""
