"""Tables on terminals of any width."""

from __future__ import annotations

from typing import Any

import pytest
from farthing_runtime.cli.printing import show
from rich.table import Table

REQUEST = "e657ad43-9ef7-4b0b-ab07-75d990d8ac82"


def printed(monkeypatch: Any, capsys: Any, *, columns: int | None) -> str:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(columns))
    table = Table("request", "why", "served", title="newest first", caption="there are more")
    table.add_row(REQUEST, "the caller named the model, and nothing else was looked at", "gpt-4o-mini-2024-07-18")
    show(table, nothing="no decisions")
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("columns", [50, 80, 100, 160, None])
def test_ids_and_names_are_whole_at_any_width(monkeypatch: Any, capsys: Any, columns: int | None) -> None:
    out = printed(monkeypatch, capsys, columns=columns)
    assert REQUEST in out
    assert "gpt-4o-mini-2024-07-18" in out
    assert "…" not in out
    assert "there are more" in out
    assert all(len(line) <= (columns or 1_000) for line in out.splitlines())


def test_what_does_not_fit_is_printed_row_by_row_under_its_headings(monkeypatch: Any, capsys: Any) -> None:
    lines = [line.strip() for line in printed(monkeypatch, capsys, columns=60).splitlines()]
    assert lines[0] == "newest first"
    assert f"request  {REQUEST}" in lines
    assert "served   gpt-4o-mini-2024-07-18" in lines


def test_words_wrap_before_a_table_is_given_up(monkeypatch: Any, capsys: Any) -> None:
    assert "┃ request" in printed(monkeypatch, capsys, columns=100)


def test_output_that_goes_into_a_pipe_has_a_line_a_row(monkeypatch: Any, capsys: Any) -> None:
    (row,) = [line for line in printed(monkeypatch, capsys, columns=None).splitlines() if REQUEST in line]
    assert "nothing else was looked at" in row


def test_an_empty_table_says_what_would_fill_it(capsys: Any) -> None:
    show(Table("request"), nothing='No decisions here yet. farthing call "[bold]…"')
    assert capsys.readouterr().out == 'No decisions here yet. farthing call "[bold]…"\n'
