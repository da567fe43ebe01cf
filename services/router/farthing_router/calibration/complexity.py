"""How hard a prompt looks before anything is known of it: untrained rules over its words, for installations without data.

A short prompt is not an easy one: "Prove that √2 is irrational" has four words. So length counts for little, and what is asked for much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from farthing_router.calibration.answers import PROMPT_CHARACTERS_MAX, bounded

_CUES: tuple[tuple[str, float, re.Pattern[str]], ...] = tuple(
    (reason, weight, re.compile(pattern, re.IGNORECASE))
    for reason, weight, pattern in (
        (
            "proof",
            0.62,
            r"\b(?:prove|proof|disprove|lemma|theorem|corollary|conjecture|show that|derive|irrational|bijection|induction|undecidable|"
            r"np-?(?:hard|complete)|converges?|continuous|homomorphism|eigen\w+|integral|differential equation)\b",
        ),
        (
            "clinical",
            0.6,
            r"\b(?:diagnos\w+|differential|prognos\w+|patient|symptoms?|contraindicat\w+|dosage|dose|mg/kg|mmhg|pathophysiolog\w+|"
            r"anticoagul\w+|ecg|ekg|mri|biopsy|comorbid\w+|renal|hepatic|sepsis|myocard\w+|\w+itis|\w+emia|\w+pathy|interact with \w+in\b|"
            r"pregnan\w+|year-?old (?:man|woman|male|female|boy|girl))\b",
        ),
        (
            "legal",
            0.55,
            r"\b(?:plaintiff|defendant|liabilit\w+|liable|statute|tort|indemnif\w+|jurisdiction|precedent|breach of|gdpr|hipaa|negligence|"
            r"fiduciary|injunction|estoppel|appellate|constitutional\w*)\b",
        ),
        (
            "mathematics",
            0.5,
            r"(?:\\(?:frac|sum|int|sqrt|lim|mathbb|binom)|[∫∑∏√∀∃≤≥≡∞]|\b(?:modulo|polynomial|probability that|expected value|"
            r"how many (?:ways|integers|distinct)|solve for|equation|matrix|derivative|prime(?:s| number)?|combinatori\w+|logarithm)\b)",
        ),
        (
            "code",
            0.45,
            r"(?:```|\b(?:def |class |function\b|async\b|segfault|stack ?trace|traceback|race condition|deadlock|big-?o|time complexity|"
            r"algorithm|refactor|compile[rs]?|regex|kernel|mutex|assert )|#include|SELECT .{1,200} FROM)",
        ),
        (
            "reasoning",
            0.4,
            r"\b(?:why|explain (?:why|how)|compare|trade-?offs?|evaluate|analy[sz]e|critique|step[- ]by[- ]step|justify|implications?|"
            r"root cause|design (?:a|an|the)|architecture|strategy|optimi[sz]e|if and only if|necessary and sufficient|counterexample)\b",
        ),
    )
)
_EASY = re.compile(
    r"\b(?:translate|summari[sz]e|rewrite|rephrase|fix (?:the )?(?:grammar|spelling)|hashtags?|caption|title for|slogan|extract|classify|"
    r"list (?:the|three|five|some)|what is the capital|thank|hello|hi|greeting|synonyms?|format (?:this|as))\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W\d_]+")
_PLAIN = 0.15
_LONG_WORD_CHARACTERS = 10


@dataclass(frozen=True, slots=True)
class Complexity:
    """How hard a prompt looks, 0 to 1, and why."""

    score: float
    reasons: tuple[str, ...]


def complexity(prompt: str) -> Complexity:
    """The complexity of a prompt, from what is asked for, rare words and, a little, its length."""
    text = bounded(prompt, PROMPT_CHARACTERS_MAX)
    words = _WORD.findall(text)
    found = sorted(((weight, reason) for reason, weight, cue in _CUES if cue.search(text)), reverse=True)
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
    if _EASY.search(text[:400]) and not {"proof", "clinical", "legal"} & set(reasons):
        score *= 0.6
        reasons.append("a plain task")
    return Complexity(min(1.0, score), tuple(reasons) or ("nothing hard in it",))
