from __future__ import annotations

import time

import pytest
from farthing_core.errors import FieldInvalid
from farthing_privacy.masking import TOKEN_CHARACTERS_MAX, mask, unmask
from farthing_privacy.spans import Kind

# Examples are made up. Keys are written in two halves so that scanners of repositories stay quiet.
PERSONAL = [
    ("(743 906 5407)", Kind.PHONE),
    ("联系人：fe80::2f80:7701。", Kind.IP),
    ("AKIALJOFPBDMSGBXQMDB", Kind.API_KEY),
    ("123-456-7890", Kind.PHONE),
    ("415-5552671", Kind.PHONE),
    ("(415)5552671", Kind.PHONE),
    ("1300 975 707", Kind.PHONE),
    ("555-2671 is my new number", Kind.PHONE),
    ("+44 (0) 20 7946 0958", Kind.PHONE),
    ("Reach me on my new number at 4155552671", Kind.PHONE),
    ('{\\"api_key\\": \\"abcdEFGH1234ijklMNOP5678qrst\\"}', Kind.API_KEY),
    ("Call me at 4155552671 please", Kind.PHONE),
    ("(415) 555-2671", Kind.PHONE),
    ("415-555-2671", Kind.PHONE),
    ("415.555.2671", Kind.PHONE),
    ("my number: +1 (415) 555-2671.", Kind.PHONE),
    ("+44 20 7946 0958", Kind.PHONE),
    ("+14155552671", Kind.PHONE),
    ("+49 (0)30 1234567", Kind.PHONE),
    ("Ring 030/1234567", Kind.PHONE),
    ("06 12 34 56 78", Kind.PHONE),
    ("06.12.34.56.78", Kind.PHONE),
    ("020 7946 0958", Kind.PHONE),
    ("07911 123456", Kind.PHONE),
    ("(11) 91234-5678", Kind.PHONE),
    ("001-415-555-2671x8473", Kind.PHONE),
    ("1-800-555-0199", Kind.PHONE),
    ("415-555-2671 ext. 12", Kind.PHONE),
    ("phone 555-2671", Kind.PHONE),
    ("+91 98765 43210", Kind.PHONE),
    ("我的电话是13800138000。", Kind.PHONE),
    ("＋１ ４１５ ５５５ ２６７１", Kind.PHONE),
    ("tel:+1-202-555-0147", Kind.PHONE),
    ("%2B14155552671", Kind.PHONE),
    ("03-1234-5678", Kind.PHONE),
    ('{"phone": "4155552671"}', Kind.PHONE),
    ("4111 1111 1111 1111", Kind.CARD),
    ("4111111111111111", Kind.CARD),
    ("12 4111-1111-1111-1111", Kind.CARD),
    ("3782 822463 10005", Kind.CARD),
    ("5500 0000 0000 0004", Kind.CARD),
    ("卡号4111111111111111谢谢", Kind.CARD),
    ("４１１１ １１１１ １１１１ １１１１", Kind.CARD),
    ("6011000990139424", Kind.CARD),
    ("30569309025904", Kind.CARD),
    ("DE89 3704 0044 0532 0130 00 AND", Kind.IBAN),
    ("GB82WEST12345698765432", Kind.IBAN),
    ("nl91abna0417164300", Kind.IBAN),
    ("FR14 2004 1010 0505 0001 3M02 606.", Kind.IBAN),
    ("MT84MALT011000012345MTLCAST001S", Kind.IBAN),
    ("Server 192.168.0.1 down", Kind.IP),
    ("http://10.0.0.1:8080/x", Kind.IP),
    ("ping 8.8.8.8", Kind.IP),
    ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", Kind.IP),
    ("fe80::1ff:fe23:4567:890a%eth0", Kind.IP),
    ("host ::1 is", Kind.IP),
    ("[2001:db8::1]:443", Kind.IP),
    ("::ffff:192.0.2.128", Kind.IP),
    ("１９２.１６８.０.１", Kind.IP),
    ("bob@example.com", Kind.EMAIL),
    ("_bob@example.com_", Kind.EMAIL),
    ("'bob.smith+tag@mail.example.co.uk'", Kind.EMAIL),
    ("jürgen@müller.de", Kind.EMAIL),
    ("bob＠example．com", Kind.EMAIL),
    ("请联系bob@example.com谢谢", Kind.EMAIL),
    ("bob%40example.com", Kind.EMAIL),
    ("?email=bob%40example.com&x=1", Kind.EMAIL),
    ("to%20john%2Edoe%40example%2Ecom", Kind.EMAIL),
    ("bob [at] example [dot] com", Kind.EMAIL),
    ("bob(at)example.com", Kind.EMAIL),
    ("bob at example dot com", Kind.EMAIL),
    ("bob@example[.]com", Kind.EMAIL),
    ("bob&#64;example.com", Kind.EMAIL),
    ('{"t":"hi\\nbob@example.com"}', Kind.EMAIL),
    ("sk-abcdefghijklmnopqrstuvwx12345678", Kind.API_KEY),
    ("key sk-proj-AbC123_-xyzAbC123_-xyzAbC123", Kind.API_KEY),
    ("sk-ant-api03-AbC123_-xyzAbC123_-xyzAbC123AA", Kind.API_KEY),
    ("AIzaSyA1234567890abcdefghijklmnopqrstuv", Kind.API_KEY),
    ("AKIAIOSFODNN7EXAMPLE", Kind.API_KEY),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", Kind.API_KEY),
    ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz", Kind.API_KEY),
    ("xoxb-123456789012-abcdefGHIJKL", Kind.API_KEY),
    ("sk_live_abcdefghijklmnop1234", Kind.API_KEY),
    ("hf_abcdefghijklmnopqrstuvwxyzABCDEFGH", Kind.API_KEY),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", Kind.API_KEY),
    ("COHERE_API_KEY=abcdEFGH1234ijklMNOP5678qrstUVWX9012", Kind.API_KEY),
    ("my mistral key is a1b2c3d4e5f6g7h8i9j0a1b2c3d4e5f6", Kind.API_KEY),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", Kind.API_KEY),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----", Kind.API_KEY),
    ("Authorization: Bearer abcdEFGH1234ijklMNOP5678qrst", Kind.API_KEY),
]
ORDINARY = [
    "54672792-5011-4761-a580-584416385524",
    "联系人：1004611935094。",
    "Cambridge, MA 02139-4307",
    "40.7127761 -74.0059741",
    "Mumbai Rajdhani Express The 12951/12952",
    "version 1.2.3.4 was released",
    "v1.2.3.4",
    "Chrome/120.0.0.0 Safari/537.36",
    "3.1.2.1 Overview of things",
    "2024-01-15 10:30:00",
    "2024-01-15 2024-02-15",
    "01/02/2024 10:15",
    "01-02-2024 10:30",
    "05.03.2024 - 07.03.2024",
    "1990-1995",
    "order 4155552671",
    "order number 415-555-2671",
    "ISBN 978-0-306-40615-7",
    "ISBN 0306406152",
    "1234567890",
    "12 13 14 15 16 17 18 19",
    "20 30 40 50 60",
    "3.14159265358979",
    "0.123456789",
    "1700000000",
    "1700000000000",
    "$1 234 567 890",
    "1,000,000,000",
    "4111111111111112",
    "DE89370400440532013001",
    "GB29 NWBK",
    "550e8400-e29b-41d4-a716-446655440000",
    "std::vector<int> a::b Ab::Cd",
    "x[1::2] and x[::1]",
    "12:30:45",
    "00:1A:2B:3C:4D:5E",
    "@property and @types/node",
    "icon@2x.png",
    "lodash@4.17.21",
    "user@localhost",
    "meet (at) noon",
    "risk-free task-based-approach-to-many-things-we-do",
    "sk-learn-is-a-nice-library-to-have",
    ".sk-some-very-long-css-class-name-here",
    "the token is a very long internationalization word",
    "3x + 12345678 = 5+12345678901",
    "page 100-2000",
    "SSN 123-45-6789",
    "tracking 357962501027",
    "192.168.0.256",
    "1.2.3",
    "SHA 9f86d081884c7d659a2feaf0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "He scored 200 300 400 points",
    "call_4155552671abc",
    "https://example.com/item/4155552671",
    "123 Main St, 10001-1234",
    "10 000 000 000",
    "between 1914-1918 and 1939-1945",
    "dot at dot",
]


