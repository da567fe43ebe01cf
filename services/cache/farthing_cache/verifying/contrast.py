"""Pairs of questions made for training: for every way in which one question differs from another a family of pairs that must not share an
answer, and beside it pairs that may, which show the same words, numbers, names and turns of phrase. Without the second a head would learn
the template and not the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from farthing_cache.verifying import frames
from farthing_cache.verifying.contrast_signs import sign_families

_HOW = (
    "How do I {}?|How can I {}?|How do you {}?|How to {}?|What is the best way to {}?|What's the best way to {}?|How should I {}?|"
    "What is a good way to {}?|Please explain how to {}.|Could you tell me how to {}?|I want to know how to {}.|What are the steps to {}?|"
    "Is there a way to {}?|I need help to {}. How does one do it?|What do I need to do to {}?|how do i {}|how can one {}|best way to {}"
).split("|")
_WHY = "Why does {np} {v}?|What is the reason why {np} {vs}?|How come {np} {vs}?|What makes {np} {v}?|Do you know why {np} {vs}?".split("|")
_WHEN = "When does {np} {v}?|At what time does {np} {v}?|What time is it when {np} {vs}?|Do you know when {np} {vs}?".split("|")
_WHERE = "Where can I see {np}?|In which place can I see {np}?|Where do I get to see {np}?".split("|")
_COST = "How much does {np} cost?|What is the price of {np}?|What does {np} cost?|How expensive is {np}?".split("|")
_WHETHER = "Is {np} {adj}?|Is {np} really {adj}?|Would you say that {np} is {adj}?|Can you tell me if {np} is {adj}?".split("|")
_WHAT = "What is {}?|What's {}?|Define {}.|What does {} mean?|What is meant by {}?|Please explain what {} is.|Can you explain {}?".split("|")
_DIFFERENCE = (
    "What is the difference between {a} and {b}?|How does {a} differ from {b}?|What's the difference between {a} and {b}?|"
    "How are {a} and {b} different?|What distinguishes {a} from {b}?"
).split("|")
_MODALS = {
    "can": "Can I {}?|Is it possible to {}?|Could I {}?",
    "should": "Should I {}?|Is it a good idea to {}?|Ought I to {}?",
    "must": "Must I {}?|Do I have to {}?|Is it mandatory to {}?|Am I required to {}?",
    "how": "How do I {}?|How can I {}?|How to {}?",
    "when": "When should I {}?|At what time should I {}?|What is the right time to {}?",
    "why": "Why should I {}?|What is the reason to {}?|For what reason would I {}?",
    "where": "Where can I {}?|In which place can I {}?",
    "who": "Who can help me {}?|Which person can help me {}?",
    "how long": "How long does it take to {}?|How much time does it take to {}?",
    "how much": "How much does it cost to {}?|What does it cost to {}?|What is the cost to {}?",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, whether one answer serves both, and the family that they were made by."""

    one: str
    other: str
    same: bool
    family: str


@dataclass(frozen=True, slots=True)
class _Action:
    field: str
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    additions: tuple[str, ...]

    def said(self, chance: Random, addition: str = "") -> str:
        return " ".join(part for part in (chance.choice(self.verbs), chance.choice(self.objects), addition) if part)


Family = Callable[[Random], tuple[str, str, bool]]


def pairs(chance: Random, *, each: int) -> Iterator[Pair]:
    """`each` pairs of every family and kind, the same for the same chance. Families alternate between pairs that differ and that do not."""
    for name, family in {**_FAMILIES, **sign_families()}.items():
        wanted = {True: each, False: each}
        for _ in range(each * 40):
            one, other, same = family(chance)
            if wanted[same] and one.lower() != other.lower():
                wanted[same] -= 1
                yield Pair(*_order(chance, one, other), same, name)
            if not any(wanted.values()):
                break


def _order(chance: Random, one: str, other: str) -> tuple[str, str]:
    return (one, other) if chance.random() < 0.5 else (other, one)


def _actions() -> list[_Action]:
    found = []
    for line in frames.ACTIONS.strip().splitlines():
        field, verbs, objects, additions = (part.strip() for part in line.split("|"))
        found.append(_Action(field, tuple(verbs.split(", ")), tuple(objects.split(", ")), tuple(additions.split(", "))))
    return found


def _facts() -> list[tuple[str, list[str], list[str]]]:
    found = []
    for line in frames.FACTS.strip().splitlines():
        np, verbs, adjectives = (part.strip() for part in line.split("|"))
        found.append((np, verbs.split(", "), adjectives.split(", ")))
    return found


def _same(chance: Random) -> bool:
    return chance.random() < 0.5


def _shell(chance: Random, shells: list[str], what: str, **named: str) -> str:
    return chance.choice(shells).format(what, **named)


def _two(chance: Random, listed: list[str] | tuple[str, ...]) -> tuple[str, str]:
    one, other = chance.sample(list(listed), 2)
    return one, other


