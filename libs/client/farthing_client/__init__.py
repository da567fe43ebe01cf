"""The public Python client of Farthing: `Farthing` for asyncio, `FarthingSync` for everything else.

Both speak gRPC to a running suite, give answers with their receipts as typed values, and raise one family of exceptions.
Amounts are whole nanodollars; `usd` turns them into exact decimals.
"""

from farthing_client.answers import Completion, Estimate, Piece, Usage
from farthing_client.asynchronous import AnswerStream, Farthing
from farthing_client.failures import (
    BudgetExhausted,
    FarthingFailure,
    NotAllowed,
    RateLimited,
    RequestInvalid,
    StreamBroken,
    TimedOut,
    Unreachable,
)
from farthing_client.receipts import Attempt, Receipt, Step, usd
from farthing_client.requests import Message, Options
from farthing_client.synchronous import AnswerStreamSync, FarthingSync

__all__ = [
    "AnswerStream",
    "AnswerStreamSync",
    "Attempt",
    "BudgetExhausted",
    "Completion",
    "Estimate",
    "Farthing",
    "FarthingFailure",
    "FarthingSync",
    "Message",
    "NotAllowed",
    "Options",
    "Piece",
    "RateLimited",
    "Receipt",
    "RequestInvalid",
    "Step",
    "StreamBroken",
    "TimedOut",
    "Unreachable",
    "Usage",
    "usd",
]
