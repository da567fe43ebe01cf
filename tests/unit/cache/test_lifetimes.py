"""How long answers stay true, and which are fit to be kept at all."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from farthing_cache.answers.lifetimes import KINDS, Stability, kind_of, lifetime
from farthing_cache.answers.soundness import Answer, soundness

NOW = datetime(2026, 11, 27, 15, tzinfo=UTC)
DAY_S, WEEK_S = 86_400, 604_800
QUESTIONS = {
    "momentary": (
        "What is the weather in Paris?",
        "What's the current price of Bitcoin?",
        "What time is it in Tokyo?",
        "Who is winning the match?",
        "What is the EUR/USD exchange rate?",
        "Is the store on 5th Avenue open right now?",
        "Score of the Lakers game",
        "Are there PS5s in stock near me?",
        "Wie ist das Wetter in Berlin?",
    ),
    "daily": (
        "What happened in parliament today?",
        "Give me the latest news on the strike",
        "Which meetings do I have tomorrow?",
        "What are the most recent papers on retrieval?",
        "What is trending on social media?",
    ),
    "weekly": (
        "Which films open this weekend?",
        "What are upcoming holidays?",
        "Is there a train strike on December 3rd?",
        "Any concerts on 2026-12-01?",
        "Which events are there on 30 November?",
        "Who currently leads the league?",
    ),
    "slow": (
        "Who is the president of France?",
        "Who is the current CEO of Siemens?",
        "How old is Paul McCartney?",
        "What is the population of Peru?",
        "What is the newest version of Django?",
        "What is the minimum wage in Spain?",
        "Who won the 2026 World Cup?",
    ),
    "stable": (
        "What is a quorum?",
        "What does HTTP stand for?",
        "Define entropy",
        "12 * (7 + 5) =",
        "What is 17 + 4?",
        "What is the capital of Peru?",
        "How do I reverse a list in Python?",
        "Translate 'what is the weather today' into French",
        "Rewrite: the latest news arrived today.",
        "Explain the difference between TCP and UDP",
        "Convert 5 miles to kilometres",
        "Why does `def f(x): return x.now()` fail?",
    ),
    "ordinary": (
        "Write a slogan for a bakery",
        "How do I reset my password?",
        "How does datetime.now() differ from utcnow?",
        "How do I improve my credit score?",
        "Why did Rome fall?",
        "What happened on July 4th, 1776?",
    ),
}


@pytest.mark.parametrize(("kind", "question"), [(kind, question) for kind, asked in QUESTIONS.items() for question in asked])
def test_a_question_says_how_fast_its_answer_ages(kind: str, question: str) -> None:
    assert kind_of(question, today=NOW.date()).name == kind


def test_no_answer_is_kept_longer_than_it_may_be() -> None:
    assert lifetime(["What is a quorum?"], now=NOW, limit_s=DAY_S).ttl_s == DAY_S
    assert lifetime(["What is a quorum?"], now=NOW, limit_s=WEEK_S).ttl_s == WEEK_S
    assert lifetime(["Write a slogan"], now=NOW, limit_s=WEEK_S).ttl_s == DAY_S
    found = lifetime(["What is the weather in Rome?"], now=NOW, limit_s=DAY_S)
    assert (found.ttl_s, found.reason) == (300, "time-sensitive: changes by the minute")
    assert lifetime(["What is the weather in Rome?"], now=NOW, limit_s=60).ttl_s == 60


def test_what_was_asked_before_in_a_conversation_counts() -> None:
    assert lifetime(["What is the weather in Rome?", "And in Paris?"], now=NOW, limit_s=DAY_S).ttl_s == 300
    assert lifetime(["Hello!", "What is a quorum?"], now=NOW, limit_s=WEEK_S).ttl_s == WEEK_S
    assert lifetime([], now=NOW, limit_s=WEEK_S).ttl_s == DAY_S


def test_fresh_answers_that_stay_the_same_lengthen_and_others_shorten_within_bounds() -> None:
    kind = KINDS["daily"]
    same = changed = Stability()
    lengths = []
    for _ in range(1_000):
        same, changed = same.plus(age_s=kind.ttl_s, changed=False), changed.plus(age_s=kind.ttl_s, changed=True)
        lengths.append(same.ttl_s(kind))
    assert lengths == sorted(lengths)
    assert kind.ttl_s < lengths[0] < 1.2 * kind.ttl_s  # one fresh answer is little evidence
    assert (same.ttl_s(kind), changed.ttl_s(kind)) == (8 * kind.ttl_s, kind.ttl_s // 8)
    assert lifetime(["What happened today?"], now=NOW, limit_s=DAY_S, learned={"daily": changed}).ttl_s == 450


def test_what_is_learned_comes_to_the_age_by_which_a_tenth_has_changed() -> None:
    kind, chance, changes_every_s = KINDS["daily"], Random(5), 50_000.0
    learned = Stability()
    for _ in range(3_000):
        age_s = chance.uniform(0, 8_000)
        learned = learned.plus(age_s=age_s, changed=chance.expovariate(1 / changes_every_s) < age_s)
    assert learned.ttl_s(kind) == pytest.approx(0.1 * changes_every_s, rel=0.3)


@pytest.mark.parametrize(
    ("answer", "keep", "by_meaning"),
    [
        (Answer("Press Forgot password.", "stop"), True, True),
        (Answer("", "tool_calls", '{"tool_calls":[{"id":"c","function":{"name":"f"}}]}'), True, True),
        (Answer("", "stop"), False, False),
        (Answer("  \n", "stop", '{"tool_calls":[]}'), False, False),
        (Answer("Half of it", "length"), False, False),
        (Answer("Half of it", "length", output_tokens=99), False, False),
        (Answer("As much as was asked", "length", output_tokens=100), True, False),
        (Answer("Something", "content_filter"), False, False),
        (Answer("Something", "error"), False, False),
        (Answer("A stream that broke", ""), False, False),
        (Answer("I'm sorry, but I can't help with that.", "stop"), True, False),
        (Answer("I’m unable to provide legal advice.", "stop"), True, False),
        (Answer("", "stop", '{"refusal":"No.","tool_calls":[{"id":"c"}]}'), True, False),
        (Answer("Sorry seems to be the hardest word is a song by Elton John.", "stop"), True, True),
        (Answer("You cannot help but smile. " * 60, "stop"), True, True),
    ],
)
def test_broken_answers_are_not_kept_and_refusals_are_not_passed_on(answer: Answer, keep: bool, by_meaning: bool) -> None:
    found = soundness(answer, output_tokens_max=100)
    assert (found.keep, found.by_meaning) == (keep, by_meaning)
    assert bool(found.reason) is not (keep and by_meaning)


def test_an_answer_cut_off_without_a_limit_is_broken() -> None:
    assert not soundness(Answer("Half of it", "length", output_tokens=4_096), output_tokens_max=None).keep
