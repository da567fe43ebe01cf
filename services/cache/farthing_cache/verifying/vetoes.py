"""Whether two questions that look alike may share an answer. Similarity proposes; these rules dispose.

A cosine cannot tell "turn on" from "turn off": what must not differ is checked word by word. Microseconds; linear in the texts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|\d+(?:[.,:/]\d+)*%?|[$€£%°+*/=<>^-]")
_SPACE = re.compile(r"\s+")
_NEGATIONS = frozenset(
    (
        "not no never none nobody nothing neither nor without cannot can't don't doesn't didn't isn't aren't wasn't weren't "
        "won't wouldn't shouldn't couldn't haven't hasn't hadn't unable fail fails failed stop prevent avoid except exclude "
        "excluding "
    ).split()
)
_PAIRS = (
    "on/off enable/disable enabled/disabled activate/deactivate increase/decrease raise/lower raise/reduce add/remove "
    "add/delete create/delete open/close opened/closed start/stop begin/end before/after first/last earliest/latest "
    "more/less most/least maximum/minimum max/min up/down upgrade/downgrade import/export upload/download buy/sell "
    "send/receive encrypt/decrypt lock/unlock install/uninstall connect/disconnect subscribe/unsubscribe follow/unfollow "
    "block/unblock mute/unmute show/hide in/out inside/outside above/below over/under left/right north/south east/west "
    "hot/cold warm/cool good/bad best/worst better/worse easy/hard fast/slow long/short big/small large/small high/low "
    "higher/lower old/new older/newer young/old rich/poor true/false yes/no win/lose profit/loss gain/lose push/pull "
    "monthly/yearly monthly/annually monthly/annual weekly/monthly daily/weekly public/private personal/business "
    "husband/wife mother/father son/daughter brother/sister boy/girl man/woman men/women male/female king/queen he/she "
    "him/her his/her his/hers himself/herself morning/evening today/tomorrow yesterday/tomorrow yesterday/today past/future "
    "arrive/depart arrival/departure borrow/lend include/exclude accept/reject approve/reject allow/deny allow/block "
    "possible/impossible legal/illegal safe/unsafe secure/insecure visible/invisible becoming/staying mobile/desktop "
    "android/iphone android/ios windows/mac windows/linux mac/linux credit/debit login/logout incoming/outgoing read/write "
    "input/output refund/charge owner/member admin/member sender/recipient buyer/seller employer/employee teacher/student "
    "doctor/patient together/separately with/without for/against positive/negative plus/minus multiply/divide single/double "
    "single/multiple "
).split()
_OPPOSITES: dict[str, frozenset[str]] = {}
for _pair in _PAIRS:
    _one, _other = _pair.split("/")
    _OPPOSITES[_one] = _OPPOSITES.get(_one, frozenset()) | {_other}
    _OPPOSITES[_other] = _OPPOSITES.get(_other, frozenset()) | {_one}
_TEMPORAL = frozenset(
    ("before after until since still already yet anymore becoming become became used ago now later again first last ").split()
)
_ASKING = frozenset(("who whom whose what when where why which how ").split())
_STOP = frozenset(
    (
        "a an the is are was were be been being am do does did can could will would shall should may might must have has had i "
        "you we they it my your our their its me us them this that these those of to in on at by for with from about as into "
        "and or so if then than there please tell explain give want need like know just really very also any some get got way "
        "ways best good what how "
    ).split()
)
_ORDERED = frozenset(("from to by than over between versus vs into against ").split())
_CONTENT_DIFFERENCE_MAX = 2


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer may be shared, and if not why, in a word or two."""

    same: bool
    reason: str


def normalised(text: str) -> str:
    """A text without what never matters: case, runs of white space, and punctuation at its end."""
    return _SPACE.sub(" ", text).strip().rstrip(".?! ").lower()


def verify(question: str, other: str) -> Verdict:
    """Whether two questions may share an answer, as far as words can tell."""
    if normalised(question) == normalised(other):
        return Verdict(True, "the same words")
    one, two = _WORD.findall(question.lower()), _WORD.findall(other.lower())
    for reason, check in _CHECKS:
        if not check(one, two):
            return Verdict(False, reason)
    if not _same_names(question, other):
        return Verdict(False, "names differ")
    return Verdict(True, "similar")


def _same_numbers(one: list[str], two: list[str]) -> bool:
    return sorted(_numbers(one)) == sorted(_numbers(two))


def _numbers(words: list[str]) -> list[str]:
    spelled = {
        "one": "1",
        "two": "2",
        "three": "3",
        "four": "4",
        "five": "5",
        "six": "6",
        "seven": "7",
        "eight": "8",
        "nine": "9",
        "ten": "10",
    }
    return [
        spelled.get(word, word.replace(",", ""))
        for word in words
        if word[0].isdigit() or word in spelled or word in "$€£%°+*/=<>^"
    ]


def _same_polarity(one: list[str], two: list[str]) -> bool:
    return sum(word in _NEGATIONS for word in one) % 2 == sum(word in _NEGATIONS for word in two) % 2


def _no_opposites(one: list[str], two: list[str]) -> bool:
    only_one, only_two = set(one) - set(two), set(two) - set(one)
    return not any(_OPPOSITES.get(word, frozenset()) & only_two for word in only_one)


def _same_times(one: list[str], two: list[str]) -> bool:
    return _TEMPORAL.intersection(one) == _TEMPORAL.intersection(two)


def _same_question_word(one: list[str], two: list[str]) -> bool:
    first, second = _ASKING.intersection(one[:4]), _ASKING.intersection(two[:4])
    return not first or not second or bool(first & second)


def _same_order(one: list[str], two: list[str]) -> bool:
    """Content words that both have stand in the same order where a word between them gives them roles (from … to, than, by)."""
    if not _ORDERED.intersection(one) and not _ORDERED.intersection(two):
        return True
    first = [word for word in one if word not in _STOP and word in two]
    second = [word for word in two if word not in _STOP and word in one]
    return first == second


def _few_strangers(one: list[str], two: list[str]) -> bool:
    """Hardly any content word stands on one side only: an added qualifier asks something else."""
    first, second = {_stem(word) for word in one if word not in _STOP}, {_stem(word) for word in two if word not in _STOP}
    strangers = max(len(first - second), len(second - first))
    return strangers <= min(_CONTENT_DIFFERENCE_MAX, max(1, len(first | second) // 3))


def _stem(word: str) -> str:
    for ending in ("ing", "ies", "es", "ed", "ly", "s"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            return word[: -len(ending)]
    return word


def _same_names(question: str, other: str) -> bool:
    """Capitalised words inside a sentence are names, and names must be the same. A text all in lower case has none to compare."""
    first, second = _names(question), _names(other)
    lower_one, lower_two = question.lower(), other.lower()
    return all(name in lower_two for name in first) and all(name in lower_one for name in second)


def _names(text: str) -> set[str]:
    words = re.findall(r"[^\W\d_][\w'-]*", text)
    return {
        word.lower() for word in words[1:] if (word[0].isupper() and not word.isupper()) or (word.isupper() and len(word) > 1)
    }


_CHECKS = (
    ("numbers differ", _same_numbers),
    ("one is negated", _same_polarity),
    ("opposites", _no_opposites),
    ("times differ", _same_times),
    ("another kind of question", _same_question_word),
    ("roles differ", _same_order),
    ("too many other words", _few_strangers),
)
