"""A text taken apart once, for all that is measured of it. Linear in the text, which is bounded before."""

from __future__ import annotations

import re
import zlib
from functools import cached_property
from itertools import pairwise

import numpy as np

from farthing_router.calibration.forest import Floats
from farthing_router.judging.answers import canonical, stated_answer

Counts = tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Floats]
BUCKETS = 16384
"""Words and pairs of words are counted in so many buckets, so that an artefact stays small whatever people write."""
_WORD = re.compile(r"[a-z]+|\d[\d,]*(?:\.\d+)?")
_FIGURE = r"(\d[\d,]{0,15}(?:\.\d{1,8})?)"
_EQUATION = re.compile(
    rf"{_FIGURE}\s{{0,2}}([-+*/×÷])\s{{0,2}}\$?{_FIGURE}\s{{0,2}}=\s{{0,2}}\$?(-?\d[\d,]{{0,15}}(?:\.\d{{1,8}})?)"
)
_CHAINS_MAX = 60
_STATED = re.compile(r"(?:answer|result|output)\s{0,2}(?:is|:|=|\"\s?:)[\s:*\"]{0,4}([^\s\",}]{1,40})", re.IGNORECASE)


class Parts:
    """A text's words and numbers, and its final answer. What is costly is found when it is first asked for."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lower = text.lower()
        self.tokens: list[str] = _WORD.findall(self.lower)

    @cached_property
    def words(self) -> list[str]:
        """The words, numbers left out."""
        return [token for token in self.tokens if token[0] > "9"]

    @cached_property
    def numbers(self) -> list[str]:
        """The numbers, without thousands' commas."""
        return [token.replace(",", "") for token in self.tokens if token[0] <= "9"]

    @cached_property
    def vocabulary(self) -> set[str]:
        """The different words."""
        return set(self.words)

    @cached_property
    def figures(self) -> set[str]:
        """The different numbers."""
        return set(self.numbers)

    @cached_property
    def stated(self) -> str | None:
        """The final answer as it is written."""
        return stated_answer(self.text)

    @cached_property
    def final(self) -> str | None:
        """The final answer in a canonical form."""
        return None if self.stated is None else canonical(self.stated)

    @cached_property
    def claims(self) -> list[str]:
        """What the text says the answer is, each time it says so."""
        return [found.lower() for found in _STATED.findall(self.text)[:_CHAINS_MAX]]

    @cached_property
    def reckoned(self) -> tuple[int, int]:
        """How many of its equations of two numbers are right, and how many wrong."""
        right = wrong = 0
        for one, sign, other, result in _EQUATION.findall(self.text)[:_CHAINS_MAX]:
            if _holds(one, sign, other, result):
                right += 1
            else:
                wrong += 1
        return right, wrong

    @cached_property
    def counts(self) -> Counts:
        """The buckets of its words and pairs of neighbouring words, and the damped count in each, of unit length."""
        return hashed(self.tokens)


def hashed(tokens: list[str]) -> Counts:
    """The buckets of tokens and of pairs of neighbours, and 1 + log of the count in each. Long numbers count as one token."""
    plain = [token if token[0] > "9" or len(token) < 3 else "#" for token in tokens]
    terms = [*plain, *(f"{one} {other}" for one, other in pairwise(plain))]
    codes = np.fromiter((zlib.crc32(term.encode()) for term in terms), dtype=np.int64, count=len(terms)) % BUCKETS
    buckets, counts = np.unique(codes, return_counts=True)
    return buckets, 1 + np.log(counts)


def _holds(one: str, sign: str, other: str, result: str) -> bool:
    first, second, said = (float(number.replace(",", "") or 0) for number in (one, other, result))
    if sign in "/÷" and second == 0:
        return False
    real = {"+": first + second, "-": first - second}.get(sign)
    if real is None:
        real = first * second if sign in "*×" else first / second
    return abs(real - said) <= max(0.006 * abs(real), 0.051 if "." in result else 0.5 if sign in "/÷" else 1e-6)
