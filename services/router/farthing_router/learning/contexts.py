"""What the choice of a model may depend on: a few bounded numbers about a prompt, and a projection of its embedding."""

from __future__ import annotations

import re
from functools import cache

import numpy as np

from farthing_router.calibration.answers import PROMPT_CHARACTERS_MAX, bounded
from farthing_router.calibration.forest import Floats
from farthing_router.learning.evidence import CONTEXT_SIZE, Context

_SEED = 20_260_101
_EMBEDDING_SIZE = 384
_CODE = re.compile(r"```|\b(?:def|class|import|function|return|SELECT)\b")
_ASKS = re.compile(r"\b(?:[Pp]rove|[Ee]xplain|[Ww]hy|[Hh]ow many|[Ff]ind|[Cc]ompute|[Dd]erive|[Ss]olve|[Cc]alculate)\b")
_OPTION = re.compile(r"^\(?[A-J][.):]\s", re.MULTILINE)
_FIGURES = 9
_PROJECTED = CONTEXT_SIZE - _FIGURES


def context_of(prompt: str, embedding: bytes = b"") -> Context:
    """The context of a prompt. `embedding` is its unit vector as little-endian float16, or empty."""
    text = bounded(prompt, PROMPT_CHARACTERS_MAX)
    size = max(1, len(text))
    figures = [
        1.0,
        (np.log1p(size) - 6.0) / 1.5,
        20 * sum(map(text.count, "0123456789")) / size - 0.5,
        20 * sum(map(text.count, "=+*/^\\<>{}")) / size - 0.5,
        1.0 if _CODE.search(text) else -0.3,
        min(2.0, len(_OPTION.findall(text)) / 4) - 0.5,
        min(2.0, text.count("\n") / 10) - 0.5,
        min(2.0, text.count("?")) - 1.0,
        min(2.0, len(_ASKS.findall(text)) / 2) - 0.5,
    ]
    vector = np.frombuffer(embedding, dtype="<f2").astype(np.float64) if len(embedding) == 2 * _EMBEDDING_SIZE else None
    projected = np.zeros(_PROJECTED) if vector is None else vector @ _projection()
    return np.asarray(np.clip(np.concatenate([figures, projected]), -2.0, 2.0))


@cache
def _projection() -> Floats:
    """A fixed random projection: distances are kept as well as so few numbers can (Johnson and Lindenstrauss, 1984)."""
    return np.random.default_rng(_SEED).normal(size=(_EMBEDDING_SIZE, _PROJECTED))
