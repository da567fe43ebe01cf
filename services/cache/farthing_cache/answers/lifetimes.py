"""How long an answer stays true: what a question asks for says it first, what fresh answers turned out to be corrects it.

Sources: the exponential model of change and its estimate from irregular visits are from J. Cho and H. Garcia-Molina, "Estimating Frequency
of Change", ACM Transactions on Internet Technology 3(3), 2003.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

_HEAD, _TAIL = 600, 300
_TURNS = 3
_NEAR_DAYS = 14
_CHANGED_SHARE_MAX = 0.1
_FACTOR_MAX = 8
_MEMORY = 64


@dataclass(frozen=True, slots=True)
class Kind:
    """What a question asks for, as far as time matters: how long its answer is believed before anything is learned, and in words why."""

    name: str
    ttl_s: int
    reason: str


MOMENTARY = Kind("momentary", 300, "time-sensitive: changes by the minute")
DAILY = Kind("daily", 3_600, "time-sensitive: changes within the day")
WEEKLY = Kind("weekly", 21_600, "time-sensitive: changes within the week")
SLOW = Kind("slow", 86_400, "changes now and then")
ORDINARY = Kind("ordinary", 86_400, "as long as most answers")
STABLE = Kind("stable", 604_800, "a stable fact")
KINDS = {kind.name: kind for kind in (MOMENTARY, DAILY, WEEKLY, SLOW, ORDINARY, STABLE)}
_CHANGING = (MOMENTARY, DAILY, WEEKLY, SLOW)

_GIVEN_TEXT = re.compile(
    r"\s*(?:please\s+|can you\s+|could you\s+)?(?:translate|rewrite|rephrase|paraphrase|proofread|reformat|transliterate|spell-?check"
    r"|correct (?:the|this|my)\b|fix the (?:grammar|spelling|typos)|übersetze|traduis|traduce)\b",
    re.IGNORECASE,
)
_NOT_TIME = re.compile(
    r"\bcurrent (?:directory|folder|user|thread|process|branch|line|row|page|element|node|index|frame|object|working|url"
    r"|cell|item|token)\b"
    r"|\b(?:credit|f1|test|exam|z|t|apgar|bleu|rouge) scores?\b|\bscor(?:ing|e) (?:function|matrix|of a model)\b"
    r"|\b(?:datetime|date|time|timezone|calendar|localdate)\.(?:now|today)\b|\bright now\(\)|\bnow\(\)|\btoday\(\)"
    r"|\bweather(?:ing|ed|proof\w*)\b|\bnow (?:write|make|add|do|give|explain|rewrite|translate|change|remove|use|put)\b",
    re.IGNORECASE,
)
_MOMENTARY = re.compile(
    r"\b(?:right now|as of now|now|at (?:the|this) moment|currently (?:open|playing|trading|online)|what time is it|weather|forecast"
    r"|(?:stock|share|gas|oil|gold|ticket|crypto|bitcoin|ether|current|spot) prices?|price of|exchange rate"
    r"|how much is (?:a |one )?(?:bitcoin|euro|dollar)"
    r"|(?:live|final|current|game|match) scores?|(?:the )?score (?:of|in|for|between)|who(?:'s| is) winning|traffic (?:on"
    r"|in|to)|wait(?:ing)? time"
    r"|in stock|still available|wetter|jetzt|météo|maintenant|clima de hoy|ahora)\b",
    re.IGNORECASE,
)
_DAILY = re.compile(
    r"\b(?:today(?:'s)?|tonight|tomorrow|yesterday|this (?:morning|afternoon|evening|minute|hour)|latest|news|headlines"
    r"|breaking|trending|recent(?:ly)?"
    r"|most recent|up[- ]to[- ]date|so far|heute|morgen früh|gestern|aktuell\w*|aujourd'hui|demain|hoy|mañana)\b",
    re.IGNORECASE,
)
_WEEKLY = re.compile(
    r"\b(?:(?:this|next|last|coming|past) (?:week|weekend|month|quarter|season|year|monday|tuesday|wednesday|thursday"
    r"|friday|saturday|sunday)"
    r"|upcoming|these days|until now|as of|diese woche|cette semaine|esta semana)\b",
    re.IGNORECASE,
)
_SLOW = re.compile(
    r"\bwho(?:'s| is| are)\s+(?:the\s+)?(?:\w+\s+){0,3}?(?:president|prime minister|chancellor|king|queen|pope|mayor"
    r"|governor|minister|ceo|cto|cfo|chair\w*|director"
    r"|head|owner|coach|captain|champion|record holder|richest|tallest|oldest|fastest|leader|secretary)\b"
    r"|\bhow old (?:is|are)\b|\bpopulation\b|\b(?:newest|stable|lts) (?:version|release)\b|\bversion of\b"
    r"|\bbest (?:\w+ ){0,2}(?:in|of|for)\b|\brecord for\b"
    r"|\bhow (?:much|many) (?:does|do|is|are)\b.*\b(?:cost|earn|make|charge|subscribers|followers|employees|members)\b"
    r"|\bnet worth\b|\bminimum wage\b|\b(?:tax|interest|inflation|unemployment) rates?\b|\bopening hours\b|\bis .{1,40} still\b",
    re.IGNORECASE,
)
_CURRENT = re.compile(r"\b(?:current(?:ly)?|nowadays)\b", re.IGNORECASE)
_STABLE = re.compile(
    r"\s*(?:(?:please|hi|hello)[, ]+)?(?:what(?:'s| is| are| was)? (?:an? |the (?:meaning|definition|difference|formula"
    r"|syntax|square root|derivative|capital|plural|past tense|opposite|chemical)\b)"
    r"|what does .{1,60} (?:mean|stand for)\b|define\b|definition of|how (?:do|can) (?:i|you|we) (?:spell|pronounce|say"
    r"|convert|calculate|compute|reverse|sort|iterate|declare|split|join|parse|concatenate|loop)\b"
    r"|(?:what(?:'s| is) |calculate |compute |solve |how much is )?[-(\d][\d\s.,+*/^()x×÷=%-]*\d\)?\s*[=?]?\s*$"
    r"|convert \d|prove (?:that|the)|explain (?:the (?:difference|concept|theorem|term)|how to|what an? ))",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"```|\b(?:def|class|import|function|SELECT|const|void|regex|regular expression)\b.{0,200}[(){}=;:]", re.DOTALL
)
_WORD = re.compile(r"[^\W\d_]+|20\d\d")
_TELLING = frozenset(
    (
        "now moment currently time weather forecast price prices rate rates bitcoin euro dollar score scores winning traffic"
        " waiting wait "
        "stock available wetter jetzt météo maintenant clima ahora today tonight tomorrow yesterday morning afternoon evening"
        " minute hour latest "
        "news headlines breaking trending recent recently date far heute morgen gestern aktuell aktuelle aktuellen aujourd"
        " demain hoy mañana week weekend month "
        "quarter season year monday tuesday wednesday thursday friday saturday sunday upcoming days until as woche semaine"
        " semana who old population "
        "version release newest best record much many net minimum opening still current nowadays "
        "jan feb mar apr may jun jul aug sep oct nov dec january february march april june july august september october"
        " november december sept"
    ).split()
)
"""Without one of these, or a year, nothing in a text tells of time: most texts need no closer look."""
_ISO_DATE = re.compile(r"\b(20\d\d)-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])\b")
_MONTHS = {name: number + 1 for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split())}
_WRITTEN_DATE = re.compile(
    r"\b(?:(\d{1,2})(?:st|nd|rd|th)?\.?\s+(?:of\s+)?)?(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
    r"(?:\s+(\d{1,2})(?:st|nd|rd|th)?\b)?(?:,?\s+(20\d\d))?",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(20\d\d)\b")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long an answer is kept, in seconds, what kind of question decided it, and why in words."""

    ttl_s: int
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Stability:
    """What fresh answers said of old ones of a kind: seconds over which answers were watched, and how many had changed."""

    watched_s: float = 0.0
    changes: float = 0.0

    def plus(self, *, age_s: float, changed: bool) -> Stability:
        """With one more comparison of an answer of that age. One that changed did so half-way, for all that is known."""
        return Stability(self.watched_s + max(0.0, age_s) / (2 if changed else 1), self.changes + changed).bounded()

    def bounded(self) -> Stability:
        """What was seen long ago counts half once there is much of it."""
        return Stability(self.watched_s / 2, self.changes / 2) if self.changes >= _MEMORY else self

    def ttl_s(self, kind: Kind) -> int:
        """The age by which a tenth of the answers of a kind have changed, as far as is known; at most eight times more or less than was
        believed before anything was known, which counts as one change.
        """
        learned = (kind.ttl_s + _CHANGED_SHARE_MAX * self.watched_s) / (1 + self.changes)
        return int(min(max(learned, kind.ttl_s / _FACTOR_MAX), kind.ttl_s * _FACTOR_MAX))


