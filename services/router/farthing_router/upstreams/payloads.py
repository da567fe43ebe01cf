"""Usage as providers report it, read into tokens by kind. A count of 0 is a report; a count that is not there is None.

Shapes: OpenAI chat completions, responses and images, and everybody who speaks that wire (DeepSeek, xAI, Mistral, Groq …); Anthropic
messages; Gemini generateContent and Live; Cohere v1 and v2; Bedrock Converse, and what InvokeModel gives for Claude, Nova, Titan, Llama
and Cohere. Where a provider counts cached prompt tokens beside its input, they are added, so that `input_tokens` is the whole prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from farthing_router.pricing.tokens import Tokens, TokensSource, service_tier

_Payload = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a provider said. `derived` marks totals computed from other figures of the report; `tier` is None where it names none."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    cached_audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    cached_image_input_tokens: int | None = None
    image_output_tokens: int | None = None
    images: int | None = None
    derived: bool = False
    tier: str | None = None

    def then(self, later: Reported) -> Reported:
        """This with what a later event of the same stream says: counts are running totals, so the later one stands."""
        said = {each.name: value for each in fields(later) if (value := getattr(later, each.name)) is not None}
        return replace(self, **{**said, "derived": self.derived or later.derived})

    def charged_tier(self, asked: str) -> str:
        """The tier of service to charge: what the provider says, or what it was asked for where it does not say.

        Batches are charged as such whatever the answers in them say of themselves.
        """
        return asked if self.tier is None or asked == "batch" else self.tier

    def tokens(self, *, input_estimate: int, output_estimate: int) -> Tokens:
        """The tokens to charge: what was reported, and the estimates only for a side that was not."""
        whole = self.input_tokens is not None and self.output_tokens is not None
        reported = TokensSource.DERIVED if self.derived else TokensSource.REPORTED
        return Tokens(
            input_tokens=input_estimate if self.input_tokens is None else self.input_tokens,
            output_tokens=output_estimate if self.output_tokens is None else self.output_tokens,
            **{name: getattr(self, name) or 0 for name in _PARTS},
            source=reported if whole else TokensSource.ESTIMATED,
        )


_PARTS = tuple(each.name for each in fields(Reported) if each.name not in ("input_tokens", "output_tokens", "derived", "tier"))


def read_usage(body: _Payload) -> Reported | None:
    """The usage in a response, or in an event of a stream; None where it reports none."""
    if isinstance(message := body.get("message"), Mapping) and "usage" in message:  # Anthropic's first event of a stream
        body = message
    for name, read in _PLACES:
        found = body.get(name)
        if isinstance(found, Mapping) and found:
            said = read(found, body)
            return replace(said, tier=_tier(found, body)) if _says_anything(said) else None
    said = _bedrock_text(body)
    return said if _says_anything(said) else None


def count(value: Any) -> int | None:
    """A count; None for what is none. Some report whole numbers as floats, some as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 2**53 and value == int(value) else None


def _says_anything(said: Reported) -> bool:
    return said != Reported()


def _usage(found: _Payload, body: _Payload) -> Reported:
    """What stands under `usage`: the names of the counts tell whose shape it is."""
    if "prompt_tokens" in found or "completion_tokens" in found:
        return _openai_chat(found)
    if "inputTokens" in found or "outputTokens" in found:
        return _bedrock(found)
    if "billed_units" in found or "tokens" in found:
        return _cohere(found)
    if any(name.startswith(("cache_creation", "cache_read")) for name in found):
        return _anthropic(found)
    return _openai_responses(found, body)


