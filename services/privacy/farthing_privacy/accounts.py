"""Payment cards and IBANs, told from other numbers by their check digits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from farthing_privacy.spans import Kind, Span

_START = r"(?:(?<![A-Za-z0-9])(?<![0-9][.,])|(?<=\\[nrtbf]))"
_CARD = re.compile(
    rf"{_START}(?:[0-9]{{13,19}}|[0-9]{{4}}[ \-]{{1,2}}[0-9]{{6}}[ \-]{{1,2}}[0-9]{{4,5}}"
    r"|[0-9]{4}[ \-]{1,2}[0-9]{4}[ \-]{1,2}[0-9]{4}[ \-]{1,2}[0-9]{1,4}(?:[ \-][0-9]{1,3})?)(?![A-Za-z0-9])(?![.,][0-9])"
)
_GROUP = re.compile(r"[0-9]+[ \-]*")
_LENGTHS = (
    # What issuers' numbers begin with, and how many digits they have (ISO/IEC 7812 and the networks' own pages).
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"30[0-5]|3095|3[689]"), (14, 16, 19)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16, 17, 18, 19)),
    (re.compile(r"6|50|5[6-9]|81"), (13, 14, 15, 16, 17, 18, 19)),
)

# The length of a country's IBANs, by the registry of ISO 13616.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO FK GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ DZ ES MD PK RO SA SE SK TN VG",
        25: "AO CV LY PT ST",
        26: "IS TR",
        27: "BI CF CG CM DJ FR GA GQ GR IT KM MC MG SM TD",
        28: "AL AZ BF BJ BY CI CY DO GT HN HU LB ML MR NE NI PL SN SV TG",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
_IBAN_HEAD = re.compile(r"(?:(?<![A-Za-z0-9])|(?<=\\[nrtbf]))([A-Za-z]{2})[ \-]?[0-9]{2}(?=[ \-]?[A-Za-z0-9]{2})")
_IBAN_TAILS = {
    length: re.compile(rf"[A-Za-z]{{2}}[ \-]?[0-9]{{2}}(?:[ \-]{{0,2}}[A-Za-z0-9]){{{length - 4}}}(?![A-Za-z0-9])")
    for length in set(_IBAN_LENGTHS.values())
}


def cards(text: str) -> Iterator[Span]:
    """Payment card numbers with a known beginning, its length and a right Luhn digit. Linear time."""
    at = 0
    while (found := _CARD.search(text, at)) is not None:
        if _is_card("".join(filter(str.isdigit, found.group()))):
            yield Span(found.start(), found.end(), Kind.CARD)
            at = found.end()
        else:
            # A card may begin at the next group: "12 4111 …".
            group = _GROUP.match(text, found.start())
            at = group.end() if group is not None else found.end()


def ibans(text: str) -> Iterator[Span]:
    """IBANs of their country's length with right check digits, in groups or not, in either case. Linear time."""
    for head in _IBAN_HEAD.finditer(text):
        length = _IBAN_LENGTHS.get(head[1].upper())
        found = _IBAN_TAILS[length].match(text, head.start()) if length is not None else None
        if found is not None and _checks(found.group()):
            yield Span(found.start(), found.end(), Kind.IBAN)


def _is_card(digits: str) -> bool:
    for beginning, lengths in _LENGTHS:
        if beginning.match(digits):
            return len(digits) in lengths and _luhn(digits) and len(set(digits)) > 1
    return False


def _luhn(digits: str) -> bool:
    odd = sum(map(int, digits[-1::-2]))
    even = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (odd + even) % 10 == 0


def _checks(iban: str) -> bool:
    """Whether the check digits are right: the number, with its head moved to the end and letters as 10 to 35, leaves 1 over 97."""
    plain = "".join(filter(str.isalnum, iban)).upper()
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1
