"""Which requests are checked for drift, what is made of the checks, and what is in force meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from farthing_core.clock import ManualClock
from farthing_router.calibration.checks import CheckTerms, DriftChecks, EvidenceRow, ShadowNeedless
from farthing_router.calibration.drift import Evidence
from farthing_router.calibration.examples import ExampleAnswer, example
from farthing_router.calibration.fitting import FitSpec, fit
from farthing_router.calibration.in_force import ActiveCalibrations
from farthing_router.calibration.kept import Calibration, NewCalibration, State
from farthing_router.calibration.reporting import report_of
from farthing_router.judging.opinions import Opinion
from farthing_router.pricing.tokens import Tokens
from farthing_router.routing.errands import Attempt, AttemptOutcome, Bought, Errand, Finished, Served
from farthing_router.routing.routes import Candidate, Role, Route, Wish
from farthing_router.store import StoreUnavailable
from farthing_router.upstreams import UpstreamAnswer

NOW = datetime(2026, 7, 1, tzinfo=UTC)
SCOPE = "organizations/acme/workspaces/w"
KEY = ("acme", "c1")


class Kept:
    """Calibrations in memory."""

    def __init__(self, *rows: Calibration) -> None:
        self.rows = list(rows)

    async def after(self, number: int, *, rows_max: int) -> Sequence[Calibration]:
        return [row for row in self.rows if row.number > number][:rows_max]


class Seen:
    """Evidence in memory."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], EvidenceRow] = {}
        self.number = 0
        self.away = False

    async def add(self, organization: str, calibration_id: str, merge: Callable[[bytes], bytes], *, at: datetime) -> None:
        if self.away:
            raise StoreUnavailable(problem="away")
        key = (organization, calibration_id)
        kept = self.rows[key].evidence if key in self.rows else b""
        self.number += 1
        self.rows[key] = EvidenceRow(self.number, *key, merge(kept), at)

    async def after(self, number: int, *, rows_max: int) -> Sequence[EvidenceRow]:
        return sorted((row for row in self.rows.values() if row.number > number), key=lambda row: row.number)[:rows_max]

    @property
    def evidence(self) -> Evidence:
        return Evidence.from_bytes(self.rows[KEY].evidence)


@pytest.fixture(scope="module")
def row() -> Calibration:
    examples = []
    for number in range(80):
        hard = number % 2 == 0
        answers = {
            "small": ExampleAnswer(text="I guess 8" if hard else "It is 7", score=float(not hard), cost_usd_nanos=10),
            "big": ExampleAnswer(text="It is 7", score=1.0, cost_usd_nanos=1000),
        }
        examples.append(example(f"What is it ({number})?", answers))
    spec = FitSpec(opening=("small",), strong=("big",), saving_min=0.3)
    fitted = fit(examples, spec, seed=1)
    made = NewCalibration(
        calibration_id="c1",
        organization="acme",
        scope="organizations/acme",
        task="",
        report=report_of(fitted, spec),
        policy=fitted.policy.to_json(),
        created_at=NOW,
    )
    return Calibration(1, made, 1, State.ACTIVE, 1, NOW)


async def checking(row: Calibration, **terms: Any) -> tuple[DriftChecks, ActiveCalibrations, Seen, ManualClock]:
    given = {"share": 1.0, "per_hour_max": 1000, "escalates": False, "write_s": 1.0}
    active, seen, clock = ActiveCalibrations(Kept(row)), Seen(), ManualClock()  # type: ignore[arg-type]
    await active.watched.refresh()
    checks = DriftChecks(
        seen, active, clock=clock, terms=CheckTerms(**{**given, **terms}), prompt_of=lambda conversation: "What is it?"
    )
    return checks, active, seen, clock


def route(*candidates: Candidate, **facts: Any) -> Route:
    return Route(candidates, "calibrated", "", 9, 5, 99, 4, 0.0, **{"calibration_id": "c1", **facts})


def candidate(model: str, role: Role = Role.FIRST) -> Candidate:
    return Candidate(model, role, "p", model, 10, 100, 50, 1_000, 500)


ROUTE = route(candidate("small"), candidate("big", Role.ESCALATION))


def wish(request_id: str = "") -> Wish:
    return Wish("", "", "", frozenset(), 0, {}, 9, None, frozenset(), False, "", {}, scope=SCOPE, request_id=request_id)


def errand(of: Route = ROUTE, **facts: Any) -> Errand:
    given = {"prices": None, "conversation": None, "parameters": None, "task": "", "wants_json": False, "service_tier": ""}
    return Errand(route=of, **{**given, "ends_at_s": 9.0, "calls_left": 4, "scope": SCOPE, "request_id": "r1", **facts})


def decided(one: Errand, *models: str) -> Errand:
    for model in models:
        asked = next(each for each in one.route.candidates if each.model == model)
        attempt = Attempt(model, "p", model, AttemptOutcome.ACCEPTED, "", None, Tokens(10, output_tokens=5), 9, 1)
        bought = Bought(asked, UpstreamAnswer("It is 7", "", "stop", "", None), attempt)
        if model == "small":
            bought.opinion = Opinion(0.9, "good enough", 0.1)
        one.bought.append(bought)
    return one


def answered(text: str) -> Finished:
    return Finished(UpstreamAnswer(text, "", "stop", "", None), "big", (), False, 1)


def shadow(served: str, request_id: str = "r1", *, model: str = "small") -> Errand:
    told = Served(model, served, "stop", 10, 1)
    return errand(route(candidate("big")), shadow_of=request_id, request_id=str(uuid.uuid4()), served=told)


