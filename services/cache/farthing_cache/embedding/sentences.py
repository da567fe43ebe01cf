"""Any model of sentence-transformers, by name or local path, on any device: the extra `farthing-cache[sentence-transformers]`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from farthing_cache.embedding.reading import Reading, steps_of, without_tokens

_CHARACTERS_PER_TOKEN_MAX = 32
_CHARACTERS_MAX = 1_000_000
_SAMPLED = 64


class SentenceTransformerModel:
    """The Model. Its fingerprint holds a sample of its weights, so that a folder with other weights is another model."""

    def __init__(self, model: Any, *, name: str) -> None:
        self._model = model
        self._tokens_max: int = model.max_seq_length or 512
        self.fingerprint = f"sentence-transformers:{name}@{_sampled(model)}"

    @classmethod
    def load(cls, name: str, *, device: str = "", threads: int = 1) -> SentenceTransformerModel:
        """The model; on the best device there is where none is named. Raises ImportError without the extra, OSError without the model."""
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        return cls(SentenceTransformer(name, device=device or None), name=name)

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Readings. Models whose tokens have marks at both ends show them, others only their vectors."""
        longest = min(self._tokens_max * _CHARACTERS_PER_TOKEN_MAX, _CHARACTERS_MAX)
        cut = [_readable(text, longest) for text in texts]
        outputs = self._model.encode(cut, output_value=None, convert_to_numpy=False, show_progress_bar=False, batch_size=32)
        ends = set(self._model.tokenizer.all_special_ids)
        return [self._reading(output, ends, beyond=len(text) > longest) for output, text in zip(outputs, texts, strict=True)]

    def _reading(self, output: Any, ends: set[int], *, beyond: bool) -> Reading:
        vector = output["sentence_embedding"].float().cpu().numpy()
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        ids = output["input_ids"].cpu().numpy()[output["attention_mask"].cpu().numpy() > 0]
        truncated = beyond or len(ids) >= self._tokens_max
        if "token_embeddings" not in output:
            return without_tokens(vector, truncated=truncated)
        states = output["token_embeddings"].float().cpu().numpy()[: len(ids)]
        words = np.array([token not in ends for token in ids.tolist()], dtype=bool)
        return Reading(vector, ids[words].astype(np.int32), steps_of(states[words]), truncated)


def _readable(text: str, characters_max: int) -> str:
    return text[:characters_max].encode(errors="replace").decode()


def _sampled(model: Any) -> str:
    """A hash of a few numbers of every weight."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        flat = weight.flatten()
        step = max(1, flat.numel() // _SAMPLED)
        digest.update(name.encode() + flat[::step][:_SAMPLED].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
