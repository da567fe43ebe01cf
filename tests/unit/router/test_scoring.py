"""Scores: what the parts say, what opinions teach, and that any text is read in bounded time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import pytest
from farthing_router.calibration.answers import BoughtAnswer
from farthing_router.learning.fitted_scores import OPINIONS_MIN, correlation, fit_scores
from farthing_router.learning.metrics import NAMES, Answered, metrics_of, vector
from farthing_router.learning.outcomes import Labelled, Sums
from farthing_router.learning.regression import fit_regression
from farthing_router.learning.reports import agreement, mean_quality
from farthing_router.learning.scoring import scored

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROMPT = "Please explain how the opening hours of the museum differ between weekdays and holidays."
ANSWER = "On weekdays the museum opens at nine. On holidays its opening hours are shorter, from eleven to four, as the staff is small."


def parts(text: str, *, prompt: str = PROMPT, finish_reason: str = "stop", **given: object) -> dict[str, float]:
    answer = BoughtAnswer(text=text, finish_reason=finish_reason)
    found = metrics_of(Answered(prompt=prompt, answer=answer, **given))  # type: ignore[arg-type]
    return {each.name: each.value for each in found}


def score(text: str, **given: object) -> float:
    answered = Answered(prompt=PROMPT, answer=BoughtAnswer(text=text), **given)  # type: ignore[arg-type]
    return scored(answered, fitted=None, task="chat").value


def test_each_part_tells_good_from_bad() -> None:
    assert (
        parts(ANSWER)["relevance"]
        > 0.9
        > parts("Bananas are yellow fruits that grow in warm places all over the wide world.")["relevance"]
    )
    assert parts("The cat sat. " * 200)["fluent"] < 0.1 < 0.9 < parts(ANSWER)["fluent"]
    assert parts("I'm not sure. It is unclear.")["no hedging"] < 0.5
    assert parts("12 * 12 = 144, and 144 / 5 = 28.8")["calculation"] == 1.0
    assert parts("12 * 12 = 145.")["calculation"] == 0.0
    assert parts("```python\nprint(1)\n```")["code"] == 1.0
    assert parts("```python\nprint(1\n```")["code"] == 0.0
    assert parts('{"a": 1', wants_json=True)["format"] == 0.0
    assert parts("The answer is 7.", others=["7", "It is 8. The answer is 8."])["agreement"] == 0.5
    assert parts("It ends with 42. The answer is 42.", reference="42")["reference"] == 1.0
    assert parts(ANSWER, finish_reason="length")["complete"] == 0.1
    assert parts("")["complete"] == 0.0
    assert parts("", calls_tools=True)["complete"] == 1.0


def test_a_part_that_does_not_apply_is_missing() -> None:
    found = vector(metrics_of(Answered(prompt=PROMPT, answer=BoughtAnswer(text=ANSWER))))
    missing = {name for name, value in zip(NAMES, found, strict=True) if np.isnan(value)}
    assert {"agreement", "reference", "logprobs", "calculation", "code"} <= missing
    assert "complete" not in missing


def test_agreement_raises_a_score_and_contradiction_lowers_it() -> None:
    assert score("The answer is 7.", others=["7"]) > score("The answer is 7.") > score("The answer is 7.", others=["8"])


@pytest.mark.parametrize(
    "text",
    [
        "1" * 500_000,
        "1+" * 250_000,
        "= 1 + 1 " * 60_000,
        "```python\n" * 50_000,
        "(" * 400_000,
        "a " * 300_000,
        "\\boxed{" * 80_000,
        "\x00\ud800" * 9,
    ],
    ids=["digits", "sums", "equations", "fences", "brackets", "words", "boxes", "no text"],
)
def test_degenerate_answers_are_scored_in_bounded_time(text: str) -> None:
    began = time.process_time()
    value = score(text, others=[text])
    assert time.process_time() - began < 1.0
    assert 0.0 <= value <= 1.0


def labelled(count: int, *, rng: np.random.Generator, tasks: tuple[str, ...] = ("chat",)) -> list[Labelled]:
    """Answers whose quality depends on one feature, at the task "odd" the other way round."""
    found = []
    for number in range(count):
        task = tasks[number % len(tasks)]
        features = rng.normal(size=6)
        signal = -features[2] if task == "odd" else features[2]
        good = float(rng.random() < 1 / (1 + np.exp(-2.5 * signal)))
        features[5] = np.nan if number % 2 else features[5]
        found.append(Labelled(task, "small", 0.5, good, features, NOW))
    return found


def test_opinions_teach_what_a_score_is_worth_and_it_is_calibrated() -> None:
    rng = np.random.default_rng(1)
    fitted = fit_scores(labelled(1_500, rng=rng))
    assert fitted is not None
    assert fitted.correlation is not None
    assert fitted.correlation > 0.5
    fresh = labelled(2_000, rng=rng)
    scores = np.array([fitted.value(each.features, "chat") for each in fresh])
    truth = np.array([each.quality for each in fresh])
    for low in np.arange(0.0, 1.0, 0.2):
        inside = (scores >= low) & (scores < low + 0.2)
        if inside.sum() > 100:
            assert abs(scores[inside].mean() - truth[inside].mean()) < 0.08


def test_a_task_that_is_different_gets_a_score_of_its_own() -> None:
    fitted = fit_scores(labelled(1_200, rng=np.random.default_rng(2), tasks=("chat", "odd", "chat")))
    assert fitted is not None
    assert set(fitted.by_task) >= {"odd"}
    high = np.array([0.0, 0.0, 2.0, 0.0, 0.0, np.nan])
    assert fitted.value(high, "chat") > 0.8 > 0.2 > fitted.value(high, "odd")


def test_too_few_opinions_or_features_of_another_shape_teach_nothing() -> None:
    rng = np.random.default_rng(3)
    assert fit_scores([]) is None
    assert fit_scores(labelled(OPINIONS_MIN - 1, rng=rng)) is None
    fitted = fit_scores(labelled(200, rng=rng))
    assert fitted is not None
    assert 0.0 < fitted.value(np.zeros(9), "chat") < 1.0


def test_opinions_without_anything_in_them_give_their_mean_and_shuffled_ones_no_correlation() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(400, 8))
    fit = fit_regression(rows, np.full(400, 0.7))
    assert fit.regression.calibrated(rows[0]) == pytest.approx(0.7, abs=0.02)
    shuffled = fit_regression(rows, rng.permutation([0.0, 1.0] * 200))
    assert abs(correlation(shuffled.held_out.tolist(), rng.permutation([0.0, 1.0] * 200).tolist()) or 0.0) < 0.15
    assert correlation([1.0] * 30, [0.0, 1.0] * 15) is None
    assert correlation([1.0, 0.0], [0.0, 1.0]) is None


def test_agreement_is_reported_from_the_scores_as_they_were_given() -> None:
    answers = [Labelled("chat", "small", number / 30, float(number > 15), np.zeros(0), NOW) for number in range(30)]
    found = agreement([*answers, Labelled("chat", "small", None, 1.0, np.zeros(0), NOW)])
    assert found.answers == 30
    assert found.pearson is not None
    assert found.pearson > 0.8
    assert found.spearman is not None
    assert found.spearman > 0.8
    assert found.error == pytest.approx(np.mean([abs(each.automatic - each.quality) for each in answers]))  # type: ignore[operator]
    assert agreement(answers[:19]).pearson is None


def test_few_answers_leave_a_wide_interval() -> None:
    one, many = (
        mean_quality(Sums(answers=1, quality=1.0, quality_squares=1.0)),
        mean_quality(Sums(answers=400, quality=400.0, quality_squares=400.0)),
    )
    assert one.lower < 0.4
    assert many.lower > 0.99