NOTHING_LEARNED = Stability()


def lifetime(turns: Sequence[str], *, now: datetime, limit_s: int, learned: dict[str, Stability] | None = None) -> Lifetime:
    """How long the answer to a conversation may be kept, at most `limit_s`. `turns` are the user's, the last one last.

    What is asked earlier counts, too: "and in Paris?" after a question for the weather asks for the weather.
    """
    kinds = [kind_of(turn, today=now.date()) for turn in turns[-_TURNS:]] or [ORDINARY]
    changing = [kind for kind in kinds if kind in _CHANGING]
    kind = min(changing, key=lambda each: each.ttl_s) if changing else kinds[-1]
    seconds = (learned or {}).get(kind.name, NOTHING_LEARNED).ttl_s(kind)
    return Lifetime(max(1, min(seconds, limit_s)), kind, kind.reason)


def kind_of(text: str, *, today: date) -> Kind:
    """What kind of question a text is. A text that is only worked on (translated, rewritten) says nothing of when it is asked."""
    text = text if len(text) <= _HEAD + _TAIL else text[:_HEAD] + " … " + text[-_TAIL:]
    if _GIVEN_TEXT.match(text):
        return STABLE
    words = _WORD.findall(text.lower())
    if not _TELLING.isdisjoint(words) or any(word.isdigit() for word in words):
        plain = _NOT_TIME.sub(" ", text)
        if (changing := _changing(plain, today)) is not None:
            return changing
    return STABLE if _STABLE.match(text) or _CODE.search(text) else ORDINARY


