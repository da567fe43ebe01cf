"""`farthing budgets` and `farthing ledger`, as a person types them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg

FARTHING = str(Path(sys.executable).parent / "farthing")
SCOPE = "organizations/acme/workspaces/search"


def farthing(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "COLUMNS": "240"}
    return subprocess.run([FARTHING, *arguments], env=given, capture_output=True, text=True, timeout=100, check=False)


async def test_budgets_are_made_listed_reset_and_deleted_and_the_books_are_proved(serve: Any, database_url: str) -> None:
    served = serve()
    at = ("--address", served.grpc)
    made = farthing("budgets", "create", "--scope", SCOPE, "--usd", "25", "--requests", "9", "--name", "Search", *at)
    assert made.returncode == 0, made.stderr
    budget_id = made.stdout.strip()
    of_model = farthing(
        "budgets",
        "create",
        "--scope",
        SCOPE,
        "--period",
        "rolling",
        "--window-s",
        "3600",
        "--usd",
        "1",
        "--model",
        "large",
        *at,
    )
    assert of_model.returncode == 0, of_model.stderr
    assert farthing("call", "How do I reset my password?", "--scope", SCOPE, *at).returncode == 0

    listed = farthing("budgets", "list", "--scope", "organizations/acme", *at).stdout
    assert budget_id in listed
    assert "$25.000000 9 requests" in listed
    assert "month in UTC" in listed
    assert "model large" in listed
    assert "rolling of 3600 s" in listed

    entries = farthing("ledger", "entries", "--scope", SCOPE, *at).stdout
    assert "RESERVE" in entries

    afresh = farthing("budgets", "reset", budget_id, "--scope", SCOPE, "--reason", "a new quarter", *at)
    assert "starts afresh: spent $0.000000 0 requests" in afresh.stdout, afresh.stderr
    newest = farthing("ledger", "entries", "--scope", SCOPE, "--budget-id", budget_id, "--limit", "1", *at).stdout
    assert "a new quarter" in newest
    assert newest.count(SCOPE) == 1

    proof = farthing("ledger", "verify", "--scope", "organizations/acme", *at)
    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert proof.stderr.strip().endswith("right")
    assert farthing("budgets", "delete", budget_id, "--scope", SCOPE, *at).returncode == 0

    intruder = await asyncpg.connect(database_url)
    await intruder.execute("UPDATE budget.balances SET spent_usd_nanos = spent_usd_nanos + 7 WHERE budget_id = $1", budget_id)
    await intruder.close()
    proof = farthing("ledger", "verify", "--all", *at)
    assert proof.returncode == 1
    assert "spent_usd_nanos is 7, the journal says 0" in proof.stdout


def test_what_makes_no_sense_is_refused_in_one_line(serve: Any) -> None:
    at = ("--address", serve("budget").grpc)
    assert farthing("ledger", "verify", *at).returncode == 2
    assert farthing("ledger", "verify", "--all", "--scope", "organizations/acme", *at).returncode == 2
    assert farthing("budgets", "create", "--scope", SCOPE, "--usd", "1", "--period", "fortnight", *at).returncode == 2
    assert farthing("budgets", "create", "--scope", SCOPE, "--usd", "1", "--model", "a", "--tag", "b", *at).returncode == 2
    nothing = farthing("budgets", "create", "--scope", SCOPE, *at)
    assert (nothing.returncode, len(nothing.stderr.strip().splitlines())) == (2, 1)
    assert "limit_usd_nanos" in nothing.stderr
    unknown = farthing("budgets", "reset", "nobody", "--scope", SCOPE, *at)
    assert (unknown.returncode, len(unknown.stderr.strip().splitlines())) == (2, 1)
