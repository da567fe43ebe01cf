"""Whatever a text holds, masking it and unmasking it gives it back."""

from __future__ import annotations

from farthing_privacy.masking import mask, unmask
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = st.sampled_from(
    ["bob@example.com", "[EMAIL_1]", "[EMAIL_2", "EMAIL_1]", "[", "]", "_1]", "+1 (415) 555-2671", "4111 1111 1111 1111", "192.168.0.1",
     "DE89 3704 0044 0532 0130 00", "sk" "-abcdefghijklmnopqrstuvwx1234", "::1",
     "[API_KEY_1]", "bob [at] example [dot] com", "%40", "\\n", "＠", " ",
     "call ", "2001:db8::1", "[PHONE_1]", "a", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"]
)  # fmt: skip
TEXTS = st.lists(st.lists(SEEDS | st.text(max_size=6), max_size=10).map("".join), max_size=4)


@given(TEXTS)
@settings(max_examples=400, deadline=None)
def test_unmasking_what_was_masked_restores_every_text(texts: list[str]) -> None:
    masked = mask(texts)
    assert unmask(masked.texts or texts, originals={piece.mask_token: piece.original for piece in masked.replaced}) == texts


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_equal_tokens_stand_for_equal_pieces_and_no_token_was_there_before(texts: list[str]) -> None:
    replaced = mask(texts).replaced
    assert len({piece.mask_token for piece in replaced}) == len(replaced)
    assert len({(piece.kind, piece.original) for piece in replaced}) == len(replaced)
    assert not any(piece.mask_token in text for piece in replaced for text in texts)
