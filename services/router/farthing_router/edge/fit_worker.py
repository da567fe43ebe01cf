"""The process in which a calibration is fitted: reads what is to be fitted from its standard input, writes what came of it to its standard
output. Run by `calibration/fits.py`, whose frames it reads: the job, then messages of examples, at last an empty one.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import orjson
from farthing.router.v1 import router_pb2
from farthing_core.errors import FarthingError

from farthing_router.calibration.choosing import opened
from farthing_router.calibration.examples import Example
from farthing_router.calibration.reporting import priced, run
from farthing_router.edge.calibration_messages import example_of, fit_spec
from farthing_router.pricing.prices import Price, PriceUnknown

_NICENESS = 10


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be fitted: a CalibrationSpec as bytes, and the prices of the moment by model."""

    spec: bytes
    prices: Mapping[str, Price]

    def frame(self) -> bytes:
        """As the worker's first frame: it runs the same code, and nobody else writes to it."""
        return pickle.dumps(self)


def work(frames: Iterator[bytes]) -> tuple[Any, bytes]:
    """The report and the artefact. Raises what is wrong with the examples, and what the fit raises."""
    job: Job = pickle.loads(next(frames))
    spec = router_pb2.CalibrationSpec.FromString(job.spec)
    examples: list[Example] = []
    for frame in frames:
        for each in router_pb2.CalibrateCascadeRequest.Examples.FromString(frame).examples:
            examples.append(example_of(each, number=len(examples)))
    wanted, notes = fit_spec(spec), []
    models = wanted.opening + wanted.strong if wanted.opening else tuple(job.prices)
    examples, reckoned = priced(examples, models, lambda *call: _cost(job.prices, *call))
    if reckoned:
        notes.append(f"the cost of {reckoned} answers was reckoned from tokens at today's prices")
    if not wanted.opening:
        wanted, note = opened([_among(each, models) for each in examples], wanted, seed=spec.seed)
        notes.append(note)
    return run(examples, wanted, seed=spec.seed, notes=notes)


def _among(each: Example, models: tuple[str, ...]) -> Example:
    kept = {model: answer for model, answer in each.answers.items() if model in models}
    return Example(each.key, each.prompt, each.task, kept)


def _cost(prices: Mapping[str, Price], model: str, input_tokens: int, output_tokens: int) -> int:
    price = prices.get(model)
    if price is None:
        raise PriceUnknown(model=model)
    return price.text(input_tokens, output_tokens)


def answer_of(frames: Iterator[bytes]) -> bytes:
    """What came of the work, as JSON: the report and the artefact, or a named failure with its facts, or the place of a bug."""
    try:
        report, policy = work(frames)
        return orjson.dumps({"report": asdict(report), "policy": policy.decode()})
    except FarthingError as error:
        return orjson.dumps({"failure": type(error).__name__, "message": error.message, "facts": error.facts})
    except ImportError as error:
        return orjson.dumps({"broken": f"{error.name} is not installed; install farthing-router[calibrate]"})
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return orjson.dumps({"broken": f"{type(error).__name__} in {os.path.basename(place.filename)}:{place.lineno}"})


def frames_of(source: BinaryIO) -> Iterator[bytes]:
    """Frames until the empty one. A source that ends before it raises EOFError: whoever wrote has gone."""
    while True:
        head = source.read(4)
        if len(head) < 4:
            raise EOFError
        length = int.from_bytes(head, "big")
        if not length:
            return
        frame = source.read(length)
        if len(frame) < length:
            raise EOFError
        yield frame


if __name__ == "__main__":
    os.nice(_NICENESS)
    sys.stdout.buffer.write(answer_of(frames_of(sys.stdin.buffer)))
