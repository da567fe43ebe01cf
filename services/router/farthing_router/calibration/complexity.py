"""How hard a prompt looks before anything is known of it: untrained rules over its words, for installations without data.

A short prompt is not an easy one: "Prove that √2 is irrational" has four words. So length counts for little, and what is asked for much.
Every request may be looked at, so words are looked up in sets; only what a set cannot say is a pattern, tried where its beginning is found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from farthing_router.calibration.answers import PROMPT_CHARACTERS_MAX, bounded


@dataclass(frozen=True, slots=True)
class Complexity:
    """How hard a prompt looks, 0 to 1, and why."""

    score: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cue:
    """What makes a prompt look hard: any of these words, of words that begin or end so, of phrases, or of signs."""

    reason: str
    weight: float
    words: frozenset[str]
    beginnings: tuple[str, ...] = ()
    endings: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    signs: frozenset[str] = frozenset()

    def found(self, text: str, words: set[str], in_a_row: str) -> bool:
        """Whether it is in a text (in small letters) with these words; they stand in a row, too, with a space before and after each."""
        if not self.words.isdisjoint(words) or any(phrase in text for phrase in self.phrases):
            return True
        if any(sign in text for sign in self.signs) or any(f" {each}" in in_a_row for each in self.beginnings):
            return True
        ends = any(f"{each} " in in_a_row for each in self.endings)
        return ends and any(word.endswith(self.endings) and word not in _NO_ILLNESS for word in words)


_NO_ILLNESS = frozenset({"academia", "bohemia", "empathy", "sympathy", "apathy", "antipathy", "telepathy"})
_CUES = (
    _Cue(
        "proof",
        0.62,
        frozenset(
            "prove proof disprove lemma theorem corollary conjecture derive irrational bijection induction undecidable converge converges "
            "continuous homomorphism integral".split()
        ),
        beginnings=("eigen",),
        phrases=("show that", "np-hard", "np-complete", "np complete", "differential equation"),
    ),
    _Cue(
        "clinical",
        0.6,
        frozenset(
            "differential patient patients symptom symptoms dosage dose mmhg ecg ekg mri biopsy renal hepatic sepsis".split()
        ),
        beginnings=("diagnos", "prognos", "contraindicat", "pathophysiolog", "anticoagul", "comorbid", "myocard", "pregnan"),
        endings=("itis", "emia", "pathy"),
        phrases=(
            "mg/kg",
            "year-old man",
            "year-old woman",
            "year-old male",
            "year-old female",
            "year-old boy",
            "year-old girl",
        ),
    ),
    _Cue(
        "legal",
        0.55,
        frozenset(
            "plaintiff defendant liable statute tort jurisdiction precedent gdpr hipaa negligence fiduciary injunction estoppel "
            "appellate".split()
        ),
        beginnings=("liabilit", "indemnif", "constitutional"),
        phrases=("breach of",),
    ),
    _Cue(
        "mathematics",
        0.5,
        frozenset("modulo polynomial equation equations matrix derivative prime primes logarithm".split()),
        beginnings=("combinatori",),
        phrases=(
            "probability that",
            "expected value",
            "how many ways",
            "how many integers",
            "how many distinct",
            "solve for",
            *(f"\\{name}" for name in ("frac", "sum", "int", "sqrt", "lim", "mathbb", "binom")),
        ),
        signs=frozenset("∫∑∏√∀∃≤≥≡∞"),
    ),
    _Cue(
        "code",
        0.45,
        frozenset(
            "function async segfault traceback deadlock algorithm refactor compile compiler compiles regex kernel mutex".split()
        ),
        phrases=("```", "#include", "\ndef ", "\nclass ", "race condition", "stack trace", "big-o", "big o", "time complexity"),
    ),
    _Cue(
        "reasoning",
        0.4,
        frozenset(
            "why compare tradeoff tradeoffs evaluate critique justify implication implications architecture strategy".split()
        )
        | frozenset("counterexample analyze analyse optimize optimise".split()),
        phrases=(
            "explain how",
            "trade-off",
            "step by step",
            "step-by-step",
            "root cause",
            "design a",
            "design the",
            "if and only if",
            "necessary and sufficient",
        ),
    ),
)
_QUERY_CHARACTERS = 300
_DRUGS = re.compile(r"interact with \w{1,40}in\b")
_EASY_WORDS = frozenset(
    "translate summarize summarise rewrite rephrase hashtag hashtags caption slogan extract classify thank thanks hello hi greeting "
    "synonym synonyms".split()
)
_EASY_PHRASES = (
    *(f"list {what}" for what in ("the", "three", "five", "some")),
    "fix grammar",
    "fix the grammar",
    "fix spelling",
    "fix the spelling",
    "title for",
    "what is the capital",
    "format this",
    "format as",
)
_EASY_CHARACTERS = 400
_NEVER_EASY = frozenset({"proof", "clinical", "legal"})
_WORD = re.compile(r"[^\W\d_]+")
_PLAIN = 0.15
_LONG_WORD_CHARACTERS = 10


def complexity(prompt: str) -> Complexity:
    """The complexity of a prompt, from what is asked for, rare words and, a little, its length."""
    text = bounded(prompt, PROMPT_CHARACTERS_MAX)
    small = text.lower()
    words = _WORD.findall(small)
    found = sorted(_cues(text, small, words), reverse=True)
    reasons = [reason for _, reason in found]
    score = _PLAIN
    for weight, _ in found:
        score += (1 - score) * weight * 0.8
    long_words = sum(len(word) >= _LONG_WORD_CHARACTERS for word in words) / max(1, len(words))
    if len(words) >= 4 and long_words > 0.2:
        score += (1 - score) * min(0.3, long_words)
        reasons.append("rare words")
    if len(words) > 150:
        score += (1 - score) * min(0.25, len(words) / 4000)
        reasons.append("long")
    if _NEVER_EASY.isdisjoint(reasons) and _is_plain_task(small[:_EASY_CHARACTERS]):
        score *= 0.6
        reasons.append("a plain task")
    return Complexity(min(1.0, score), tuple(reasons) or ("nothing hard in it",))


def _cues(text: str, small: str, words: list[str]) -> list[tuple[float, str]]:
    distinct, in_a_row = set(words), f" {' '.join(words)} "
    found = {cue.reason for cue in _CUES if cue.found(small, distinct, in_a_row)}
    query = text.find("SELECT ")
    if query >= 0 and " FROM " in text[query : query + _QUERY_CHARACTERS]:
        found.add("code")
    if "interact with " in small and _DRUGS.search(small):
        found.add("clinical")
    return [(cue.weight, cue.reason) for cue in _CUES if cue.reason in found]


def _is_plain_task(beginning: str) -> bool:
    return not _EASY_WORDS.isdisjoint(_WORD.findall(beginning)) or any(phrase in beginning for phrase in _EASY_PHRASES)
