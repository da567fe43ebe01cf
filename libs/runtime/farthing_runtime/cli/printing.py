"""Tables on a terminal: readable at any width, whole where nobody sees how wide it is, and never silent where there is nothing."""

from __future__ import annotations

from typing import Any

_PIPED_WIDTH = 10_000


def show(table: Any, *, nothing: str = "") -> None:
    """Prints a table, with words (not names or numbers) wrapped where it is too wide, and row by row where even that cuts something off.
    Without rows it says `nothing`, which tells what would fill it.
    """
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    if not console.is_terminal and "COLUMNS" not in console._environ:
        console = Console(width=_PIPED_WIDTH)
    if not table.row_count and nothing:
        console.print(nothing, markup=False, highlight=False, soft_wrap=True)
        return
    for column in table.columns:
        column.no_wrap = not any(" " in str(cell) for cell in column.cells)
    least = Measurement.get(console, console.options.update(max_width=_PIPED_WIDTH), table).minimum
    if least <= console.width or not table.row_count:
        console.print(table)
    else:
        _row_by_row(console, table)


def _row_by_row(console: Any, table: Any) -> None:
    from rich.table import Table

    headings = [str(column.header) for column in table.columns]
    if table.title:
        console.print(str(table.title), style="bold", markup=False, highlight=False)
    for row in zip(*(column.cells for column in table.columns), strict=True):
        block = Table(show_header=False, box=None, pad_edge=False)
        block.add_column(style="dim", no_wrap=True)
        block.add_column(overflow="fold")
        for heading, cell in zip(headings, row, strict=True):
            if str(cell):
                block.add_row(heading, cell)
        console.rule(style="dim", characters="─")
        console.print(block)
    console.rule(style="dim", characters="─")
    if table.caption:
        console.print(str(table.caption), style="dim", markup=False, highlight=False)