async def test_the_asked_for_share_of_requests_is_checked_and_always_the_same_ones(row: Calibration) -> None:
    checks, *_ = await checking(row, share=0.2)
    ids = [str(uuid.UUID(int=number)) for number in range(1, 1001)]
    chosen = [each for each in ids if checks.shadows(wish(each), ROUTE)]
    assert 150 < len(chosen) < 250
    again, *_ = await checking(row, share=0.2)
    assert [each for each in ids if again.shadows(wish(each), ROUTE)] == chosen


async def test_a_check_names_the_strong_model_and_its_calibration(row: Calibration) -> None:
    checks, *_ = await checking(row)
    (wanted,) = checks.shadows(wish("r"), ROUTE)
    assert (wanted.model, wanted.calibration_id, wanted.cause, wanted.experiment_id) == ("big", "c1", "drift", "")
    assert not checks.shadows(wish(""), ROUTE)
    assert not checks.shadows(wish("r"), route(candidate("small"), calibration_id=""))
    assert not checks.shadows(wish("r"), route(candidate("small"), experiment_id="e1"))


async def test_checks_are_capped_by_the_hour(row: Calibration) -> None:
    checks, _, _, clock = await checking(row, per_hour_max=3)
    assert sum(bool(checks.shadows(wish(str(number)), ROUTE)) for number in range(20)) == 3
    clock.advance(1200)
    assert sum(bool(checks.shadows(wish(str(number)), ROUTE)) for number in range(20)) == 1


async def test_what_the_strong_model_answered_itself_counts_as_kept_and_is_not_bought(row: Calibration) -> None:
    checks, _, seen, _ = await checking(row)
    with pytest.raises(ShadowNeedless):
        checks.before(shadow("It is 7", model="big"))
    checks.before(shadow("It is 7"))
    checks.before(errand())
    await checks.flush()
    assert (seen.evidence.checked, seen.evidence.ratio()[0]) == (1, 1.0)


async def test_an_answer_is_compared_with_its_shadow_once_nobody_has_said_better(row: Calibration) -> None:
    checks, _, seen, clock = await checking(row, opinion_wait_s=60.0)
    checks.ended(shadow("The answer is 7", "agrees"), answered("The answer is 7"), None)
    checks.ended(shadow("The answer is 8", "differs"), answered("The answer is 7"), None)
    checks.ended(shadow("The answer is 8", "praised"), answered("The answer is 7"), None)
    checks.ended(shadow("word " * 60, "prose"), answered("word " * 30 + "other " * 30), None)
    checks.heard("acme", "praised", "small", 1.0)
    checks.heard("other", "differs", "small", 1.0)
    await checks.flush()
    assert not seen.rows
    clock.advance(61)
    await checks.flush()
    assert seen.evidence.checked in (3, 4)
    assert seen.evidence.sums[0] >= 2.0  # the one that agrees, and the one that was praised against the strong answer


async def test_decisions_and_escalations_are_counted_and_shadows_and_failures_are_not(row: Calibration) -> None:
    checks, _, seen, _ = await checking(row)
    checks.ended(decided(errand(), "small"), answered("It is 7"), None)
    checks.ended(decided(errand(), "small", "big"), answered("It is 7"), None)
    checks.ended(decided(errand(), "small"), None, RuntimeError())
    checks.ended(
        decided(errand(shadow_of="r0", of=route(candidate("small"), experiment_id="e1")), "small"), answered("7"), None
    )
    await checks.flush()
    assert (seen.evidence.decisions, seen.evidence.escalated, seen.evidence.judged) == (2, 1, 2)
    assert seen.evidence.gain == pytest.approx(0.2)
    assert seen.evidence.features


async def test_what_cannot_be_written_is_kept_and_added_to(row: Calibration) -> None:
    checks, _, seen, _ = await checking(row)
    checks.ended(decided(errand(), "small"), answered("It is 7"), None)
    seen.away = True
    with pytest.raises(StoreUnavailable):
        await checks.flush()
    checks.ended(decided(errand(), "small"), answered("It is 7"), None)
    seen.away = False
    await checks.flush()
    assert seen.evidence.decisions == 2


@pytest.mark.parametrize("escalates", [False, True])
async def test_a_promise_in_doubt_is_said_and_buys_the_strong_model_more_often_where_that_is_wanted(
    row: Calibration, escalates: bool
) -> None:
    checks, active, _, _ = await checking(row, escalates=escalates, opinion_wait_s=0.0)
    usual = active.named(SCOPE, "c1")
    assert usual is not None
    for number in range(120):
        checks.ended(shadow("The answer is 8", f"r{number}"), answered("The answer is 7"), None)
    await checks.flush()
    await checks.watched.refresh()
    standing = checks.standing(*KEY)
    assert standing is not None
    assert standing.verdict.state == "drifting"
    assert active.in_doubt(*KEY)
    now = active.named(SCOPE, "c1")
    assert now is not None
    assert (now.policy.threshold < usual.policy.threshold) is escalates
    assert active.in_force(SCOPE, "any") == now
    fitted = active.fitted(*KEY)
    assert fitted is not None
    assert fitted.threshold == usual.policy.threshold


async def test_a_replica_that_cannot_read_a_newer_policy_routes_without_it(row: Calibration) -> None:
    import orjson

    newer = orjson.dumps({**orjson.loads(row.made.policy), "format": 999})
    made = NewCalibration(
        **{name: getattr(row.made, name) for name in row.made.__dataclass_fields__ if name != "policy"}, policy=newer
    )
    active = ActiveCalibrations(Kept(row, Calibration(2, made, 2, State.ACTIVE, 2, NOW)))  # type: ignore[arg-type]
    await active.watched.refresh()
    assert active.in_force(SCOPE, "") is None
