"""Calibrations through the router's stub: fitted in a process of their own, kept, put in force, rolled back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from farthing.router.v1 import router_pb2, router_pb2_grpc
from farthing_runtime.status import error_info, rich_status

SCOPE = "organizations/acme"
COSTS = {"small": 40, "other": 60, "big": 1000}
CATALOG = """\
version: 1
providers: {own: {base_url: "http://127.0.0.1:1/v1", api_key_optional: true}}
models:
  small: {provider: own, price: {input_usd_per_million_tokens: "0.10", output_usd_per_million_tokens: "0.20"}}
  other: {provider: own, price: {input_usd_per_million_tokens: "0.10", output_usd_per_million_tokens: "0.30"}}
  big: {provider: own, price: {input_usd_per_million_tokens: "5", output_usd_per_million_tokens: "15"}}
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "farthing.yaml"
    path.write_text(CATALOG)
    return path


@pytest.fixture
async def router(suite: Any, catalog: Path) -> AsyncIterator[Any]:
    """In process alone: a fit takes seconds, and is the same over either transport."""
    async with suite("router", config_file=catalog) as running:
        yield router_pb2_grpc.RouterServiceStub(running.mesh.channel("router"))


@pytest.fixture
async def either(api: Any, catalog: Path) -> AsyncIterator[Any]:
    """Over both transports in turn."""
    async with api("router", config_file=catalog) as channel_of:
        yield router_pb2_grpc.RouterServiceStub(channel_of("router"))


def spec(**fields: Any) -> Any:
    given = {
        "request_id": str(uuid.uuid4()),
        "scope": SCOPE,
        "opening_models": ["small", "other"],
        "strong_model": "big",
        "saving_min": 0.3,
        **fields,
    }
    return router_pb2.CalibrateCascadeRequest(spec=router_pb2.CalibrationSpec(**given))


def parts(examples: Sequence[Any], *, size: int = 100) -> list[Any]:
    starts = range(0, len(examples), size)
    part = router_pb2.CalibrateCascadeRequest.Examples
    return [router_pb2.CalibrateCascadeRequest(examples=part(examples=examples[at : at + size])) for at in starts]


async def calibrated(stub: Any, examples: Sequence[Any], **fields: Any) -> Any:
    return await stub.CalibrateCascade([spec(**fields), *parts(examples)])


