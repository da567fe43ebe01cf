"""Sealed bytes: what opens them, and what does not."""

from __future__ import annotations

import pytest
from farthing_runtime.envelopes import OVERHEAD_BYTES, DataKeys, bound, header_of, number_of

KEY, OTHER = b"k" * 32, b"o" * 32


def keys(organization: str = "acme", purpose: str = "cache", **changes: bytes) -> DataKeys:
    return DataKeys(organization, purpose, {1: KEY, 2: OTHER} | {int(number[1:]): key for number, key in changes.items()})


def test_what_was_sealed_opens_and_says_which_key_it_needs() -> None:
    for payload in (b"", b"x", b"y" * 70_000):
        sealed = keys().seal(payload, belongs_to=b"row")
        assert keys().open(sealed, belongs_to=b"row") == payload
        assert len(sealed) == len(payload) + OVERHEAD_BYTES
        assert (number_of(sealed), sealed[:5]) == (2, header_of(2))


def test_the_format_stays_what_it_is() -> None:
    golden = DataKeys("acme", "cache", {7: KEY}, nonce=lambda size: b"n" * size).seal(b"payload", belongs_to=b"row")
    assert golden.hex() == GOLDEN
    assert DataKeys("acme", "cache", {7: KEY}).open(bytes.fromhex(GOLDEN), belongs_to=b"row") == b"payload"


def test_no_byte_can_be_changed_added_or_taken_away() -> None:
    sealed = keys().seal(b"a payload", belongs_to=b"row")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert keys().open(bytes(changed), belongs_to=b"row") is None, place
        assert keys().open(sealed[:place], belongs_to=b"row") is None
    assert keys().open(sealed + b"\0", belongs_to=b"row") is None


def test_it_opens_in_no_other_row_organisation_or_purpose_nor_under_another_key() -> None:
    sealed = keys().seal(b"a payload", belongs_to=b"row")
    assert keys().open(sealed, belongs_to=b"other") is None
    assert keys("other").open(sealed, belongs_to=b"row") is None
    assert keys(purpose="receipts").open(sealed, belongs_to=b"row") is None
    assert keys(_2=KEY).open(sealed, belongs_to=b"row") is None
    assert DataKeys("acme", "cache", {1: KEY}).open(sealed, belongs_to=b"row") is None


def test_the_same_text_never_looks_the_same_twice() -> None:
    assert len({keys().seal(b"a payload", belongs_to=b"row") for _ in range(100)}) == 100


def test_parts_cannot_be_shifted_into_one_another() -> None:
    assert bound(b"ab", b"c") != bound(b"a", b"bc")


def test_keys_do_not_show_in_their_repr() -> None:
    assert repr(keys()) == "DataKeys([1, 2])"


@pytest.mark.parametrize("text", [b"", b"\x01", b"\x01\0\0\0", b"\x02\0\0\0\x01" + b"x" * 40, b"\0plain"])
def test_what_is_no_sealed_text_is_not_read(text: bytes) -> None:
    assert number_of(text) == 0
    assert keys().open(text, belongs_to=b"row") is None


GOLDEN = "01000000076e6e6e6e6e6e6e6e6e6e6e6eaecaa525b17944e75cb59825058f607ecc44c9c30f38fe"
