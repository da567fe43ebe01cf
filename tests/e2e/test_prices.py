"""The price book from the shell, and history rated again through real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FARTHING = str(Path(sys.executable).parent / "farthing")
QUESTION = "How do I reset my password?"
OFTEN = ("--from", "2020-01-01")


def farthing(served: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "240", "FARTHING_ADDRESS": served.grpc}
    return subprocess.run([FARTHING, *arguments], env=environment, capture_output=True, text=True, timeout=100, check=False)


def test_prices_are_written_down_and_listed(serve: Any, tmp_path: Path) -> None:
    served = serve("budget", "router")
    assert "farthing.yaml" in farthing(served, "prices", "list", "--model", "small").stdout
    first = farthing(
        served,
        "prices",
        "set",
        "--model",
        "small",
        "--input-usd",
        "0.2",
        "--output-usd",
        "0.7",
        "--source",
        "list of May",
        *OFTEN,
    )
    assert first.returncode == 0, first.stderr
    rates = tmp_path / "rates.yaml"
    rates.write_text(
        "input_usd_per_million_tokens: '0.3'\noutput_usd_per_million_tokens: '0.8'\n"
        "service_tiers: {batch: {input_usd_per_million_tokens: '0.1', output_usd_per_million_tokens: '0.4'}}\n"
    )
    second = farthing(served, "prices", "set", "--model", "small", "--file", str(rates), "--source", "list of June", *OFTEN)
    assert first.stdout.strip() in second.stderr
    contract = ("--scope", "organizations/acme", "--provider", "replay", "--discount-pct", "12.5", "--source", "contract 7")
    assert farthing(served, "prices", "set", *contract).returncode == 0
    in_force = farthing(served, "prices", "list", "--model", "small").stdout
    assert re.search(r"small .* 0\.3 .* 0\.8 .* batch .*list of June", in_force)
    assert re.search(r"12\.5 %.*contract 7", farthing(served, "prices", "list", "--scope", "organizations/acme").stdout)
    history = farthing(served, "prices", "list", "--history").stdout
    assert history.index("list of June") < history.index("list of May")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--input-usd", "1"), "price.rates.rates"),
        ((), "one of them"),
        (("--input-usd", "1", "--withdraw"), "one of them"),
        (("--discount-pct", "12.345"), "--discount-pct"),
        (("--discount-pct", "ten"), "--discount-pct"),
        (("--withdraw", "--from", "yesterday"), "yesterday"),
        (("--discount-pct", "10"), "price.scope"),
    ],
)
def test_what_cannot_be_a_price_ends_with_one_line_that_names_it(serve: Any, arguments: tuple[str, ...], named: str) -> None:
    done = farthing(serve("budget", "router"), "prices", "set", "--model", "small", "--source", "x", *arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_history_is_rated_again_and_each_difference_is_booked_once(serve: Any) -> None:
    served = serve()
    again = ("prices", "rerate", "--scope", "organizations/default", *OFTEN)
    for _ in range(2):
        done = farthing(served, "call", QUESTION, "--model", "small")
        assert done.returncode == 0, done.stderr
    # 100 tokens and 20 at 150 and 600 nanodollars; the second answer came from the cache.
    assert "1 attempts rated, difference $0.000000000" in farthing(served, *again).stdout
    price = ("prices", "set", "--model", "small", "--source", "list of May", *OFTEN)
    assert farthing(served, *price, "--input-usd", "0.25", "--output-usd", "0.60").returncode == 0
    shown = farthing(served, *again)
    assert re.search(r"small .* 1 .* 1 .*\$0\.000027000 .*\$0\.000037000 .*\$0\.000010000", shown.stdout)
    assert "corrections booked" not in shown.stdout
    assert "1 corrections booked" in farthing(served, *again, "--apply").stdout
    for _ in range(2):
        repeated = farthing(served, *again, "--apply").stdout
        assert "difference $0.000000000" in repeated
        assert "0 corrections booked" in repeated
    assert farthing(served, *price, "--withdraw").returncode == 0
    back = farthing(served, *again, "--apply").stdout
    assert "difference -$0.000010000" in back
    assert "1 corrections booked" in back