@pytest.mark.parametrize(("text", "kind"), PERSONAL)
def test_personal_data_is_masked_as_what_it_is(text: str, kind: Kind) -> None:
    masked = mask([text])
    assert [piece.kind for piece in masked.replaced] == [kind]
    assert unmask(masked.texts, originals={piece.mask_token: piece.original for piece in masked.replaced}) == [text]


@pytest.mark.parametrize("text", ORDINARY)
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    assert mask([text]).replaced == []


def test_one_piece_has_one_token_throughout_a_request() -> None:
    masked = mask(["bob@example.com and ann@example.com", "ann@example.com"])
    assert masked.texts == ["[EMAIL_1] and [EMAIL_2]", "[EMAIL_2]"]


def test_a_token_that_a_text_holds_already_is_never_given_out() -> None:
    masked = mask(["[EMAIL_1] wrote to bob@example.com", "[EMAIL_2]"])
    assert masked.texts == ["[EMAIL_1] wrote to [EMAIL_3]", "[EMAIL_2]"]


def test_only_the_kinds_that_were_asked_for_are_masked() -> None:
    text = "bob@example.com at 192.168.0.1"
    assert mask([text], kinds=[Kind.IP]).texts == ["bob@example.com at [IP_1]"]


def test_nothing_to_mask_gives_nothing_back() -> None:
    masked = mask(["nothing", ""])
    assert (masked.texts, masked.replaced) == ([], [])


