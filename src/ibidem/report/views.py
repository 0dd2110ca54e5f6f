"""Views: small tables as text and as HTML that reads well on light and dark pages."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """A title, the names of the columns, and rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def text(self) -> str:
        """Write it for a terminal: numbers to the right, columns without content left out."""
        keep = [n for n in range(len(self.columns)) if any(str(row[n]) for row in self.rows)]
        lines = [[self.columns[n] for n in keep], *[[str(row[n]) for n in keep] for row in self.rows]]
        widths = [max(len(line[k]) for line in lines) for k in range(len(keep))]
        right = [all(isinstance(row[n], int) or _is_number(row[n]) for row in self.rows) for n in keep]

        def aligned(line: Sequence[str]) -> str:
            cells = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            ]
            return "  ".join(cells).rstrip()

        rule = "  ".join("-" * width for width in widths)
        body = [aligned(line) for line in lines[1:]]
        return "\n".join([self.title, aligned(lines[0]), rule, *body]) if keep else f"{self.title}: nothing yet"

    def html(self) -> str:
        """Write it for a notebook; colours are the page's own."""
        cell = 'style="text-align:left;padding:.2em .8em;border-bottom:1px solid rgba(128,128,128,.35)"'
        head = "".join(f"<th {cell}>{html.escape(str(name))}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td {cell}>{html.escape(str(value))}</td>" for value in row) + "</tr>"
            for row in self.rows
        )
        return (
            '<table style="border-collapse:collapse;color:inherit;background:transparent;font-size:90%">'
            f'<caption style="text-align:left;font-weight:bold">{html.escape(self.title)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True