def _changing(plain: str, today: date) -> Kind | None:
    """The kind of a question whose answer changes with time."""
    for pattern, kind in ((_MOMENTARY, MOMENTARY), (_DAILY, DAILY), (_WEEKLY, WEEKLY)):
        if pattern.search(plain):
            return kind
    if _near_date(plain, today):
        return WEEKLY
    if _SLOW.search(plain) or str(today.year) in _YEAR.findall(plain):
        return SLOW
    if _CURRENT.search(plain):
        return WEEKLY
    return None


def _near_date(text: str, today: date) -> bool:
    """Whether it names a day that is only just past, or about to come."""
    days = [(int(year), int(month), int(day)) for year, month, day in _ISO_DATE.findall(text)]
    for before, month, after, year in _WRITTEN_DATE.findall(text):
        if before or after:
            days += [(int(year or each), _MONTHS[month[:3].lower()], int(before or after)) for each in _years(today)]
    return any(_is_near(year, month, day, today) for year, month, day in days)


def _years(today: date) -> tuple[int, ...]:
    return today.year - 1, today.year, today.year + 1


def _is_near(year: int, month: int, day: int, today: date) -> bool:
    try:
        return abs(date(year, month, day) - today) <= timedelta(days=_NEAR_DAYS)
    except ValueError:
        return False
