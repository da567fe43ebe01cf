"""Telephone numbers, told from dates, amounts and order numbers by their shape and by the words before them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from farthing_privacy.spans import Kind, Span

DIGITS_MIN = 7
_DIGITS_MAX = 15
_CLUSTER = re.compile(r"[0-9](?:[ ().\-/]{0,3}[0-9]){6,}+")
_LEAD = re.compile(r"(?:(?:\+|%2[Bb]|\(\+))?\(?\Z")
_ZIP = re.compile(r"[0-9]{5}-[0-9]{4}")
_STATE_BEFORE = re.compile(r"\b[A-Z]{2},?\s\Z")
_CALLED_SO_AFTER = re.compile(
    r"\s{1,2}is (?:my|his|her|our|their|the)(?: \w{1,12})? (?:tele)?(?:phone|number|cell|mobile|fax)\b"
)
_LEAD_ENDS = ("+", "(", "b", "B")
_EXTENSION = re.compile(r"\)?\s{0,2}(?:x|ext\.?|extension|#)\s{0,2}[0-9]{1,6}(?![A-Za-z0-9])", re.IGNORECASE)
_NEAR_CHARACTERS = 36
_WORD = re.compile(r"\w+|[$€£¥]")
# fmt: off
_ANNOUNCE = frozenset(
    (
        "phone", "phones", "telephone", "telephones", "telefon", "telefono", "teléfono", "téléphone", "telefoon", "telefone",
        "fone", "fon", "tel", "tél", "call", "calling", "cell", "cellular", "mobile", "mobil", "móvil", "celular", "handy",
        "fax", "dial", "dialing", "whatsapp", "sms", "ring", "reach", "hotline", "helpline", "contact", "voicemail",
        "landline", "extension", "msisdn", "telegram",
    )
)
_DENY = frozenset(
    (
        "order", "orders", "invoice", "invoices", "isbn", "issn", "ticket", "tickets", "case", "serial", "sku", "part",
        "model", "version", "versions", "reference", "ref", "tracking", "account", "accounts", "id", "ids", "patent", "doi",
        "timestamp", "page", "pages", "pp", "year", "years", "score", "ssn", "population", "total", "sum", "product", "code",
        "barcode", "routing", "zip", "license", "licence", "policy", "passport", "range", "between", "from", "date", "build",
        "commit", "card", "bestellung", "rechnung", "commande", "facture", "pedido", "$", "€", "£", "¥",
    )
)
# fmt: on
_ANNOUNCE_UNSPACED = ("电话", "手机", "拨打", "致电", "热线", "電話", "携帯", "전화", "휴대폰")
_DATE = re.compile(
    r"(?:(?:19|20)[0-9]{2}[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:0?[1-9]|[12][0-9]|3[01])(?![0-9])"
    r"|(?:0?[1-9]|[12][0-9]|3[01])[-./ ](?:0?[1-9]|[12][0-9]|3[01])[-./ ](?:19|20)[0-9]{2}(?![0-9])"
    r"|(?:0?[1-9]|[12][0-9]|3[01])[-/.](?:0?[1-9]|[12][0-9]|3[01])[-/.][0-9]{2}(?![-./0-9])"
    r"|[12][0-9]{3} ?[-/] ?[12][0-9]{3}(?![0-9])|(?:19|20)[0-9]{6}(?![0-9]))"
)
_NORTH_AMERICAN = re.compile(
    r"(?:1[ .\-/]{0,2})?(?:\([0-9]{3}\)[ .\-/]{0,3}[2-9][0-9]{2}[ .\-]{0,3}[0-9]{4}|[2-9][0-9]{2}[ /][2-9][0-9]{2}[ .\-]{1,3}[0-9]{4}"
    r"|[0-9]{3}[.\-]{1,2}[0-9]{3}[.\-]{1,2}[0-9]{4}|\([0-9]{3}\)[ .\-]{1,2}[0-9]{3}[.\-][0-9]{4}|[2-9][0-9]{2}[.\-][2-9][0-9]{6})"
)
_SERVICE_NUMBER = re.compile(r"1[38]00[ \-][0-9]{3}[ \-][0-9]{3}")
_TRUNK = re.compile(r"\(?0[1-9][0-9]{0,4}\)?(?:[ .\-/]{1,3}[0-9]{2,8}){1,5}")
_INTERNATIONAL_TRUNK = re.compile(r"00[ .\-]?[1-9][0-9 ().\-/]+")
_AREA_IN_PARENTHESES = re.compile(r"\([0-9]{2,5}\)[ .\-/]{0,2}[0-9]{3,5}(?:[ .\-/]{1,2}[0-9]{2,5}){1,3}")


def phones(text: str) -> Iterator[Span]:
    """Telephone numbers: international, national in the usual shapes, and any other that words before it announce. Linear time."""
    for found in _CLUSTER.finditer(text):
        start = found.start()
        lead = _LEAD.search(text, max(0, start - 4), start) if text[start - 1 : start] in _LEAD_ENDS else None
        first = lead.start() if lead is not None else start
        if text[first] == "(" and text.find(")", first, found.end()) < 0:
            first += 1  # the whole number stands in parentheses, not its area code
        span = _phone(text, first, found.end(), digits_at=start)
        if span is not None:
            yield span


def _phone(text: str, first: int, end: int, *, digits_at: int) -> Span | None:
    number = text[first:end]
    digits = sum(character.isdigit() for character in text[digits_at:end])
    before = text[max(0, first - _NEAR_CHARACTERS) : first]
    if not _stands_alone(text, first, end, before):
        return None
    international = "+" in text[first:digits_at] or "%2" in text[first:digits_at]
    if international:
        return _span(text, first, end) if DIGITS_MIN + 1 <= digits <= _DIGITS_MAX else _prefix_span(text, first, digits_at)
    if digits > _DIGITS_MAX + 1 or _DATE.match(number.lstrip("(")) or (_ZIP.fullmatch(number) and _STATE_BEFORE.search(before)):
        return None
    announced = True if _CALLED_SO_AFTER.match(text, end) else _announced(before)
    if announced is None:
        return _span(text, first, end) if _shaped(number, digits) else None
    return _span(text, first, end) if announced and number.count("(") == number.count(")") else None


def _announced(before: str) -> bool | None:
    """Whether the nearest telling word before a number says that it is a telephone number, or that it is none; None where no word tells."""
    for word in reversed(_WORD.findall(before.lower())):
        if word in _ANNOUNCE:
            return True
        if word in _DENY:
            return False
    if not before.isascii() and any(word in before for word in _ANNOUNCE_UNSPACED):
        return True
    return None


def _shaped(number: str, digits: int) -> bool:
    """Whether a number has the shape of a national telephone number, whatever stands before it."""
    if _NORTH_AMERICAN.fullmatch(number) or _SERVICE_NUMBER.fullmatch(number):
        return True
    if _TRUNK.fullmatch(number):
        return 9 <= digits <= 12
    if _AREA_IN_PARENTHESES.fullmatch(number):
        return 8 <= digits <= 12
    return _INTERNATIONAL_TRUNK.fullmatch(number) is not None and 11 <= digits <= 17


def _stands_alone(text: str, first: int, end: int, before: str) -> bool:
    """Whether a number is no part of a longer word, path, amount or decimal."""
    previous, following = text[first - 1 : first] if first else "", text[end : end + 1]
    if following.isascii() and following.isalpha() and not _EXTENSION.match(text, end):
        return False
    if following in ("-", "_") and text[end + 1 : end + 2].isalpha():
        return False
    if following in ("%", "°") or (following == "," and text[end + 1 : end + 2].isdigit()):
        return False
    if previous.isascii() and previous.isalnum():
        return before[-2:] in ("\\n", "\\r", "\\t")
    if previous in ("$", "€", "£", "¥", "#", "_", "=", "^", "*", "@", ","):
        return previous in "=,*" and not before[-2:-1].isdigit()
    return not (previous in ("-", "/", ".") and before[-2:-1].isalnum() and not before.endswith("//"))


def _span(text: str, first: int, end: int) -> Span:
    extension = _EXTENSION.match(text, end)
    return Span(first, extension.end() if extension is not None else end, Kind.PHONE)


def _prefix_span(text: str, first: int, digits_at: int) -> Span | None:
    """An international number that runs into the number after it: as many groups as one number can have."""
    end, digits = digits_at, 0
    for group in re.finditer(r"[0-9]+", text[digits_at : digits_at + 40]):
        if digits + len(group.group()) > 13:
            break
        digits += len(group.group())
        end = digits_at + group.end()
    return Span(first, end, Kind.PHONE) if digits > DIGITS_MIN else None
