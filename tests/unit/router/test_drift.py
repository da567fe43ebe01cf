"""Whether a calibration still keeps what it promised."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from farthing_router.calibration.drift import (
    Evidence,
    Seen,
    bounds_of_share,
    cautious_threshold,
    merged,
    verdict,
)
from farthing_router.calibration.kept import Point, Report
from farthing_router.calibration.policy import Drift

REPORT = Report(
    opening_models=("small",),
    strong_model="big",
    target="",
    quality_ratio_min=0.9,
    guaranteed=True,
    confidence=0.95,
    threshold=0.3,
    saving=(0.5, 0.4, 0.6),
    quality_ratio=(0.97, 0.95, 0.99),
    risk=0.01,
    escalated_share=0.3,
    examples=500,
    curve=tuple(Point(t, 1.2 - t, 1 - t / 5, 1 - t) for t in (-1.0, 0.1, 0.2, 0.3, 0.35, 0.5, 0.7, 0.9)),
)
USUAL = Drift({"words": 10.0}, {"words": 2.0}, gain_mean=0.2, gain_deviation=0.1, confidence_mean=0.8, confidence_deviation=0.1)


def checks(count: int, agree: float, *, seed: int = 0) -> list[tuple[float, float]]:
    chance = random.Random(seed)
    return [(float(chance.random() < agree), 1.0) for _ in range(count)]


def evidence(**seen: object) -> Evidence:
    made = Evidence()
    made.add(Seen(**seen))  # type: ignore[arg-type]
    return made


def test_the_ratio_lies_within_its_bounds_at_every_moment_in_nearly_all_worlds() -> None:
    missed = 0
    for seed in range(100):
        made, out = Evidence(), False
        for check in checks(150, 0.9, seed=seed):
            made.add(Seen(checks=[check]))
            _, lower, upper = made.ratio()
            out |= not lower <= 0.9 <= upper
        missed += out
    assert missed <= 10


def test_bounds_close_in_on_the_ratio() -> None:
    _, lower, upper = evidence(checks=checks(1_000, 0.9)).ratio()
    assert 0.84 < lower < 0.9 < upper < 0.95
    _, lower, upper = evidence(checks=[(1.0, 1.0)] * 500).ratio()
    assert lower > 0.97
    assert upper == pytest.approx(1.0, abs=0.05)


def test_strong_answers_that_are_no_better_themselves_count_as_what_they_are_worth() -> None:
    value, lower, upper = evidence(checks=[(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)] * 200).ratio()
    assert value == pytest.approx(1.0)
    assert lower < 1.0 < upper


def test_a_broken_promise_is_found_and_a_kept_one_is_not_called_broken() -> None:
    broken = verdict(evidence(checks=checks(300, 0.7), decisions=100, escalated=30), REPORT, USUAL)
    assert broken.state == "drifting"
    assert "surely below the 90.0 % that was promised" in broken.advice
    kept = verdict(evidence(checks=checks(300, 0.95), decisions=100, escalated=30), REPORT, USUAL)
    assert kept.state == "ok"
    early = verdict(evidence(checks=checks(10, 0.95)), REPORT, USUAL)
    assert (early.state, early.advice) == ("watching", "10 answers were checked so far; 30 are too few to say more")


def test_without_a_promise_what_was_expected_is_the_measure() -> None:
    report = replace(REPORT, guaranteed=False, quality_ratio_min=None)
    assert verdict(evidence(checks=checks(400, 0.7)), report, USUAL).state == "drifting"
    assert "that was expected" in verdict(evidence(checks=checks(400, 0.7)), report, USUAL).advice


def test_other_prompts_than_those_it_was_fitted_on_are_drift_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)

    def seen(mean: float, count: int) -> Evidence:
        made = Seen(checks=[(1.0, 1.0)] * 60)
        for value in rng.normal(mean, 2.0, count):
            made.note(["words"], np.array([value]))
        whole = Evidence()
        whole.add(made)
        return whole

    assert seen(10.0, 400).distance(USUAL) == 0.0
    assert verdict(seen(10.0, 40), REPORT, USUAL).state == "ok"
    far = verdict(seen(14.0, 100), REPORT, USUAL)
    assert far.state == "drifting"
    assert "deviations from those it was fitted on" in far.advice
    assert evidence(judged=100, gain=60.0, confidence=80.0).distance(USUAL) > 3


@pytest.mark.parametrize(("escalated", "state"), [(300, "ok"), (380, "ok"), (600, "drifting"), (20, "drifting")])
def test_many_more_or_fewer_escalations_than_expected_are_drift(escalated: int, state: str) -> None:
    made = evidence(decisions=1000, escalated=escalated, checks=[(1.0, 1.0)] * 60)
    assert verdict(made, REPORT, USUAL).state == state


def test_bounds_of_a_share_hold_at_every_moment_in_nearly_all_worlds() -> None:
    missed = 0
    for seed in range(200):
        chance, count, out = random.Random(seed), 0, False
        for number in range(1, 200):
            count += chance.random() < 0.3
            if number % 7 == 0:
                _, lower, upper = bounds_of_share(count, number)
                out |= not lower <= 0.3 <= upper
        missed += out
    assert missed <= 20
    assert bounds_of_share(0, 0) == (0.0, 0.0, 1.0)
    value, lower, upper = bounds_of_share(0, 1000)
    assert (value, lower) == (0.0, 0.0)
    assert upper < 0.02


def test_evidence_is_the_same_after_it_was_kept_and_whoever_adds_to_it() -> None:
    parts = [
        Seen(decisions=3, escalated=1, judged=2, gain=0.4, confidence=1.5, checks=checks(20, 0.8, seed=s)) for s in range(4)
    ]
    for number, part in enumerate(parts):
        part.note(["words", "marks"], np.array([float(number), np.nan]))
    kept, whole = b"", Evidence()
    for part in parts:
        kept = merged(kept, part)
        whole.add(part)
    read = Evidence.from_bytes(kept)
    assert read.ratio() == whole.ratio()
    assert (read.decisions, read.escalated, read.judged, read.checked) == (12, 4, 8, 80)
    assert read.features == {"words": (4, 6.0)}
    assert read.gain == pytest.approx(1.6)


def test_a_promise_in_doubt_escalates_half_of_what_was_not_escalated() -> None:
    assert (
        cautious_threshold(REPORT, 0.3) == 0.3
    )  # 0.7 of requests escalate at 0.3 of this curve, more than the half between 0.3 and 1
    assert cautious_threshold(REPORT, 0.9) == 0.35
    assert cautious_threshold(replace(REPORT, escalated_share=0.9), 0.5) == -1.0
    assert cautious_threshold(replace(REPORT, curve=()), 0.5) == 0.5
