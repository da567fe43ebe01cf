"""How every eval prints: a table for people, then one line of JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def print_table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table in plain columns."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for number, row in enumerate(cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def print_figures(name: str, figures: Mapping[str, float | int | None]) -> None:
    """Prints the last line of an eval."""
    print(json.dumps({"eval": name, "figures": dict(figures)}), flush=True)
