"""E-mail addresses, also disguised ones, and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from farthing_privacy.spans import Kind, Span

# Letters of alphabets that are written with spaces. A word of Chinese before an address would otherwise count as part of it.
_LETTER = r"A-Za-zÀ-ÖØ-öø-ɏͰ-ԯ"
_LOCAL = rf"{_LETTER}0-9_.+\-'"
_LABEL = rf"[{_LETTER}0-9](?:[{_LETTER}0-9_\-]{{0,62}})"
_END = rf"[{_LETTER}]{{2,24}}(?![{_LETTER}0-9])|xn--[a-z0-9\-]{{2,58}}"
_PLAIN = re.compile(rf"(?<![{_LOCAL}])[{_LOCAL}]++@(?:{_LABEL}\.)+(?:{_END})")

_AT = r"(?:%40|&#0{0,4}64;|&#[xX]40;|&commat;|@|\s{0,2}[\[({<]\s?(?:at|AT|At|@)\s?[\])}>]\s{0,2})"
_DOT = r"(?:\.|%2[Ee]|&#0{0,4}46;|\s{0,2}[\[({<]\s?(?:dot|DOT|Dot|\.)\s?[\])}>]\s{0,2})"
_SPELLED_DOT = r"(?:\.|\s{1,2}(?:dot|DOT|Dot)\s{1,2})"
_DISGUISED_LOCAL = rf"(?:[{_LETTER}0-9_.+\-']|%2[BDEbde]|%5[Ff]|{_DOT}){{1,64}}?"
_DISGUISED_START = rf"(?:(?<=%[0-9A-Fa-f]{{2}})|(?<![{_LETTER}0-9_.+\-%]))(?=[{_LETTER}0-9])"
_DISGUISED = re.compile(rf"{_DISGUISED_START}{_DISGUISED_LOCAL}{_AT}(?:{_LABEL}{_DOT}){{1,8}}(?:{_END})")
_SPELLED = re.compile(
    rf"(?<![{_LOCAL}])[{_LETTER}0-9][{_LOCAL}]{{0,63}}\s{{1,2}}(?:at|AT|At)\s{{1,2}}"
    rf"(?:{_LABEL}{_SPELLED_DOT}){{0,6}}{_LABEL}\s{{1,2}}(?:dot|DOT|Dot)\s{{1,2}}(?:{_END})"
)
_BRACKETED = re.compile(r"[\[({<]\s?(?:at|AT|At|@|dot|DOT|Dot|\.)\s?[\])}>]")
_SPELLED_DOTS = (" dot ", " DOT ", " Dot ")
_FILE_ENDINGS = frozenset(("png", "jpg", "jpeg", "gif", "svg", "webp", "tgz", "gz", "js", "ts", "json", "css", "html", "txt"))
_JSON_ESCAPE = re.compile(r"u[0-9a-fA-F]{4}|[nrtbf]")

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?:(?<![A-Za-z0-9_.\-])|(?<=\\[nrtbf]))(?:{_OCTET}\.){{3}}{_OCTET}(?![A-Za-z0-9_\-]|\.[0-9])")
_IPV6 = re.compile(
    r"(?:(?<![0-9A-Za-z:._])|(?<=\\[nrtbf]))(?:[0-9A-Fa-f]{1,4}|:(?=:))(?::[0-9A-Fa-f]{0,4}){1,8}+(?:(?:\.[0-9]{1,3}){3})?(?:%[A-Za-z0-9]{1,15})?"
    r"(?![0-9A-Za-z_:])"
)
_VERSION_BEFORE = re.compile(
    r"(?:\b(?:versions?|ver|v|release|build|rev|revision|firmware|driver|kernel|section|sections|sec|chapter|clause|article|paragraph|"
    r"figure|table|appendix|step|rule|exercise)\b[\s.:#=\"']{0,4}(?:is |to |from )?|§\s?|[A-Za-z][\w.]*/|\bv)\Z",
    re.IGNORECASE,
)
_HEADING_AFTER = re.compile(r"[ \t]+[A-Z][a-z]")
_BEFORE_CHARACTERS = 24


def emails(text: str) -> Iterator[Span]:
    """E-mail addresses: plain, percent-encoded, with character references, and with "[at]" and "[dot]". Linear time."""
    in_json = text[:1] in ("{", "[")
    if "@" in text:
        for found in _PLAIN.finditer(text):
            start = found.start() + _leading_marks(found.group())
            if in_json and text[start - 1 : start] == "\\" and (escape := _JSON_ESCAPE.match(text, start)):
                start = escape.end()
            ending = found.group().rpartition(".")[2].lower()
            if ending not in _FILE_ENDINGS and text[start] != "@":
                yield Span(start, found.end(), Kind.EMAIL)
    if "%40" in text or "&#" in text or "&commat" in text or _holds_brackets(text):
        for found in _DISGUISED.finditer(text):
            yield Span(found.start(), found.end(), Kind.EMAIL)
    if any(dot in text for dot in _SPELLED_DOTS):
        for found in _SPELLED.finditer(text):
            yield Span(found.start(), found.end(), Kind.EMAIL)


def ip_addresses(text: str) -> Iterator[Span]:
    """IPv4 and IPv6 addresses, but no versions, section numbers or slices of code. Linear time."""
    if "." in text:
        for found in _IPV4.finditer(text):
            if not _is_version(text, found.start(), found.end()):
                yield Span(found.start(), found.end(), Kind.IP)
    if ":" in text:
        for found in _IPV6.finditer(text):
            if found.group().count(":") >= 2 and _is_ipv6(text, found.start(), found.group()):
                yield Span(found.start(), found.end(), Kind.IP)


def _holds_brackets(text: str) -> bool:
    return ("(" in text or "[" in text or "{" in text or "<" in text) and _BRACKETED.search(text) is not None


def _leading_marks(address: str) -> int:
    return len(address) - len(address.lstrip(".+-'_"))


def _is_version(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - _BEFORE_CHARACTERS) : start]
    if before.endswith("//"):
        return False
    if _VERSION_BEFORE.search(before):
        return True
    at_line_start = not before.rpartition("\n")[2].strip(" #*") and (start <= _BEFORE_CHARACTERS or "\n" in before)
    small = all(int(part) <= 20 for part in text[start:end].split("."))
    return at_line_start and small and _HEADING_AFTER.match(text, end) is not None


def _is_ipv6(text: str, start: int, found: str) -> bool:
    try:
        ipaddress.IPv6Address(found)
    except ValueError:
        return False
    digits = sum(character not in ":" for character in found.partition("%")[0])
    if digits >= 4:
        return any(character.isdigit() for character in found)
    sliced = text[start - 1 : start] == "[" and (text[start - 2 : start - 1].isalnum() or text[start - 2 : start - 1] in "])")
    return found == "::1" and not sliced
