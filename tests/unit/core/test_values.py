"""Money and scopes."""

from __future__ import annotations

import pytest
from farthing_core.errors import FieldInvalid
from farthing_core.money import NANOS_MAX, AmountInvalid, nanos_from_usd, price_of_tokens, usd_text
from farthing_core.scopes import parse_scope
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 10**9), st.integers(0, 10**11), st.integers(0, 10**9), st.integers(0, 10**11))
def test_a_price_is_rounded_up_once(tokens: int, rate: int, more: int, other: int) -> None:
    exact = tokens * rate + more * other
    price = price_of_tokens((tokens, rate), (more, other))
    assert (price - 1) * 1_000_000 < exact <= price * 1_000_000


def test_dollars_are_exact_and_floats_are_refused() -> None:
    assert nanos_from_usd("2.50") == 2_500_000_000
    assert nanos_from_usd("0.0000000001") == 1
    for wrong in (2.5, "-1", "x", "NaN", str(NANOS_MAX)):
        with pytest.raises(AmountInvalid):
            nanos_from_usd(wrong)  # type: ignore[arg-type]
    assert usd_text(-1_234_000) == "-$0.001234"


def test_a_scope_knows_its_ancestors() -> None:
    scope = parse_scope("organizations/acme/workspaces/search/projects/ranker/users/ann@example.com")
    assert (scope.organization, scope.workspace) == ("acme", "organizations/acme/workspaces/search")
    assert len(scope.ancestors) == 4
    assert parse_scope("organizations/acme").contains(scope)
    assert not parse_scope("organizations/acme/workspaces/sea").contains(scope)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "acme",
        "organizations/",
        "organizations/a b",
        "organizations/a/projects/p",
        "organizations/a/workspaces",
        "organizations/a/",
        "users/u",
    ],
)
def test_what_is_no_scope_is_refused(path: str) -> None:
    with pytest.raises(FieldInvalid):
        parse_scope(path)