def _openai_chat(found: _Payload) -> Reported:
    prompt, completion = _object(found, "prompt_tokens_details"), _object(found, "completion_tokens_details")
    sent, said, total = (
        count(found.get("prompt_tokens")),
        count(found.get("completion_tokens")),
        count(found.get("total_tokens")),
    )
    reasoning = count(completion.get("reasoning_tokens"))
    derived = False
    if sent is not None and total is not None and total > sent + (said or 0):
        # Some count their reasoning in the total alone.
        hidden = total - sent - (said or 0)
        reasoning = max(reasoning or 0, hidden) if said is not None else reasoning
        said, derived = total - sent, True
    cached = count(prompt.get("cached_tokens"))
    of_cached = _object(prompt, "cached_tokens_details")
    return Reported(
        input_tokens=sent,
        output_tokens=said,
        cached_input_tokens=count(found.get("prompt_cache_hit_tokens")) if cached is None else cached,
        reasoning_tokens=reasoning,
        cache_write_5m_tokens=_first(count(prompt.get("cache_write_tokens")), count(prompt.get("cache_creation_tokens"))),
        audio_input_tokens=count(prompt.get("audio_tokens")),
        audio_output_tokens=count(completion.get("audio_tokens")),
        cached_audio_input_tokens=count(of_cached.get("audio_tokens")),
        image_input_tokens=count(prompt.get("image_tokens")),
        cached_image_input_tokens=count(of_cached.get("image_tokens")),
        image_output_tokens=count(completion.get("image_tokens")),
        derived=derived,
    )


def _openai_responses(found: _Payload, body: _Payload) -> Reported:
    sent, said = _object(found, "input_tokens_details"), _object(found, "output_tokens_details")
    if not sent:
        sent = _object(found, "input_token_details")  # the realtime API says it in the singular
    if not said:
        said = _object(found, "output_token_details")
    of_cached = _object(sent, "cached_tokens_details")
    images = body.get("data")
    made = len(images) if isinstance(images, list) and "created" in body else None
    tokens = count(found.get("output_tokens"))
    # The images API bills all its answer as images where it does not split it.
    image_output = count(said.get("image_tokens"))
    return Reported(
        input_tokens=count(found.get("input_tokens")),
        output_tokens=tokens,
        cached_input_tokens=count(sent.get("cached_tokens")),
        reasoning_tokens=_first(count(said.get("reasoning_tokens")), count(said.get("thinking_tokens"))),
        cache_write_5m_tokens=count(sent.get("cache_write_tokens")),
        audio_input_tokens=count(sent.get("audio_tokens")),
        audio_output_tokens=count(said.get("audio_tokens")),
        cached_audio_input_tokens=count(of_cached.get("audio_tokens")),
        image_input_tokens=count(sent.get("image_tokens")),
        cached_image_input_tokens=count(of_cached.get("image_tokens")),
        image_output_tokens=tokens if made and image_output is None else image_output,
        images=made,
    )


def _anthropic(found: _Payload) -> Reported:
    written, read = count(found.get("cache_creation_input_tokens")), count(found.get("cache_read_input_tokens"))
    split = _object(found, "cache_creation")
    for_5m, for_1h = count(split.get("ephemeral_5m_input_tokens")), count(split.get("ephemeral_1h_input_tokens"))
    if written is None and (for_5m is not None or for_1h is not None):
        written = (for_5m or 0) + (for_1h or 0)
    plain = count(found.get("input_tokens"))
    return Reported(
        input_tokens=None if plain is None else plain + (written or 0) + (read or 0),
        output_tokens=count(found.get("output_tokens")),
        cached_input_tokens=read,
        reasoning_tokens=count(_object(found, "output_tokens_details").get("thinking_tokens")),
        cache_write_5m_tokens=None if written is None else max(0, written - (for_1h or 0)),
        cache_write_1h_tokens=for_1h,
    )


