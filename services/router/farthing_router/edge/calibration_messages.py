"""Calibrations between the contract's messages and the router's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from farthing.router.v1 import router_pb2
from farthing_core.errors import FarthingError, FieldInvalid

from farthing_router.calibration.answers import bounded
from farthing_router.calibration.checks import Standing
from farthing_router.calibration.examples import TEXT_CHARACTERS_MAX, Example, ExampleAnswer, example
from farthing_router.calibration.fits import FitFailed
from farthing_router.calibration.fitting import FitSpec, TargetUnreachable
from farthing_router.calibration.kept import Calibration, Point, Report, Span
from farthing_router.calibration.labelled import DataTooSmall, ModelMissing
from farthing_router.calibration.policy import FittedPolicy
from farthing_router.pricing.prices import PriceUnknown

_CONFIDENCE = 0.95
_FAILURES: Mapping[str, type[FarthingError]] = {
    kind.__name__: kind for kind in (DataTooSmall, ModelMissing, TargetUnreachable, PriceUnknown)
}


def fit_spec(spec: Any) -> FitSpec:
    """What is to be fitted. Raises FieldInvalid."""
    target = spec.WhichOneof("target")
    value = getattr(spec, target)
    made = FitSpec(
        opening=tuple(spec.opening_models),
        strong=(spec.strong_model, *spec.alternative_models),
        quality_ratio_min=value if target == "quality_ratio_min" else None,
        saving_min=value if target == "saving_min" else None,
        usd_per_quality_point=value / 1e9 if target == "usd_nanos_per_quality_point" else None,
        confidence=spec.confidence or _CONFIDENCE,
        query_only=spec.query_only,
    )
    if made.opening:
        made.check()
    elif made.confidence < 0.5:
        raise FieldInvalid(field="spec.confidence", problem="must be at least 0.5 and below 1")
    return made


def example_of(given: Any, *, number: int) -> Example:
    """A labelled example. Raises FieldInvalid, naming it by its number."""
    answers: dict[str, ExampleAnswer] = {}
    for each in given.answers:
        if each.model in answers:
            raise FieldInvalid(field=f"examples[{number}].answers", problem=f"has two answers of {each.model}")
        answers[each.model] = ExampleAnswer(
            text=bounded(each.text, TEXT_CHARACTERS_MAX),
            finish_reason=each.finish_reason or "stop",
            score=each.score,
            cost_usd_nanos=each.cost_usd_nanos or None,
            input_tokens=each.input_tokens or None,
            output_tokens=each.output_tokens or None,
            mean_logprob=each.mean_logprob if each.HasField("mean_logprob") else None,
        )
    return example(given.prompt, answers, task=given.task)


def fitted_of(said: bytes) -> tuple[Report, bytes]:
    """What a fit's process said: the report and the artefact. Raises what the fit raised, and FitFailed."""
    answer = orjson.loads(said)
    if "broken" in answer:
        raise FitFailed(problem=answer["broken"])
    if "failure" in answer:
        raise _failure(answer["failure"], answer["message"], answer["facts"])
    return report_of(answer["report"]), answer["policy"].encode()


def report_of(given: dict[str, Any]) -> Report:
    """A report from JSON."""
    for name in ("saving", "quality_ratio", "opening_models", "alternative_models", "notes"):
        given[name] = tuple(given[name])
    return Report(**{**given, "curve": tuple(Point(**point) for point in given["curve"])})


def _failure(kind: str, message: str, facts: dict[str, str]) -> FarthingError:
    if kind == "FieldInvalid":
        return FieldInvalid(field=facts["field"], problem=message.removeprefix(f"{facts['field']}: "))
    known = _FAILURES.get(kind)
    if known is None:
        return FitFailed(problem=kind)
    error = known.__new__(known)
    FarthingError.__init__(error, message, **facts)
    return error


def calibration(given: Calibration, *, curve: bool = True) -> Any:
    """A calibration as the contract has it."""
    made = given.made
    message = described(made.report, scope=made.scope, task=made.task, curve=curve)
    message.calibration_id = made.calibration_id
    message.version = given.version
    message.state = int(given.state)
    message.create_time.FromDatetime(made.created_at)
    if given.activated_at is not None:
        message.activate_time.FromDatetime(given.activated_at)
    return message


def described(report: Report, *, scope: str, task: str, curve: bool = True) -> Any:
    """What a fit says, without a name yet."""
    return router_pb2.Calibration(
        scope=scope,
        task=task,
        opening_models=report.opening_models,
        strong_model=report.strong_model,
        alternative_models=report.alternative_models,
        target=report.target,
        guaranteed=report.guaranteed,
        confidence=report.confidence,
        threshold=report.threshold,
        saving=span(report.saving),
        quality_ratio=span(report.quality_ratio),
        risk=report.risk,
        escalated_share=report.escalated_share,
        examples=report.examples,
        query_only=report.query_only,
        curve=[
            router_pb2.CalibrationPoint(
                threshold=each.threshold,
                cost_share=each.cost_share,
                quality_share=each.quality_share,
                escalated_share=each.escalated_share,
            )
            for each in (report.curve if curve else ())
        ],
        notes=report.notes,
    )


def span(given: Span) -> Any:
    """An expectation with its interval."""
    return router_pb2.Expected(value=given[0], lower=given[1], upper=given[2])


def drift(standing: Standing, policy: FittedPolicy | None) -> Any:
    """How a calibration stands."""
    evidence = standing.evidence
    found = router_pb2.Drift(
        state=standing.verdict.state,
        decisions=evidence.decisions,
        checked=evidence.checked,
        quality_ratio=span(evidence.ratio()),
        escalated_share=span(evidence.escalated_share()),
        distance=evidence.distance(policy.drift) if policy is not None else 0.0,
        advice=standing.verdict.advice,
    )
    found.update_time.FromDatetime(standing.updated_at)
    return found
