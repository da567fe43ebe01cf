"""Amounts in a text: figures and spelled numbers with their units, dates, times of day, versions."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
        "nineteen".split()
    )
}
_TENS = {word: 10 * (at + 2) for at, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
_ORDINALS = {
    word: at + 1
    for at, word in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split())
}
_SCALES = {
    "hundred": 100.0,
    "thousand": 1e3,
    "k": 1e3,
    "lakh": 1e5,
    "lakhs": 1e5,
    "million": 1e6,
    "millions": 1e6,
    "crore": 1e7,
    "crores": 1e7,
    "billion": 1e9,
    "bn": 1e9,
    "trillion": 1e12,
}
_OTHERS = {"dozen": 12.0, "half": 0.5, "quarter": 0.25, "twice": 2.0, "double": 2.0, "thrice": 3.0, "triple": 3.0}
_ROMAN = {"ii": 2, "iii": 3, "vi": 6, "vii": 7, "viii": 8, "ix": 9, "xi": 11, "xii": 12, "xiii": 13, "xiv": 14, "xvi": 16}
# A unit's other names, and what one of it is of the unit that stands for its dimension.
_UNITS = """
mg milligram milligrams milligramme=0.001 gram; mcg ug microgram micrograms=0.000001 gram; g gram grams gramme grammes gm=1 gram;
kg kilo kilos kilogram kilograms kgs=1000 gram; lb lbs pound pounds=453.59237 gram; oz ounce ounces=28.349523125 gram;
ton tons=907184.74 gram; tonne tonnes=1000000 gram; stone stones=6350.29318 gram;
mm millimeter millimeters millimetre millimetres=0.001 metre; cm centimeter centimeters centimetre centimetres=0.01 metre;
meter meters metre metres=1 metre; km kms kilometer kilometers kilometre kilometres=1000 metre; mile miles mi=1609.344 metre;
foot feet ft=0.3048 metre; inch inches=0.0254 metre; yard yards yd=0.9144 metre;
ml milliliter milliliters millilitre millilitres=0.001 litre; l liter liters litre litres=1 litre; gallon gallons=3.785411784 litre;
cup cups=0.2365882365 litre; pint pints=0.473176473 litre; tbsp tablespoon tablespoons=0.01478676478125 litre;
tsp teaspoon teaspoons=0.00492892159375 litre;
ms millisecond milliseconds=0.001 second; sec secs second seconds=1 second; min mins minute minutes=60 second;
hr hrs hour hours=3600 second; day days=86400 second; week weeks=604800 second; month months=1 month; year years yr yrs=12 month;
decade decades=120 month; century centuries=1200 month;
kb kilobyte kilobytes=1000 byte; mb megabyte megabytes=1000000 byte; gb gigabyte gigabytes=1000000000 byte;
tb terabyte terabytes=1000000000000 byte; byte bytes=1 byte; bit bits=1 bit;
% percent pct=1 percent; $ usd dollar dollars=1 usd; € eur euro euros=1 eur; £ gbp quid=1 gbp; ¥ jpy yen=1 jpy;
₹ inr rupee rupees rs=1 inr; cent cents=1 cent; c celsius centigrade=1 celsius; f fahrenheit=1 fahrenheit; ° degree degrees=1 degree;
v volt volts=1 volt; w watt watts=1 watt; kw kilowatt kilowatts=1000 watt; mbps=1 mbps; gbps=1000 mbps; hz hertz=1 hertz;
mhz=1000000 hertz; ghz=1000000000 hertz; mph=1 mph; kmh kph=1 kmh; calorie calories cal kcal=1 calorie;
am=1 am; pm=1 pm; m=1 m; st nd rd th=1 ordinal
"""
_MONTHS = {
    name: at + 1
    for at, names in enumerate(
        "january/jan february/feb march/mar april/apr may june/jun july/jul august/aug september/sep/sept october/oct "
        "november/nov december/dec".split()
    )
    for name in names.split("/")
}
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_PLAIN = re.compile(r"\d{1,18}(?:\.\d{1,9})?")
_CURRENCIES = frozenset("$€£¥₹")

Amount = tuple[str, str]


def _table() -> dict[str, tuple[float, str]]:
    found: dict[str, tuple[float, str]] = {}
    for entry in _UNITS.replace("\n", " ").split(";"):
        names, _, meaning = entry.partition("=")
        factor, unit = meaning.split()
        for name in names.split():
            found[name] = (float(factor), unit)
    return found


_UNIT_OF = _table()
UNITS = frozenset(_UNIT_OF)
SPELLED = frozenset((*_SMALL, *_TENS, *_SCALES, *_OTHERS, *_ROMAN)) - {"quarter", "double", "k"}


def amounts(words: Sequence[str]) -> list[Amount]:
    """The amounts of a text as (value, unit), sorted; units of a dimension are converted, so that 1 km is 1,000 m."""
    found: list[Amount] = []
    months: set[int] = set()
    at = 0
    while at < len(words):
        value, after = _number(words, at)
        if value is None:
            at += 1
            continue
        unit, end = _unit(words, at, after)
        months.update(_MONTHS[word] for word in (*words[max(0, at - 1) : at], *words[after : after + 1]) if word in _MONTHS)
        spelled_one = words[at] == "one" and after == at + 1
        if unit or not spelled_one:
            found.append(_amount(value, unit))
        at = max(end, at + 1)
    return sorted([*found, *((str(month), "month of the year") for month in months)])


def _amount(value: float | str, unit: str) -> Amount:
    if isinstance(value, str):
        return value, unit
    factor, name = _UNIT_OF.get(unit, (1.0, unit))
    if name == "pm" and value < 12:
        return f"{value + 12:.9g}", "of the clock"
    if name in ("am", "pm"):
        return f"{value % 12 if name == 'am' else value:.9g}", "of the clock"
    return f"{value * factor:.9g}", name


def _number(words: Sequence[str], at: int) -> tuple[float | str | None, int]:
    """The number that begins at a word, and where what follows it begins."""
    word = words[at]
    if word[0].isdigit():
        if _PLAIN.fullmatch(word):
            value = float(word)
        elif _GROUPED.fullmatch(word):
            value = float(word.replace(",", ""))
        else:
            return _clock(word), at + 1
        return _scaled(value, words, at + 1)
    if word in _SMALL or word in _TENS:
        return _spelled(words, at)
    if word in _OTHERS:
        return _OTHERS[word], at + 1
    if word in _ROMAN and at:
        return float(_ROMAN[word]), at + 1
    if word in _ORDINALS and word not in ("first", "second"):
        return float(_ORDINALS[word]), at + 1
    if word in ("hundred", "thousand", "million", "billion") and at and words[at - 1] == "a":
        return _scaled(_SCALES[word], words, at + 1)
    return None, at


def _clock(word: str) -> str | float:
    hours, colon, minutes = word.partition(":")
    if colon and hours.isdigit() and minutes.isdigit() and len(hours) <= 2 and len(minutes) == 2:
        return int(hours) + int(minutes) / 60
    return word


def _spelled(words: Sequence[str], at: int) -> tuple[float, int]:
    value = float(_TENS.get(words[at], 0) or _SMALL.get(words[at], 0))
    if words[at] in _TENS and at + 1 < len(words) and 0 < _SMALL.get(words[at + 1], 0) < 10:
        return _scaled(value + _SMALL[words[at + 1]], words, at + 2)
    return _scaled(value, words, at + 1)


def _scaled(value: float, words: Sequence[str], at: int) -> tuple[float, int]:
    while at < len(words) and words[at] in _SCALES and value < 1e15:
        value *= _SCALES[words[at]]
        at += 1
    return value, at


def _unit(words: Sequence[str], at: int, after: int) -> tuple[str, int]:
    """The unit of a number that takes the words from `at` to `after`: a currency before it, a unit or a month beside it."""
    if at and words[at - 1] in _CURRENCIES:
        return words[at - 1], after
    if after < len(words):
        following = words[after]
        if following == "per" and after + 1 < len(words) and words[after + 1] == "cent":
            return "%", after + 2
        if following in ("st", "nd", "rd", "th"):
            return "", after + 1
        if following in _UNIT_OF and (
            following not in ("c", "f", "v", "w", "m", "l", "g", "am", "st") or words[at][0].isdigit()
        ):
            return following, after + 1
    return ("of the clock" if ":" in words[at] else ""), after
