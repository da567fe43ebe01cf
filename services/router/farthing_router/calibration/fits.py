"""Fits run one at a time, in a process of their own: the event loop stays smooth, and a fit that is given up ends at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from farthing_core.errors import FarthingError

RESULT_BYTES_MAX = 64 * 2**20
_LENGTH_BYTES = 4
_GONE = (BrokenPipeError, ConnectionResetError)


class CalibrationBusy(FarthingError):
    """Another fit runs; one at a time."""

    def __init__(self) -> None:
        super().__init__("another calibration is being fitted; one at a time")
        self.retry_after_s = 10.0


class TooManyExamples(FarthingError):
    """More examples, or longer ones, than a fit takes."""

    def __init__(self, *, examples_max: int, bytes_max: int) -> None:
        text = f"a calibration takes at most {examples_max} examples of {bytes_max} bytes together"
        super().__init__(text, examples_max=examples_max, bytes_max=bytes_max)


class FitFailed(FarthingError):
    """The process of a fit ended without an answer, or with an unexpected error; `problem` names it and the place in the code."""

    def __init__(self, *, problem: str) -> None:
        super().__init__(f"the fit failed: {problem}", problem=problem)


@dataclass(frozen=True, slots=True)
class FitLimits:
    """How much a fit takes in."""

    examples_max: int
    bytes_max: int


class Fit:
    """A fit under way."""

    def __init__(self, process: asyncio.subprocess.Process, *, limits: FitLimits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self._limits = limits
        self.examples = 0
        self._bytes = 0

    async def bring(self, frame: bytes, *, examples: int) -> None:
        """Hands on a frame with so many examples. Raises TooManyExamples. A process that has ended says why in `result`."""
        self.examples += examples
        self._bytes += len(frame)
        if self.examples > self._limits.examples_max or self._bytes > self._limits.bytes_max:
            raise TooManyExamples(examples_max=self._limits.examples_max, bytes_max=self._limits.bytes_max)
        await self._send(frame)

    async def result(self) -> bytes:
        """What came of it, once all is brought. Raises FitFailed."""
        await self._send(b"")
        with suppress(*_GONE):
            self._in.close()
        said = bytearray()
        while chunk := await self._out.read(2**16):
            said += chunk
            if len(said) > RESULT_BYTES_MAX:
                raise FitFailed(problem="its policy is too large")
        if await self._process.wait() != 0 or not said:
            raise FitFailed(problem=f"the process ended with {self._process.returncode}")
        return bytes(said)

    async def _send(self, frame: bytes) -> None:
        with suppress(*_GONE):
            self._in.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)
            await self._in.drain()


class Fits:
    """Starts fits. `command` is that of a process which reads frames, each after its length, until an empty one, and writes its
    answer."""

    def __init__(self, command: Sequence[str], *, limits: FitLimits) -> None:
        self._command = tuple(command)
        self._limits = limits
        self._busy = False

    @asynccontextmanager
    async def begun(self, job: bytes) -> AsyncIterator[Fit]:
        """A fit of which `job` is the first frame; its process ends with the block, whatever happens. Raises CalibrationBusy."""
        if self._busy:
            raise CalibrationBusy
        self._busy = True
        try:
            pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, stderr=nowhere)
            try:
                fit = Fit(process, limits=self._limits)
                await fit.bring(job, examples=0)
                yield fit
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        finally:
            self._busy = False
