"""API keys, tokens and private keys, recognised by their published forms."""

from __future__ import annotations

import re
from collections.abc import Iterator

from farthing_privacy.spans import Kind, Span

# A key begins where no character of a key stands before it; `\n` in JSON text is such a place.
_START = r"(?:(?<![A-Za-z0-9_\-])|(?<=\\[nrtbf]))"
_FORMS = (
    r"sk-[A-Za-z0-9_\-]{20,}+",  # OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek
    r"AIza[A-Za-z0-9_\-]{30,}+",  # Google
    r"ya29\.[A-Za-z0-9_\-]{20,}+",  # Google OAuth
    r"(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{16}(?![A-Za-z0-9])",  # AWS
    r"gh[pousr]_[A-Za-z0-9]{30,}+|github_pat_[A-Za-z0-9_]{20,}+",
    r"glpat-[A-Za-z0-9_\-]{20,}+",
    r"xox[abceoprs]-[A-Za-z0-9\-]{10,}+|xapp-[A-Za-z0-9\-]{20,}+",  # Slack
    r"[spr]k_(?:live|test)_[A-Za-z0-9]{10,}+|whsec_[A-Za-z0-9+/=]{20,}+",  # Stripe
    r"hf_[A-Za-z0-9]{20,}+",
    r"gsk_[A-Za-z0-9]{20,}+|xai-[A-Za-z0-9]{20,}+|pplx-[A-Za-z0-9]{20,}+|nvapi-[A-Za-z0-9_\-]{20,}+|r8_[A-Za-z0-9]{30,}+",
    r"fw_[A-Za-z0-9]{20,}+|tgp_v1_[A-Za-z0-9_\-]{20,}+|npm_[A-Za-z0-9]{30,}+|pypi-[A-Za-z0-9_\-]{30,}+|dop_v1_[a-f0-9]{40,}+",
    r"SG\.[A-Za-z0-9_\-]{16,}+\.[A-Za-z0-9_\-]{16,}+",  # SendGrid
    r"eyJ[A-Za-z0-9_\-]{8,}+\.eyJ[A-Za-z0-9_\-]{4,}+\.[A-Za-z0-9_\-]{5,}+",  # JSON Web Token
)
_KEY = re.compile(f"{_START}(?:{'|'.join(_FORMS)})")
_PREFIXES = (
    *(
        "sk-",
        "AIza",
        "ya29.",
        "AKIA",
        "ASIA",
        "ABIA",
        "ACCA",
        "AROA",
        "AIDA",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
    ),
    *(
        "glpat-",
        "xox",
        "xapp-",
        "k_live_",
        "k_test_",
        "whsec_",
        "hf_",
        "gsk_",
        "xai-",
        "pplx-",
        "nvapi-",
        "r8_",
        "fw_",
        "tgp_v1_",
    ),
    *("npm_", "pypi-", "dop_v1_", "SG.", "eyJ"),
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[^-]*+(?:-(?!----)[^-]*+)*+-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
)
# Providers whose keys have no prefix (Cohere, Mistral, Azure, AWS secrets …): what a name for a secret is given.
_NAMED = re.compile(
    r"(?:api[ _\-]?key|apikey|access[ _\-]?key|secret|token|passwd|password|bearer|cohere|mistral|azure)"
    r"(?:[A-Za-z_\-]{0,24}|[A-Za-z ]{0,24})(?:\\?[\"'`])?\s{0,3}(?:[:=]|=>|\bis\b|\s)\s{0,3}(?:\\?[\"'`])?"
    r"(?P<value>[A-Za-z0-9_\-+/.~]{24,200}+={0,2})(?![A-Za-z0-9_\-+/])",
    re.IGNORECASE,
)
_WORDS_OR_PATH = re.compile(r"[a-z]{10}|^[/.~]|//|[.][A-Za-z]{1,4}$|[.].*[.]")
_NAMES = ("key", "token", "secret", "passw", "bearer", "cohere", "mistral", "azure")


def secrets(text: str) -> Iterator[Span]:
    """API keys and private keys in a text. Linear time."""
    if any(prefix in text for prefix in _PREFIXES):
        for found in _KEY.finditer(text):
            if _mixed(found.group()):
                yield Span(found.start(), found.end(), Kind.API_KEY)
    if "-----BEGIN " in text:
        for found in _PRIVATE_KEY.finditer(text):
            yield Span(found.start(), found.end(), Kind.API_KEY)
    lowered = text.lower()
    if any(name in lowered for name in _NAMES):
        for found in _NAMED.finditer(text):
            if _random(found["value"]):
                yield Span(found.start("value"), found.end("value"), Kind.API_KEY)


def _mixed(key: str) -> bool:
    """Whether a key holds digits or capitals, as random ones do and `sk-some-css-class-of-ours` does not."""
    tail = key[4:]
    return tail.lower() != tail or any(character.isdigit() for character in tail)


def _random(value: str) -> bool:
    """Whether a value looks random: letters and digits mixed, no words, no path, no file."""
    digits = sum(character.isdigit() for character in value)
    cases = (value.lower() != value) + (value.upper() != value)
    return digits + cases >= 2 and 0 < digits < len(value) and not _WORDS_OR_PATH.search(value)
