"""What is kept of an answer, how opinions combine, and what is believed of models."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from farthing_core.clock import ManualClock
from farthing_router.learning.arms import Arms
from farthing_router.learning.contexts import context_of
from farthing_router.learning.evidence import CONTEXT_SIZE, Evidence
from farthing_router.learning.fingerprints import fingerprint, likeness
from farthing_router.learning.outcomes import Arm, Opinions, Source
from farthing_router.learning.trends import ranks, trend

USUAL = np.eye(CONTEXT_SIZE)[0]


def alike(one: str, other: str) -> float:
    return likeness(fingerprint(one, key="k"), fingerprint(other, key="k"))


def test_a_correction_with_the_same_final_answer_says_that_the_answer_was_right() -> None:
    assert alike("We add them up. The answer is 2,400.", "2400") == 1.0
    assert alike("We add them up. The answer is 2,400.", "The answer is 2401") == 0.0


def test_a_correction_in_prose_says_how_much_was_right() -> None:
    said = (
        "The museum opens at nine on weekdays and at ten on Sundays, and entry is free for children under the age of six " * 2
    )
    mended = said.replace("ten on Sundays", "eleven on Sundays")
    other = (
        "Please write to our support desk with the number of your order and we will send another one to you by mail soon " * 2
    )
    assert alike(said, said) == 1.0
    assert 0.6 < alike(said, mended) < 1.0
    assert alike(said, other) < 0.1


def test_a_fingerprint_is_bounded_says_nothing_of_other_requests_and_holds_no_text() -> None:
    text = "secret " * 100_000
    kept = fingerprint(text, key="one")
    assert len(kept) <= 8 + 64 * 4
    assert b"secret" not in kept
    assert fingerprint("The answer is 42", key="one") != fingerprint("The answer is 42", key="two")


@pytest.mark.parametrize("text", ["", " ", "\x00\ud800", "word", "two words", "\n" * 5_000])
def test_any_text_has_a_fingerprint_and_is_like_itself(text: str) -> None:
    assert alike(text, text) == 1.0


def test_truth_counts_before_users_and_users_before_models() -> None:
    opinions = Opinions()
    assert opinions.quality is None
    seen = []
    for source, value in (
        (Source.MODEL, 0.1),
        (Source.USER, 1.0),
        (Source.MODEL, 0.0),
        (Source.USER, 0.5),
        (Source.TRUTH, 0.3),
    ):
        opinions = opinions.with_one(source, value)
        seen.append(opinions.quality)
    assert seen == [0.1, 1.0, 1.0, 0.75, 0.3]


def believing(*given: tuple[str, str, Evidence], prior: float = 0.7) -> tuple[Arms, ManualClock]:
    clock = ManualClock()
    arms = Arms(prior=lambda model: prior, clock=clock)
    for number, (task, model, evidence) in enumerate(given, 1):
        arms.take(Arm(number, "acme", task, model, evidence))
    return arms, clock


def opinions_of(values: list[float], clock: ManualClock, context: np.ndarray = USUAL) -> Evidence:  # type: ignore[type-arg]
    total = Evidence.none()
    for value in values:
        total = total + Evidence.opinion(value, context, moment=clock.now())
    return total


def test_before_anything_is_known_the_catalogs_prior_holds_and_is_wide() -> None:
    arms, _ = believing()
    belief = arms.belief("acme", "chat", "small")
    value, deviation = belief.expect(USUAL)
    assert (round(value, 3), belief.source) == (0.7, "prior")
    assert deviation > 0.2


def test_opinions_move_a_belief_and_narrow_it() -> None:
    arms, _ = believing(("chat", "small", opinions_of([0.0, 1.0] * 50, ManualClock())))
    belief = arms.belief("acme", "chat", "small")
    value, deviation = belief.expect(USUAL)
    assert value == pytest.approx(0.5, abs=0.02)
    assert deviation < 0.06
    assert (belief.source, belief.opinions) == ("feedback", 100)


def test_automatic_scores_never_outweigh_opinions() -> None:
    scores = Evidence.none()
    for _ in range(2_000):
        scores = scores + Evidence.automatic(0.95, moment=ManualClock().now())
    arms, _ = believing(("chat", "small", scores + opinions_of([0.0] * 60, ManualClock())))
    assert arms.belief("acme", "chat", "small").expect(USUAL)[0] < 0.2


def test_a_task_borrows_from_the_organisations_other_tasks_and_nothing_from_others() -> None:
    arms, _ = believing(("chat", "small", opinions_of([0.0] * 100, ManualClock())))
    assert arms.belief("acme", "extraction", "small").expect(USUAL)[0] < 0.3
    assert arms.belief("other", "extraction", "small").source == "prior"
    assert arms.belief("acme", "extraction", "large").source == "prior"


def test_old_opinions_fade() -> None:
    clock = ManualClock()
    old = opinions_of([0.0] * 40, clock)
    clock.advance(timedelta(days=140).total_seconds())
    fresh = opinions_of([1.0] * 40, clock)
    arms = Arms(prior=lambda model: 0.7, clock=clock)
    arms.take(Arm(1, "acme", "chat", "small", old + fresh))
    assert arms.belief("acme", "chat", "small").expect(USUAL)[0] > 0.95


def test_older_evidence_does_not_take_the_place_of_newer() -> None:
    arms, clock = believing(("chat", "small", opinions_of([1.0] * 50, ManualClock())))
    arms.take(Arm(0, "acme", "chat", "small", opinions_of([0.0] * 50, clock)))
    assert arms.belief("acme", "chat", "small").expect(USUAL)[0] > 0.9


def test_a_belief_depends_on_the_prompt_once_opinions_do() -> None:
    clock, rng = ManualClock(), np.random.default_rng(1)
    total = Evidence.none()
    for _ in range(400):
        context = USUAL.copy()
        context[1] = rng.choice([-1.0, 1.0])
        total = total + Evidence.opinion(float(context[1] < 0), context, moment=clock.now())
    arms, _ = believing(("chat", "small", total))
    belief = arms.belief("acme", "chat", "small")
    easy, hard = USUAL.copy(), USUAL.copy()
    easy[1], hard[1] = -1.0, 1.0
    assert belief.expect(easy)[0] > belief.expect(hard)[0] + 0.4


def test_a_context_is_bounded_whatever_the_prompt() -> None:
    for prompt in ("", "x" * 1_000_000, "∫" * 9_000, "A. one\nB. two\nC. three\nD. four", "```python\nreturn 1```"):
        context = context_of(prompt, np.full(384, 1.0, dtype="<f2").tobytes())
        assert context.shape == (CONTEXT_SIZE,)
        assert context[0] == 1.0
        assert np.abs(context).max() <= 2.0
    assert (context_of("a", b"too short")[-3:] == 0).all()


def test_a_trend_is_the_robust_slope_and_chance_is_told_from_change() -> None:
    days = list(range(20))
    rising = trend(days, [0.5 + 0.01 * day + (5.0 if day == 7 else 0.0) for day in days])
    assert rising.per_day == pytest.approx(0.01, abs=0.001)
    assert rising.significant
    noise = np.random.default_rng(3).normal(size=20).tolist()
    assert not trend(days, noise).significant
    assert trend(days, [0.5] * 20) == trend([1, 2], [0.0, 1.0])


def test_equal_values_share_their_rank() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
