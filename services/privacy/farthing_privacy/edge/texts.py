"""RPCs on texts: masking, and putting originals back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from farthing.privacy.v1 import privacy_pb2

from farthing_privacy.masking import mask, unmask
from farthing_privacy.spans import Kind

_Result = TypeVar("_Result")
_KINDS = {privacy_pb2.MaskKind.Value(f"MASK_KIND_{kind.name}"): kind for kind in Kind}
_KIND_VALUES = {kind: value for value, kind in _KINDS.items()}


class TextRpcs:
    """Masking."""

    def __init__(self, *, executor: Executor, inline_characters_max: int) -> None:
        self._executor = executor
        self._inline_characters_max = inline_characters_max

    async def MaskText(self, request: Any, context: Any) -> Any:
        """Masks texts."""
        texts, kinds = list(request.texts), [_KINDS[kind] for kind in request.kinds]
        masked = await self._run(lambda: mask(texts, kinds=kinds), texts)
        spans = [
            privacy_pb2.MaskedSpan(mask_token=piece.mask_token, original=piece.original, kind=_KIND_VALUES[piece.kind])
            for piece in masked.replaced
        ]
        return privacy_pb2.MaskTextResponse(texts=masked.texts, spans=spans)

    async def UnmaskText(self, request: Any, context: Any) -> Any:
        """Puts originals back."""
        texts, originals = list(request.texts), {span.mask_token: span.original for span in request.spans}
        return privacy_pb2.UnmaskTextResponse(texts=await self._run(lambda: unmask(texts, originals=originals), texts))

    async def _run(self, work: Callable[[], _Result], texts: Sequence[str]) -> _Result:
        """Small texts at once, large ones in a worker thread, so that they do not hold up the rest."""
        if sum(map(len, texts)) <= self._inline_characters_max:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