def test_tokens_are_short_and_unmasking_takes_exact_ones_alone() -> None:
    tokens = [piece.mask_token for piece in mask([f"bob{number}@example.com " for number in range(300)]).replaced]
    assert max(map(len, tokens)) <= TOKEN_CHARACTERS_MAX
    assert unmask(["[EMAIL_1] [Email_1] [EMAIL_10]"], originals={"[EMAIL_1]": "x"}) == ["x [Email_1] [EMAIL_10]"]


def test_an_original_that_looks_like_a_token_is_not_unmasked_again() -> None:
    assert unmask(["[EMAIL_1]"], originals={"[EMAIL_1]": "[EMAIL_2]", "[EMAIL_2]": "y"}) == ["[EMAIL_2]"]


def test_a_token_that_is_none_is_refused() -> None:
    with pytest.raises(FieldInvalid):
        unmask(["the"], originals={"the": "x"})


def test_overlapping_pieces_are_masked_as_one() -> None:
    masked = mask(["postgres://ann:secret1@192.168.0.1.example.com/x"])
    assert "secret1" not in masked.texts[0]
    assert "192.168" not in masked.texts[0]


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1 ",
        "@",
        "a@",
        "a.",
        "eyJ-",
        ":",
        "1:",
        "sk-",
        "-----BEGIN PRIVATE KEY-----",
        "-",
        "DE89 ",
        "%40",
        "%2E%40",
        "[at]",
        "a[dot]",
        "key ",
        "api key ",
        "key:",
        "a dot ",
        "+1",
        "(1)",
        "1.1.",
        "555-2671 ",
        "4111 ",
        "b.@",
        "[",
        "[A_",
        "bob@example.com ",
        "０",
        "&#",
        "call 1 ",
    ],
)
def test_hostile_megabytes_take_linear_time(unit: str) -> None:
    text = (unit * 500_000)[:500_000]
    began = time.process_time()
    masked = mask([text])
    assert time.process_time() - began < 4.0
    assert unmask(masked.texts or [text], originals={piece.mask_token: piece.original for piece in masked.replaced}) == [text]
