"""Which status each failure of the router becomes."""

from __future__ import annotations

from farthing_core.money import AmountInvalid
from farthing_runtime.status import StatusRow, StatusTable
from grpc import StatusCode

from farthing_router.calibration.checks import ShadowNeedless
from farthing_router.calibration.fits import CalibrationBusy, FitFailed, TooManyExamples
from farthing_router.calibration.fitting import TargetUnreachable
from farthing_router.calibration.kept import CalibrationsFull, CalibrationUnknown
from farthing_router.calibration.labelled import DataTooSmall, ModelMissing
from farthing_router.calibration.policy import PolicyUnreadable
from farthing_router.catalog import ModelNotFound, ModelUnknown
from farthing_router.deployments.cooldowns import CooldownsAway
from farthing_router.deployments.overrides import DeploymentUnknown, LastDeployment
from farthing_router.edge.calibrations import ModelGone
from farthing_router.experiments.terms import ExperimentOverlaps, ExperimentsFull, ExperimentUnknown
from farthing_router.learning.outcomes import DecisionUnknown
from farthing_router.pricing.prices import PriceUnknown
from farthing_router.pricing.rates import RateMissing
from farthing_router.routing.errands import AllAttemptsFailed, StreamBroken
from farthing_router.routing.routes import ContextTooLong, NoCandidate
from farthing_router.routing.rule_book import RulesFull, RuleUnknown, VersionConflict
from farthing_router.store import PriceBookFull, RequestIdReused, StoreUnavailable
from farthing_router.upstreams import UpstreamFailed, UpstreamRejected

STATUS_TABLE: StatusTable = {
    AllAttemptsFailed: StatusRow(StatusCode.UNAVAILABLE, "ALL_ATTEMPTS_FAILED"),
    AmountInvalid: StatusRow(StatusCode.INVALID_ARGUMENT, "AMOUNT_INVALID"),
    CalibrationBusy: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "CALIBRATION_BUSY"),
    CalibrationUnknown: StatusRow(StatusCode.NOT_FOUND, "CALIBRATION_UNKNOWN"),
    CalibrationsFull: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "CALIBRATIONS_FULL"),
    CooldownsAway: StatusRow(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    ContextTooLong: StatusRow(StatusCode.FAILED_PRECONDITION, "CONTEXT_TOO_LONG"),
    DeploymentUnknown: StatusRow(StatusCode.NOT_FOUND, "DEPLOYMENT_UNKNOWN"),
    LastDeployment: StatusRow(StatusCode.FAILED_PRECONDITION, "LAST_DEPLOYMENT"),
    DataTooSmall: StatusRow(StatusCode.FAILED_PRECONDITION, "DATA_TOO_SMALL"),
    DecisionUnknown: StatusRow(StatusCode.NOT_FOUND, "DECISION_UNKNOWN"),
    ExperimentOverlaps: StatusRow(StatusCode.FAILED_PRECONDITION, "EXPERIMENT_OVERLAPS"),
    ExperimentUnknown: StatusRow(StatusCode.NOT_FOUND, "EXPERIMENT_UNKNOWN"),
    ExperimentsFull: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "EXPERIMENTS_FULL"),
    FitFailed: StatusRow(StatusCode.INTERNAL, "FIT_FAILED"),
    ModelGone: StatusRow(StatusCode.FAILED_PRECONDITION, "MODEL_UNKNOWN"),
    ModelMissing: StatusRow(StatusCode.FAILED_PRECONDITION, "MODEL_MISSING"),
    ModelNotFound: StatusRow(StatusCode.NOT_FOUND, "MODEL_UNKNOWN"),
    ModelUnknown: StatusRow(StatusCode.INVALID_ARGUMENT, "MODEL_UNKNOWN"),
    NoCandidate: StatusRow(StatusCode.FAILED_PRECONDITION, "NO_CANDIDATE"),
    PolicyUnreadable: StatusRow(StatusCode.FAILED_PRECONDITION, "POLICY_UNREADABLE"),
    PriceUnknown: StatusRow(StatusCode.FAILED_PRECONDITION, "PRICE_UNKNOWN"),
    PriceBookFull: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "PRICE_BOOK_FULL"),
    RateMissing: StatusRow(StatusCode.FAILED_PRECONDITION, "PRICE_UNKNOWN"),
    RequestIdReused: StatusRow(StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"),
    RuleUnknown: StatusRow(StatusCode.NOT_FOUND, "RULE_UNKNOWN"),
    RulesFull: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "RULES_FULL"),
    ShadowNeedless: StatusRow(StatusCode.FAILED_PRECONDITION, "SHADOW_NEEDLESS"),
    StoreUnavailable: StatusRow(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"),
    StreamBroken: StatusRow(StatusCode.UNAVAILABLE, "STREAM_BROKEN"),
    TargetUnreachable: StatusRow(StatusCode.FAILED_PRECONDITION, "TARGET_UNREACHABLE"),
    TooManyExamples: StatusRow(StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_EXAMPLES"),
    UpstreamFailed: StatusRow(StatusCode.UNAVAILABLE, "UPSTREAM_FAILED"),
    UpstreamRejected: StatusRow(StatusCode.INVALID_ARGUMENT, "UPSTREAM_REJECTED"),
    VersionConflict: StatusRow(StatusCode.ABORTED, "VERSION_CONFLICT"),
}