def _gemini(found: _Payload, body: _Payload) -> Reported:
    prompt, tools = count(found.get("promptTokenCount")), count(found.get("toolUsePromptTokenCount"))
    said = _first(count(found.get("candidatesTokenCount")), count(found.get("responseTokenCount")))
    thoughts, total = count(found.get("thoughtsTokenCount")), count(found.get("totalTokenCount"))
    derived = said is None and total is not None and prompt is not None
    if derived:
        said = max(0, (total or 0) - (prompt or 0) - (tools or 0) - (thoughts or 0))
    sent_by = _by_modality(found, "promptTokensDetails")
    cached_by = _by_modality(found, "cacheTokensDetails")
    said_by = _by_modality(found, "candidatesTokensDetails") or _by_modality(found, "responseTokensDetails")
    return Reported(
        input_tokens=None if prompt is None else prompt + (tools or 0),
        output_tokens=None if said is None else said + (thoughts or 0),
        cached_input_tokens=count(found.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
        audio_input_tokens=sent_by.get("AUDIO"),
        audio_output_tokens=said_by.get("AUDIO"),
        cached_audio_input_tokens=cached_by.get("AUDIO"),
        image_input_tokens=sent_by.get("IMAGE"),
        cached_image_input_tokens=cached_by.get("IMAGE"),
        image_output_tokens=said_by.get("IMAGE"),
        derived=derived,
    )


def _cohere(found: _Payload) -> Reported:
    billed, counted = _object(found, "billed_units"), _object(found, "tokens")
    sent = _first(count(billed.get("input_tokens")), count(counted.get("input_tokens")))
    cached = count(found.get("cached_tokens"))
    return Reported(
        input_tokens=sent,
        output_tokens=_first(count(billed.get("output_tokens")), count(counted.get("output_tokens"))),
        # It counts what it read from its cache among all tokens, which are more than the billed ones.
        cached_input_tokens=None if cached is None else min(cached, sent or 0),
    )


def _bedrock(found: _Payload) -> Reported:
    read = _first(count(found.get("cacheReadInputTokens")), count(found.get("cacheReadInputTokenCount")))
    written = _first(count(found.get("cacheWriteInputTokens")), count(found.get("cacheWriteInputTokenCount")))
    plain = _first(count(found.get("inputTokens")), count(found.get("inputTokenCount")))
    details = found.get("cacheDetails")
    by_ttl = [each for each in details if isinstance(each, Mapping)] if isinstance(details, list) else []
    for_1h = sum(count(each.get("inputTokens")) or 0 for each in by_ttl if each.get("ttl") == "1h") if by_ttl else None
    return Reported(
        input_tokens=None if plain is None else plain + (read or 0) + (written or 0),
        output_tokens=_first(count(found.get("outputTokens")), count(found.get("outputTokenCount"))),
        cached_input_tokens=read,
        cache_write_5m_tokens=None if written is None else max(0, written - (for_1h or 0)),
        cache_write_1h_tokens=for_1h,
    )


def _bedrock_text(body: _Payload) -> Reported:
    """InvokeModel of Titan and of Llama: the counts stand in the body itself."""
    if "inputTextTokenCount" in body:
        results = body.get("results")
        counts = (
            [count(each.get("tokenCount")) for each in results if isinstance(each, Mapping)]
            if isinstance(results, list)
            else []
        )
        said = sum(each or 0 for each in counts) if counts else count(body.get("totalOutputTextTokenCount"))
        return Reported(count(body.get("inputTextTokenCount")), said)
    return Reported(count(body.get("prompt_token_count")), count(body.get("generation_token_count")))


def _tier(found: _Payload, body: _Payload) -> str | None:
    """The tier of service, wherever the provider names it."""
    if found.get("speed") == "fast":
        return "fast"
    aside = body.get("serviceTier")
    named = (
        found.get("service_tier")
        or body.get("service_tier")
        or found.get("serviceTier")
        or (aside.get("type") if isinstance(aside, Mapping) else aside)
        or str(found.get("trafficType") or "").removeprefix("ON_DEMAND_")
    )
    if not isinstance(named, str) or not named or named == "TRAFFIC_TYPE_UNSPECIFIED":
        return None
    return service_tier(named.removeprefix("SERVICE_TIER_"))


def _by_modality(found: _Payload, name: str) -> dict[str, int]:
    details = found.get(name)
    sums: dict[str, int] = {}
    for each in details if isinstance(details, list) else ():
        if isinstance(each, Mapping) and (tokens := count(each.get("tokenCount"))) is not None:
            modality = str(each.get("modality"))
            sums[modality] = sums.get(modality, 0) + tokens
    return sums


def _object(found: _Payload, name: str) -> _Payload:
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


_PLACES: tuple[tuple[str, Callable[[_Payload, _Payload], Reported]], ...] = (
    ("usage", _usage),
    ("usageMetadata", _gemini),
    ("amazon-bedrock-invocationMetrics", lambda found, _: _bedrock(found)),
    ("meta", lambda found, _: _cohere(found)),
)
