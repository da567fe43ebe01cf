"""Personal data and secrets out of texts, and back in.

A mask token looks like `[EMAIL_1]`: it matches `\\[[A-Z_]+_[0-9]+\\]` and has at most 40 characters. One piece has one token
throughout a request. A token that a text held from the start is never given out, so `unmask` restores every text exactly. Only exact
tokens are put back: a model that writes `[Email 1]` has written its own words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from farthing_core.errors import FieldInvalid

from farthing_privacy.accounts import cards, ibans
from farthing_privacy.addresses import emails, ip_addresses
from farthing_privacy.outline import outline
from farthing_privacy.phones import phones
from farthing_privacy.secrets import secrets
from farthing_privacy.spans import Kind, Span, merged

TOKEN_CHARACTERS_MAX = 40
_TOKEN = re.compile(r"\[[A-Z_]{1,30}_[0-9]{1,24}\]")
_FINDERS: dict[Kind, Callable[[str], Iterator[Span]]] = {
    Kind.API_KEY: secrets,
    Kind.EMAIL: emails,
    Kind.IBAN: ibans,
    Kind.CARD: cards,
    Kind.IP: ip_addresses,
    Kind.PHONE: phones,
}

# Other ways to write the same characters, one for one, so that positions stay: full-width forms, Arabic digits, typographic spaces
# and hyphens. The full-width colon stays: it is how Chinese introduces what follows, and an address may not begin after a colon of its own.
_PLAIN_FORMS = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if code != 0xFF1A},
    **{0x0660 + digit: 0x30 + digit for digit in range(10)},
    **{0x06F0 + digit: 0x30 + digit for digit in range(10)},
    **dict.fromkeys((0x00A0, 0x2007, 0x2009, 0x202F, 0x3000), 0x20),
    **dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212), 0x2D),
}
_OTHER_FORMS = re.compile("[" + "".join(map(chr, _PLAIN_FORMS)).replace("]", "\\]").replace("-", "\\-") + "]")


@dataclass(frozen=True, slots=True)
class Replaced:
    """A piece that was masked: what stands in its place, what it was, and its kind."""

    mask_token: str
    original: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Masked:
    """The masked texts, in order, and what was replaced in them. Both are empty when nothing was."""

    texts: list[str]
    replaced: list[Replaced]


def mask(texts: Collection[str], *, kinds: Collection[Kind] = ()) -> Masked:
    """Replaces pieces of these kinds (all when none is named) by mask tokens. Linear in the size of the texts."""
    wanted = frozenset(kinds) or frozenset(Kind)
    found = [pieces(text, kinds=wanted) for text in texts]
    if not any(found):
        return Masked([], [])
    tokens = _Tokens(texts)
    return Masked([_replaced(text, spans, tokens) for text, spans in zip(texts, found, strict=True)], tokens.given)


def pieces(text: str, *, kinds: frozenset[Kind]) -> list[Span]:
    """What of a text is to be masked, in order and without overlaps."""
    plain = text.translate(_PLAIN_FORMS) if not text.isascii() and _OTHER_FORMS.search(text) else text
    possible = outline(plain) & kinds
    spans = [span for kind, find in _FINDERS.items() if kind in possible for span in find(plain)]
    return merged(spans) if spans else []


def unmask(texts: Iterable[str], *, originals: Mapping[str, str]) -> list[str]:
    """Puts the originals back where their exact tokens stand. Raises FieldInvalid for a token that is none."""
    for token in originals:
        if not _TOKEN.fullmatch(token):
            raise FieldInvalid(field="spans.mask_token", problem="must look like [EMAIL_1]")
    return [
        _TOKEN.sub(lambda found: originals.get(found.group(), found.group()), text) if "[" in text else text for text in texts
    ]


class _Tokens:
    """Gives each distinct piece its token, avoiding those that the texts hold already."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.given: list[Replaced] = []
        self._taken = {token for text in texts if "[" in text for token in _TOKEN.findall(text)}
        self._by_piece: dict[tuple[Kind, str], str] = {}
        self._next = dict.fromkeys(Kind, 1)

    def token(self, kind: Kind, original: str) -> str:
        """The token of a piece."""
        token = self._by_piece.get((kind, original))
        if token is None:
            token = self._fresh(kind)
            self._by_piece[kind, original] = token
            self.given.append(Replaced(token, original, kind))
        return token

    def _fresh(self, kind: Kind) -> str:
        while True:
            token = f"[{kind.name}_{self._next[kind]}]"
            self._next[kind] += 1
            if token not in self._taken:
                return token


def _replaced(text: str, spans: list[Span], tokens: _Tokens) -> str:
    parts: list[str] = []
    at = 0
    for span in spans:
        parts += (text[at : span.start], tokens.token(span.kind, text[span.start : span.end]))
        at = span.end
    parts.append(text[at:])
    return "".join(parts)
