"""Families of pairs that differ in a sign that is easily overlooked: a number, a negation, an opposite, a name, a role, a time, a pronoun."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from farthing_cache.verifying import frames

_SPELLED = {2: "two", 3: "three", 5: "five", 7: "seven", 10: "ten", 12: "twelve", 15: "fifteen", 20: "twenty", 40: "forty", 90: "ninety"}
_HOW = "How do I {}?|How can I {}?|How to {}?|What is the best way to {}?|Could you tell me how to {}?|how do i {}".split("|")
_AMOUNT = "Can I safely {v} {n} {u} {w}?|Is it safe to {v} {n} {u} {w}?|May I {v} {n} {u} {w}?".split("|")

Made = tuple[str, str, bool]


def sign_families() -> dict[str, Callable[[Random], Made]]:
    """The families by name; each makes a pair, and says whether one answer serves both."""
    return {
        "numbers": _numbers,
        "units": _units,
        "dates": _dates,
        "opposites": _opposites,
        "negation": _negation,
        "judgements": _judgements,
        "names": _names,
        "places": _places,
        "directions": _directions,
        "roles": _roles,
        "comparisons": _comparisons,
        "relations": _relations,
        "times": _times,
        "pronouns": _pronouns,
        "quantifiers": _quantifiers,
        "lists": _lists,
    }


def _pick(chance: Random, listed: list[str]) -> tuple[str, str]:
    one, other = chance.sample(listed, 2)
    return one, other


def _same(chance: Random) -> bool:
    return chance.random() < 0.5


def _measure(chance: Random) -> tuple[str, str, str, str]:
    parts = chance.choice(frames.MEASURES).split(":")
    unit, _, thing = parts[0].partition(" ")
    return unit, thing, parts[1], parts[2]


def _amount(chance: Random, number: int | str, unit: str, made: tuple[str, str, str]) -> str:
    thing, verb, where = made
    return chance.choice(_AMOUNT).format(v=verb, n=number, u=f"{unit} {thing}".strip(), w=where).replace("  ", " ")


def _numbers(chance: Random) -> Made:
    unit, *made = _measure(chance)
    number, other = chance.sample(sorted(_SPELLED), 2)
    parts = (made[0], made[1], made[2])
    if _same(chance):
        return _amount(chance, number, unit, parts), _amount(chance, chance.choice((number, _SPELLED[number])), unit, parts), True
    return _amount(chance, number, unit, parts), _amount(chance, chance.choice((other, number * 10)), unit, parts), False


def _units(chance: Random) -> Made:
    unit, *made = _measure(chance)
    number, parts = chance.choice(sorted(_SPELLED)), (made[0], made[1], made[2])
    long = {"mg": "milligrams", "km": "kilometres", "kg": "kilograms", "gb": "gigabytes"}.get(unit, unit)
    same = _same(chance)
    return _amount(chance, number, unit, parts), _amount(chance, number, long if same else frames.OTHER_UNITS[unit], parts), same


def _dates(chance: Random) -> Made:
    months = "January February April June July August October December".split()
    month, other = _pick(chance, months)
    day, year = chance.randint(1, 28), chance.choice((1848, 1914, 1969, 1989, 2001, 2019))
    event = chance.choice(("What happened on {}?", "Which treaty was signed on {}?", "What was the weather like on {}?"))
    shown, turned = f"{day} {month} {year}", f"{month} {day}, {year}"
    if _same(chance):
        return event.format(shown), event.format(turned), True
    return event.format(shown), event.format(chance.choice((f"{day} {other} {year}", f"{day % 28 + 1} {month} {year}", f"{turned}1"))), False


def _opposites(chance: Random) -> Made:
    verbs, _, rest = chance.choice(frames.TURNED).partition(" ")
    whole = f"{verbs} {rest}"
    one, two = whole.split("/")
    thing = two.split()[-2:] if len(two.split()) > 2 else two.split()[-1:]
    first, second = f"{one} {' '.join(thing)}", two
    shell, other = chance.choice(_HOW), chance.choice(_HOW)
    if _same(chance):
        chosen = chance.choice((first, second))
        return shell.format(chosen), other.format(chosen), True
    return shell.format(first), chance.choice((shell, other)).format(second), False


def _negation(chance: Random) -> Made:
    doing, good = chance.choice(frames.DOINGS), chance.choice(frames.JUDGED).split("/")[0]
    subject = chance.choice(("people", "farmers", "nurses", "teenagers", "pilots"))
    affirmed, denied = chance.choice(
        (
            (f"Is it {good} to {doing}?", f"Is it {good} not to {doing}?"),
            (f"Why do {subject} {doing}?", f"Why don't {subject} {doing}?"),
            (f"What happens if I {doing}?", f"What happens if I never {doing}?"),
            (f"Which {subject} {doing}?", f"Which {subject} do not {doing}?"),
        )
    )
    if not _same(chance):
        return affirmed, denied, False
    chosen = chance.choice((affirmed, denied))
    return chosen, chosen.replace("don't", "do not").replace("Is it", "Is it really").replace("What happens", "What will happen"), True


def _judgements(chance: Random) -> Made:
    """Not safe is dangerous: a denial and an opposite together say the same."""
    good, bad = chance.choice(frames.JUDGED).split("/")
    doing = chance.choice(frames.DOINGS)
    if _same(chance):
        return f"Is it {good} to {doing}?", f"Is it not {bad} to {doing}?", True
    return f"Is it {good} to {doing}?", chance.choice((f"Is it {bad} to {doing}?", f"Is it not {good} to {doing}?")), False


def _names(chance: Random) -> Made:
    name, other = _pick(chance, frames.PEOPLE)
    shells = chance.choice(
        (
            ("When was {} born?", "What is the date of birth of {}?"),
            ("Who is {}?", "Please tell me who {} is."),
            ("Where did {} grow up?", "In which place did {} grow up?"),
            ("What is {} known for?", "What's {} known for?"),
        )
    )
    if _same(chance):
        return shells[0].format(name), shells[1].format(name), True
    first, last = name.split()
    changed = chance.choice((other, f"{first} {other.split()[1]}", f"{other.split()[0]} {last}"))
    lower = chance.random() < 0.3
    one, two = shells[0].format(name), shells[chance.randint(0, 1)].format(changed)
    return (one.lower(), two.lower(), False) if lower else (one, two, False)


def _places(chance: Random) -> Made:
    town, other = _pick(chance, frames.TOWNS)
    shells = chance.choice(
        (
            ("What is the weather like in {}?", "How is the weather in {}?"),
            ("What are the best museums in {}?", "Which museums in {} are best?"),
            ("How do I find a dentist in {}?", "What is the best way to find a dentist in {}?"),
            ("How expensive is rent in {}?", "What does rent cost in {}?"),
        )
    )
    if _same(chance):
        return shells[0].format(town), shells[1].format(town), True
    one, two = shells[0].format(town), shells[chance.randint(0, 1)].format(other)
    return (one.lower(), two.lower(), False) if chance.random() < 0.5 else (one, two, False)


def _directions(chance: Random) -> Made:
    town, other = _pick(chance, frames.TOWNS)
    shell = chance.choice(("Trains from {} to {}", "How long is the flight from {} to {}?", "When does the bus from {} to {} leave?"))
    if _same(chance):
        polite = shell[0].lower() + shell[1:]
        return shell.format(town, other), f"Please tell me: {polite}".format(town, other), True
    return shell.format(town, other), shell.format(other, town), False


def _roles(chance: Random) -> Made:
    (one, two), (plain, done) = _pick(chance, [name.split()[0] for name in frames.PEOPLE]), chance.choice(frames.DEEDS).split("/")
    active = f"Did {one} {plain} {two}?"
    if _same(chance):
        return active, f"Was {two} {done} by {one}?", True
    return active, chance.choice((f"Did {two} {plain} {one}?", f"Was {one} {done} by {two}?")), False


def _comparisons(chance: Random) -> Made:
    one, two = _pick(chance, [name.split()[0] for name in frames.PEOPLE])
    more = chance.choice(frames.TRAITS).split("/")[1]
    if _same(chance):
        return f"Is {one} {more} than {two}?", f"Is {one} actually {more} than {two}?", True
    return f"Is {one} {more} than {two}?", f"Is {two} {more} than {one}?", False


def _relations(chance: Random) -> Made:
    one, two, three = chance.sample([name.split()[0] for name in frames.PEOPLE], 3)
    relation = chance.choice(("married to", "related to", "friends with", "in contact with", "a cousin of", "engaged to"))
    same = _same(chance)
    return f"Is {one} {relation} {two}?", f"Is {two} {relation} {one if same else three}?", same


def _times(chance: Random) -> Made:
    event, doing = chance.choice(frames.EVENTS), chance.choice(frames.THINGS_TO_DO)
    first, second = _pick(chance, ["before", "after", "until", "during"])
    shells = ("Should I {} {} {}?", "Is it wise to {} {} {}?")
    same = _same(chance)
    return chance.choice(shells).format(doing, first, event), chance.choice(shells).format(doing, first if same else second, event), same


def _pronouns(chance: Random) -> Made:
    doing = chance.choice(frames.THINGS_TO_DO)
    one, two = chance.sample((("he", "his"), ("she", "her"), ("they", "their")), 2)
    shells = ("Does {} have to {} in {} new job?", "Must {} {} in {} new job?")
    same = _same(chance)
    return shells[0].format(one[0], doing, one[1]), (shells[1] if same else shells[0]).format(*_woven(one if same else two, doing)), same


def _woven(pronoun: tuple[str, str], doing: str) -> tuple[str, str, str]:
    return pronoun[0], doing, pronoun[1]


def _quantifiers(chance: Random) -> Made:
    trade = chance.choice(frames.TRADES)
    doing = chance.choice(frames.THINGS_TO_DO)
    if _same(chance):
        return f"Do all {trade}s {doing}?", f"Does every {trade} {doing}?", True
    return f"Which {trade}s {doing}?", chance.choice((f"Do only {trade}s {doing}?", f"Which {trade}s never {doing}?", f"Which {trade} was the first to {doing}?")), False


def _lists(chance: Random) -> Made:
    name = chance.choice(frames.PEOPLE)
    one, two, three = chance.sample(frames.TRADES, 3)
    if _same(chance):
        return f"Is {name} a {one} and a {two}?", f"Is {name} a {two} and a {one}?", True
    return f"Is {name} a {one} and a {two}?", chance.choice((f"Is {name} a {one} or a {two}?", f"Is {name} a {one} and a {three}?")), False