async def refused(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rich_status(caught.value)
    assert status is not None
    info = error_info(status)
    assert info is not None
    return caught.value.code(), info.reason, dict(info.metadata)


async def test_a_calibration_says_what_to_expect_and_is_kept_as_a_draft(either: Any, sums: Any, examples_of: Any) -> None:
    made = (await calibrated(either, examples_of(sums(120), costs=COSTS), task="qa")).calibration
    assert (made.version, made.state, made.task) == (1, router_pb2.CALIBRATION_STATE_DRAFT, "qa")
    assert (list(made.opening_models), made.strong_model, made.examples) == (["small", "other"], "big", 120)
    assert made.target == "at least 30 % of big's bill saved"
    assert made.saving.lower <= made.saving.value <= made.saving.upper
    assert made.saving.value >= 0.3
    assert made.quality_ratio.value > 0.9
    assert not made.guaranteed
    assert [point.escalated_share for point in made.curve] == sorted(
        (point.escalated_share for point in made.curve), reverse=True
    )
    read = await either.GetCalibration(router_pb2.GetCalibrationRequest(scope=SCOPE, calibration_id=made.calibration_id))
    assert read.calibration == made


async def test_the_same_request_is_answered_again_without_a_fit_and_another_body_is_refused(
    router: Any, sums: Any, examples_of: Any
) -> None:
    request_id, examples = str(uuid.uuid4()), examples_of(sums(80), costs=COSTS)
    first = await router.CalibrateCascade([spec(request_id=request_id), *parts(examples, size=50)])
    again = await router.CalibrateCascade([spec(request_id=request_id), *parts(examples, size=7)])
    assert (first.repeated, again.repeated) == (False, True)
    assert first.calibration == again.calibration
    changed = router.CalibrateCascade([spec(request_id=request_id), *parts(examples[1:])])
    assert (await refused(changed))[1] == "REQUEST_ID_REUSED"


async def test_a_dry_run_reports_and_keeps_nothing(router: Any, sums: Any, examples_of: Any) -> None:
    made = (await calibrated(router, examples_of(sums(80), costs=COSTS), dry_run=True)).calibration
    assert made.calibration_id == ""
    assert made.curve
    listed = await router.ListCalibrations(router_pb2.ListCalibrationsRequest(scope=SCOPE, descendants=True))
    assert not listed.calibrations


async def test_calibrations_are_put_in_force_rolled_back_and_taken_out(router: Any, sums: Any, examples_of: Any) -> None:
    examples = examples_of(sums(80), costs=COSTS)
    first = (await calibrated(router, examples, activate=True)).calibration
    assert first.state == router_pb2.CALIBRATION_STATE_ACTIVE
    second = (await calibrated(router, examples, saving_min=0.5, activate=True)).calibration
    assert second.version == 2

    async def activate(calibration_id: str) -> Any:
        request = router_pb2.ActivateCalibrationRequest(
            request_id=str(uuid.uuid4()), scope=SCOPE, calibration_id=calibration_id
        )
        return await router.ActivateCalibration(request)

    back = await activate(first.calibration_id)
    assert (back.calibration.calibration_id, back.retired_calibration_id) == (first.calibration_id, second.calibration_id)
    out = await activate("")
    assert not out.HasField("calibration")
    assert out.retired_calibration_id == first.calibration_id
    page = await router.ListCalibrations(router_pb2.ListCalibrationsRequest(scope=SCOPE, page_size=1))
    rest = await router.ListCalibrations(router_pb2.ListCalibrationsRequest(scope=SCOPE, page_token=page.next_page_token))
    listed = [*page.calibrations, *rest.calibrations]
    assert [(each.calibration_id, each.state) for each in listed] == [
        (second.calibration_id, router_pb2.CALIBRATION_STATE_RETIRED),
        (first.calibration_id, router_pb2.CALIBRATION_STATE_RETIRED),
    ]
    assert not listed[0].curve


async def test_nothing_is_told_of_another_organisations_calibrations(router: Any, sums: Any, examples_of: Any) -> None:
    made = (await calibrated(router, examples_of(sums(80), costs=COSTS))).calibration
    other = "organizations/other"
    get = router_pb2.GetCalibrationRequest(scope=other, calibration_id=made.calibration_id)
    put = router_pb2.ActivateCalibrationRequest(request_id=str(uuid.uuid4()), scope=other, calibration_id=made.calibration_id)
    beside = router_pb2.GetCalibrationRequest(scope=SCOPE, calibration_id=str(uuid.uuid4()))
    for call in (router.GetCalibration(get), router.ActivateCalibration(put), router.GetCalibration(beside)):
        assert (await refused(call))[:2] == (grpc.StatusCode.NOT_FOUND, "CALIBRATION_UNKNOWN")


async def test_data_that_cannot_support_a_promise_are_refused_with_how_many_would(
    router: Any, sums: Any, examples_of: Any
) -> None:
    promise = {"saving_min": None, "quality_ratio_min": 0.99}
    code, reason, facts = await refused(calibrated(router, examples_of(sums(80), costs=COSTS), **promise))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DATA_TOO_SMALL")
    assert int(facts["examples_needed"]) > 80
    code, reason, facts = await refused(calibrated(router, examples_of(sums(80), costs=COSTS), saving_min=0.999))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TARGET_UNREACHABLE")
    assert 0 < float(facts["best"]) < 0.999
    code, reason, facts = await refused(calibrated(router, examples_of(sums(30), costs=COSTS)))
    assert (reason, facts["examples"]) == ("DATA_TOO_SMALL", "30")


async def test_costs_that_nobody_told_are_reckoned_from_tokens_at_the_price_books_rates(
    router: Any, sums: Any, examples_of: Any
) -> None:
    examples = examples_of(sums(80))
    for each in examples:
        for answer in each.answers:
            answer.input_tokens, answer.output_tokens = 100, 10
    made = (await calibrated(router, examples)).calibration
    assert "the cost of 240 answers was reckoned from tokens at today's prices" in list(made.notes)
    cheap, dear = 12 + 13, 650  # thousandths of a nanodollar a thousand tokens, written out in the catalog
    always_cheap = made.curve[-1]
    assert always_cheap.escalated_share == 0
    assert always_cheap.cost_share == pytest.approx(cheap / dear, abs=1e-3)


async def test_without_opening_models_the_best_of_those_in_the_data_are_chosen(
    router: Any, sums: Any, examples_of: Any
) -> None:
    made = (await calibrated(router, examples_of(sums(100), costs=COSTS), opening_models=[])).calibration
    assert set(made.opening_models) <= {"small", "other"}
    assert any(note.startswith("opens with") for note in made.notes)


async def test_what_is_wrong_with_a_calibration_is_named(either: Any, sums: Any, examples_of: Any) -> None:
    examples = examples_of(sums(80), costs=COSTS)
    assert (await refused(calibrated(either, examples, strong_model="gone")))[1] == "MODEL_UNKNOWN"
    assert (await refused(either.CalibrateCascade(parts(examples))))[2]["field"] == "spec"
    assert (await refused(either.CalibrateCascade([spec(), spec()])))[2]["field"] == "spec"
    assert (await refused(calibrated(either, examples, confidence=0.2)))[2]["field"] == "confidence"
    twice = examples_of(sums(3), costs=COSTS)
    twice[1].answers.add(model="small", text="again")
    assert (await refused(calibrated(either, twice)))[2]["field"] == "examples[1].answers"
    page = either.ListCalibrations(router_pb2.ListCalibrationsRequest(scope=SCOPE, page_token="x"))
    assert (await refused(page))[2]["field"] == "page_token"


async def test_more_examples_than_a_fit_takes_are_refused(suite: Any, catalog: Path, sums: Any, examples_of: Any) -> None:
    environment = {"FARTHING_ROUTER_CALIBRATION_EXAMPLES_MAX": "100"}
    async with suite("router", config_file=catalog, environment=environment) as running:
        router = router_pb2_grpc.RouterServiceStub(running.mesh.channel("router"))
        code, reason, facts = await refused(calibrated(router, examples_of(sums(101), costs=COSTS)))
        assert (code, reason, facts["examples_max"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_EXAMPLES", "100")


async def test_one_fit_runs_at_a_time_and_a_caller_who_gives_up_makes_room(router: Any, sums: Any, examples_of: Any) -> None:
    examples, sent, waits = examples_of(sums(100), costs=COSTS), asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[Any]:
        yield spec()
        for part in parts(examples, size=20):
            yield part
        sent.set()
        await waits.wait()

    async def first() -> None:
        await router.CalibrateCascade(slowly())

    task = asyncio.create_task(first())
    await sent.wait()
    while (await refused(router.CalibrateCascade([spec(), *parts(examples[:5])])))[1] != "CALIBRATION_BUSY":
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await calibrated(router, examples)).calibration.version == 1


async def test_a_deadline_ends_a_fit_and_its_process(either: Any, sums: Any, examples_of: Any) -> None:
    examples = examples_of(sums(200), costs=COSTS)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await either.CalibrateCascade([spec(), *parts(examples)], timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    while (said := (await refused(calibrated(either, examples[:10])))[1]) == "CALIBRATION_BUSY":
        await asyncio.sleep(0.05)  # over TCP the handler learns of it a moment later
    assert said == "DATA_TOO_SMALL"


async def test_the_event_loop_stays_smooth_while_a_calibration_is_fitted(
    router: Any, sums: Any, examples_of: Callable[..., list[Any]]
) -> None:
    examples, longest_s = examples_of(sums(200), costs=COSTS), 0.0
    fit = asyncio.create_task(_awaited(calibrated(router, examples)))
    while not fit.done():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        longest_s = max(longest_s, time.monotonic() - before)
    await fit
    assert longest_s < 0.5, "the fit takes seconds of CPU: were it on the loop, a turn would take as long"


async def _awaited(call: Any) -> Any:
    return await call
