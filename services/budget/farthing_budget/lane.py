"""The lane: concurrent operations share one transaction, each with a verdict of its own."""

from __future__ import annotations

from farthing_runtime.batching import Batcher

from farthing_budget.operations import Operation, Outcome

Verdict = Outcome | BaseException
"""What an operation came to, or why it was refused."""
Lane = Batcher[Operation, Outcome]
"""Commits batches of operations in order, one batch at a time."""