def _objects(chance: Random) -> tuple[str, str, bool]:
    """Another object of the same field, often under the same verb."""
    action, other = chance.sample(_actions(), 2)
    if _same(chance):
        return _shell(chance, _HOW, action.said(chance)), _shell(chance, _HOW, action.said(chance)), True
    shell, verb = chance.choice(_HOW), chance.choice(action.verbs)
    return shell.format(f"{verb} {action.objects[0]}"), shell.format(f"{verb} {chance.choice(other.objects)}"), False


def _verbs(chance: Random) -> tuple[str, str, bool]:
    """Another deed done to the same object."""
    action, other = chance.sample(_actions(), 2)
    if _same(chance):
        thing = chance.choice(action.objects)
        one, two = (_shell(chance, _HOW, f"{chance.choice(action.verbs)} {thing}") for _ in range(2))
        return one, two, True
    thing, shell = chance.choice(action.objects), chance.choice(_HOW)
    return shell.format(f"{action.verbs[0]} {thing}"), shell.format(f"{chance.choice(other.verbs)} {thing}"), False


def _additions(chance: Random) -> tuple[str, str, bool]:
    """With and without what narrows the question, or narrowed in two ways."""
    action = chance.choice(_actions())
    first, second = _two(chance, action.additions)
    shell = chance.choice(_HOW)
    if _same(chance):
        return shell.format(action.said(chance, first)), _shell(chance, _HOW, action.said(chance, first)), True
    other = chance.choice(("", second))
    return shell.format(action.said(chance, first)), chance.choice((shell, chance.choice(_HOW))).format(action.said(chance, other)), False


def _asking(chance: Random) -> tuple[str, str, bool]:
    """Another kind of question about the same deed."""
    action = chance.choice(_actions())
    kind, other = _two(chance, list(_MODALS))
    same = _same(chance)
    shells = [_MODALS[name].split("|") for name in (kind, kind if same else other)]
    what = action.said(chance)
    one, two = (_shell(chance, shell, what if not same else action.said(chance)) for shell in shells)
    return one, two, same


def _fact_kinds(chance: Random) -> tuple[str, str, bool]:
    """Why, when, where, how much and whether, of one thing."""
    np, verbs, adjectives = chance.choice(_facts())
    shells = [_WHY, _WHEN, _WHERE, _COST, _WHETHER]
    same = _same(chance)
    first = chance.choice(shells)
    second = first if same else chance.choice([each for each in shells if each is not first])
    adjective = chance.choice(adjectives)
    said = []
    for shell in (first, second):
        verb = chance.choice(verbs)
        said.append(chance.choice(shell).format(np=np, v=_bare(verb), vs=verb, adj=adjective))
    return said[0], said[1], same


def _bare(verb: str) -> str:
    head, _, rest = verb.partition(" ")
    plain = {"goes": "go", "ceases": "cease", "is": "be", "pays": "pay", "dries": "dry", "admits": "admit"}.get(head)
    if plain is None:
        plain = head[:-2] if head.endswith(("shes", "ches", "tches")) else head[:-1]
    return f"{plain} {rest}".strip()


def _properties(chance: Random) -> tuple[str, str, bool]:
    """Whether a thing is this or that, and of which thing."""
    (np, _, adjectives), (other_np, _, _) = chance.sample(_facts(), 2)
    adjective, other = _two(chance, adjectives)
    if _same(chance):
        one, two = (chance.choice(_WHETHER).format(np=np, adj=adjective) for _ in range(2))
        return one, two, True
    shell = chance.choice(_WHETHER)
    changed = (np, other) if chance.random() < 0.5 else (other_np, adjective)
    return shell.format(np=np, adj=adjective), shell.format(np=changed[0], adj=changed[1]), False


def _terms(chance: Random) -> tuple[str, str, bool]:
    """What a word means, or another word, or another thing about it."""
    term, other = _two(chance, frames.TERMS)
    shells = chance.sample(_WHAT, 2)
    if _same(chance):
        return shells[0].format(term), shells[1].format(term), True
    changed = chance.choice((f"What is {other}?", f"What is an example of {term}?", f"Who invented {term}?", f"What is the history of {term}?"))
    return shells[0].format(term), changed, False


def _differences(chance: Random) -> tuple[str, str, bool]:
    """A difference, in either order; or a likeness, or between other things."""
    chosen, another = _two(chance, frames.RELATED)
    (a, b), (_, d) = chosen.split(" and "), another.split(" and ")
    if _same(chance):
        first, second = chance.choice(((a, b), (b, a)))
        return _shell(chance, _DIFFERENCE, "", a=a, b=b), _shell(chance, _DIFFERENCE, "", a=first, b=second), True
    shell = chance.choice(_DIFFERENCE)
    changed = chance.choice((shell.format(a=a, b=d), f"What do {a} and {b} have in common?", f"Which is older, {a} or {b}?"))
    return shell.format(a=a, b=b), changed, False


_FAMILIES: dict[str, Family] = {
    "objects": _objects,
    "verbs": _verbs,
    "additions": _additions,
    "kinds of question": _asking,
    "facts": _fact_kinds,
    "properties": _properties,
    "terms": _terms,
    "differences": _differences,
}
