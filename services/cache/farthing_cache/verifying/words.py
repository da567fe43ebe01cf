"""A text read once, as the rules need it: words without contractions, their stems, and which of them are written as names.

Everything is one pass over at most `WORDS_MAX` words; the regular expressions cannot go back over what they have read.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from farthing_cache.verifying.numbers import SPELLED, UNITS
from farthing_cache.verifying.stems import stem

WORDS_MAX = 400
_CHARACTERS_MAX = 8_000
_SPACE = re.compile(r"\s+")
_TOKEN = re.compile(
    r"(?:[cC]\+\+|[cCfF]#|\.[nN][eE][tT]\b)"
    r"|\d+(?:[.,:/]\d+)*"
    r"|[^\W\d_]+(?:'[^\W\d_]+)*"
    r"|[-+*/=<>^%$€£¥₹°&@#_,?!;:()]"
)
_CONTRACTIONS = {
    "can't": "can not",
    "cannot": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "ain't": "is not",
    "let's": "let us",
    "what's": "what is",
    "who's": "who is",
    "where's": "where is",
    "when's": "when is",
    "how's": "how is",
    "why's": "why is",
    "it's": "it is",
    "that's": "that is",
    "there's": "there is",
    "here's": "here is",
    "he's": "he is",
    "she's": "she is",
    "i'm": "i am",
    "whats": "what is",
    "hows": "how is",
    "dont": "do not",
    "doesnt": "does not",
    "didnt": "did not",
    "isnt": "is not",
    "cant": "can not",
    "wont": "will not",
    "im": "i am",
    "gonna": "going to",
    "wanna": "want to",
    "pls": "please",
    "plz": "please",
    "u": "you",
}
_ENDINGS = (("n't", "not"), ("'re", "are"), ("'ve", "have"), ("'ll", "will"), ("'d", "would"))
_PUNCTUATION = frozenset(",?!;:()_-&@")
_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-"})
FUNCTION = frozenset(
    (
        "a an the is are was were be been being am do does did can could will would shall should may might must have has had i "
        "you we they it my your our their its me us them this that these those of to in on at by for with from about as into "
        "and or so if then than there how what which who whom whose when where why not no such 's too much many more most up off "
        "out very also just some any"
    ).split()
)
# These carry little meaning besides: a question is the same with and without them.
STOP = FUNCTION | frozenset(
    (
        "please tell explain give want need like know really get got way best good one someone somebody anyone people person s "
        "let make use help ask question"
    ).split()
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A text as the rules see it. `stems` stands beside `words`; `named` holds the stems written with a capital within a sentence."""

    text: str
    words: tuple[str, ...]
    stems: tuple[str, ...]
    named: frozenset[str]
    whole: bool

    @property
    def content(self) -> tuple[str, ...]:
        """The stems that carry meaning, in their order, without numbers and their units."""
        found = []
        before = " "
        for word, root in zip(self.words, self.stems, strict=True):
            measured = word in SPELLED or (word in UNITS and (before[0].isdigit() or before in SPELLED))
            if word not in STOP and word[0].isalpha() and not measured:
                found.append(root)
            before = word
        return tuple(found)


def normalised(text: str) -> str:
    """A text without what never matters: case, runs of white space, and punctuation at its end."""
    return _SPACE.sub(" ", text).strip().rstrip(".?! ").lower()


@lru_cache(maxsize=1024)
def read(text: str) -> Reading:
    """The reading of a text. What stands after the first 400 words is not read, and `whole` says so."""
    plain = unicodedata.normalize("NFKC", text[:_CHARACTERS_MAX]).translate(_STRAIGHT)
    words: list[str] = []
    named: set[str] = set()
    begins = True
    whole = len(text) <= _CHARACTERS_MAX
    for match in _TOKEN.finditer(plain):
        if len(words) >= WORDS_MAX:
            whole = False
            break
        token = match.group()
        lower = token.lower()
        if not begins and token[0].isupper() and lower not in STOP:
            named.add(stem(lower.removesuffix("'s")))
        begins = token in "?!;:" or (token[0] in '("')
        words.extend(_expanded(lower))
    return Reading(normalised(text), tuple(words), tuple(map(stem, words)), frozenset(named), whole)


def _expanded(word: str) -> list[str]:
    known = _CONTRACTIONS.get(word)
    if known is not None:
        return known.split()
    if "'" in word:
        for ending, plain in _ENDINGS:
            if word.endswith(ending) and len(word) > len(ending):
                return [word[: -len(ending)], plain]
        if word.endswith("'s"):
            return [word[:-2], "'s"]
    return [] if word in _PUNCTUATION else [word]
