"""Points on the plane of cost and quality, their front, and thresholds along a curve."""

from __future__ import annotations

from farthing_router.calibration.kept import Point, Report
from farthing_router.performance.cost_quality import Placed, front, thresholds
from hypothesis import given, settings
from hypothesis import strategies as st


def placed(name: str, cost: int, quality: float) -> Placed:
    return Placed(name, cost, quality, quality, quality, 10)


def test_the_front_holds_what_nothing_beats() -> None:
    points = [
        placed("cheap", 10, 0.5),
        placed("beaten", 20, 0.5),
        placed("middle", 20, 0.7),
        placed("waste", 90, 0.6),
        placed("best", 80, 0.9),
    ]
    assert [each.name for each in front(points) if each.on_pareto_front] == ["cheap", "middle", "best"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=30))
def test_every_point_off_the_front_is_beaten_by_one_on_it(values: list[tuple[int, int]]) -> None:
    points = front([placed(str(number), cost, quality / 20) for number, (cost, quality) in enumerate(values)])
    best = [each for each in points if each.on_pareto_front]
    assert best
    for each in points:
        beaten = any(
            other.cost_usd_nanos_per_answer <= each.cost_usd_nanos_per_answer
            and other.quality >= each.quality
            and (other.cost_usd_nanos_per_answer, other.quality) != (each.cost_usd_nanos_per_answer, each.quality)
            for other in best
        )
        assert beaten is not each.on_pareto_front


def test_cost_of_a_point_of_quality_is_rounded_up() -> None:
    assert placed("m", 1_001, 0.5).cost_usd_nanos_per_quality_point == 21
    assert placed("m", 1_001, 0.0).cost_usd_nanos_per_quality_point == 0


def report(curve: tuple[Point, ...], threshold: float) -> Report:
    return Report(
        opening_models=("small",),
        strong_model="large",
        target="",
        quality_ratio_min=None,
        guaranteed=False,
        confidence=0.95,
        threshold=threshold,
        saving=(0.5, 0.4, 0.6),
        quality_ratio=(1.0, 0.9, 1.1),
        risk=0.05,
        escalated_share=0.3,
        examples=500,
        curve=curve,
    )


CURVE = (
    Point(0.9, 0.10, 0.80, 0.0),
    Point(0.7, 0.20, 0.97, 0.1),
    Point(0.5, 0.30, 0.99, 0.2),
    Point(0.3, 0.50, 1.00, 0.5),
    Point(0.1, 1.00, 1.01, 1.0),
)


def test_advice_names_where_the_calibration_stands_and_where_it_might() -> None:
    advice = thresholds("c1", report(CURVE, 0.1))
    assert [each.point.threshold for each in advice] == [0.7, 0.5, 0.3, 0.1]
    assert [each.advice.split(":")[0] for each in advice] == [
        "beyond this, quality becomes dear",
        "at least 98% of large",
        "as good as large",
        "in force now",
    ]
    assert "50% of large's bill for 100.0% of its quality" in advice[2].advice


def test_a_calibration_that_stands_well_is_told_once_and_one_without_a_curve_not_at_all() -> None:
    assert thresholds("c1", report((), 0.5)) == []
    (only,) = thresholds("c1", report(CURVE[3:4], 0.3))
    assert only.advice.startswith("in force now")
