"""The outline of a text: which kinds of personal data it may hold at all.

Most texts hold none, and finding that out must cost next to nothing. Each outline is one pass of `bytes.translate` (about a
nanosecond a character) that reduces the text to a few letters, and a search for one short string in it.
"""

from __future__ import annotations

from farthing_privacy.spans import Kind

_DIGITS, _HEXADECIMAL = b"0123456789", b"0123456789abcdefABCDEF"
_KEY_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+/"
_KEY_RUN = b"x" * 16
_DIGITS_RUN = b"0" * 7
_ALWAYS = frozenset({Kind.EMAIL})
_NUMBERS = frozenset({Kind.CARD, Kind.IBAN, Kind.PHONE})


def _table(*groups: tuple[bytes, bytes], other: bytes) -> bytes:
    """A translation that maps each group's characters to its letter and all other bytes to `other`."""
    letters = bytearray(other * 256)
    for characters, letter in groups:
        for character in characters:
            letters[character] = letter[0]
    return bytes(letters)


_NUMBER_TABLE = _table((_DIGITS, b"0"), (b".", b"."), other=b"x")
_NUMBER_SEPARATORS = b" ()-/"
_KEY_TABLE = _table((_KEY_CHARACTERS, b"x"), other=b" ")
_COLON_TABLE = _table((_HEXADECIMAL, b"0"), (b":", b":"), other=b"x")


def outline(text: str) -> frozenset[Kind]:
    """The kinds that a text may hold; what is not among them it holds not."""
    raw = text.encode(errors="surrogatepass")
    possible = _ALWAYS
    numbers = raw.translate(_NUMBER_TABLE, _NUMBER_SEPARATORS)
    if _DIGITS_RUN in numbers.replace(b".", b""):
        possible |= _NUMBERS
    if b"0.0" in numbers or _may_hold_ipv6(raw):
        possible |= {Kind.IP}
    if _KEY_RUN in raw.translate(_KEY_TABLE) or b"-----BEGIN " in raw:
        possible |= {Kind.API_KEY}
    return possible


def _may_hold_ipv6(raw: bytes) -> bool:
    if b"::" in raw:
        return True
    return raw.count(b":") >= 7 and b"0:0" in raw.translate(_COLON_TABLE)
