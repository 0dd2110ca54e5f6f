"""Views: answers as text for a terminal, and as HTML that reads well on light and dark pages.

What is shown comes from models and tools and is not trusted: HTML is escaped, what a terminal or a page would obey
instead of printing is spelled out, and the page is asked not to typeset it as formulas. There are no scripts, no style
sheets and nothing from elsewhere; where a page strips the styles, the words and numbers still say everything.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ibidem.report.words import cut, plain

ROWS = 100
"""Rows that are drawn; the rest is counted."""

_CELL = 300
"""Characters of an ordinary cell that are shown at once."""

_CHARACTERS = 20_000
"""Characters of a cell that can be unfolded; the rest is counted."""

_FILLS = {
    "ran": "#e69f00",
    "memo": "repeating-linear-gradient(135deg,#009e73 0 3px,#7fd8bd 3px 6px)",
    "shared": "repeating-linear-gradient(90deg,#0072b2 0 2px,#9fd3f5 2px 5px)",
}
"""What a part of a bar is filled with: colours that the colour-blind tell apart, and patterns for everyone else."""

_LINE = "border-bottom:1px solid rgba(128,128,128,.35)"


@dataclass(frozen=True, slots=True)
class Long:
    """A text of which a table shows the beginning: cut in a terminal, to be unfolded on a page."""

    text: str
    limit: int = 60
    """Characters that are shown at once."""

    def __str__(self) -> str:
        return cut(self.text, self.limit)


@dataclass(frozen=True, slots=True)
class Bar:
    """How something divides, drawn on pages only: a table has the same numbers in its columns."""

    parts: dict[str, int]
    """Counts by name; the names are those of columns."""
    whole: int
    """The count that a bar of full length stands for."""

    def __str__(self) -> str:
        return ""

    def html(self) -> str:
        """Draw it; the words are its title."""
        words = ", ".join(f"{count} {name}" for name, count in self.parts.items())
        parts = "".join(
            f'<span style="display:inline-block;height:.8em;width:{100 * count / max(1, self.whole):.2f}%;'
            f'background:{_FILLS[name]}"></span>'
            for name, count in self.parts.items()
            if count
        )
        style = "width:11em;white-space:nowrap;line-height:1;margin-top:.3em"
        return f'<div role="img" aria-label="{words}" title="{words}" style="{style}">{parts}</div>'


@dataclass(frozen=True, slots=True)
class Table:
    """A sentence, the names of the columns, and rows of cells: numbers, texts, `Long` ones, and bars."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    more: int = 0
    """Rows that there are beside these."""
    has_total: bool = False
    """Whether the last row is the sum of the others."""
    empty: str = ": nothing yet"
    """What follows the sentence if there are no rows."""

    def text(self) -> str:
        """Write it for a terminal: numbers to the right, columns without content left out."""
        shown = [[plain(cut(str(cell), _CELL)) for cell in row] for row in self.rows]
        keep = [n for n in range(len(self.columns)) if any(row[n] for row in shown)]
        if not keep:
            return f"{plain(self.title)}{self.empty}"
        lines = [[self.columns[n] for n in keep], *[[row[n] for n in keep] for row in shown]]
        widths = [max(len(line[k]) for line in lines) for k in range(len(keep))]
        right = [self._is_numeric(n) for n in keep]

        def aligned(line: Sequence[str]) -> str:
            cells = [
                cell.rjust(width) if to_right else cell.ljust(width)
                for cell, width, to_right in zip(line, widths, right, strict=True)
            ]
            return "  ".join(cells).rstrip()

        rule = "  ".join("-" * width for width in widths)
        body = [aligned(lines[0]), rule, *(aligned(line) for line in lines[1:])]
        return "\n".join([plain(self.title), *body, *([f"and {self.more:,} more"] if self.more else [])])

    def html(self) -> str:
        """Write it for a notebook; text and background are the page's own."""
        if not self.rows:
            return page(f"<div>{escaped(self.title)}{self.empty}</div>")
        keep = [n for n in range(len(self.columns)) if any(str(row[n]) or isinstance(row[n], Bar) for row in self.rows)]
        drawn = any(isinstance(cell, Bar) for cell in self.rows[0])
        sides = ["right" if self._is_numeric(n) else "left" for n in range(len(self.columns))]
        head = "".join(
            f'<th scope="col" style="{_cell(sides[n])};white-space:nowrap">'
            f"{_swatch(self.columns[n]) if drawn else ''}{escaped(self.columns[n])}</th>"
            for n in keep
        )
        body = ""
        for number, row in enumerate(self.rows, 1):
            weight = ";font-weight:bold" if self.has_total and number == len(self.rows) else ""
            cells = "".join(f'<td style="{_cell(sides[n], row[n])}{weight}">{_content(row[n])}</td>' for n in keep)
            body += f'<tr style="background:transparent">{cells}</tr>'
        more = f"<div>and {self.more:,} more</div>" if self.more else ""
        return page(
            f'<div style="font-weight:bold">{escaped(self.title)}</div>'
            '<table style="border-collapse:collapse;table-layout:auto;margin:.4em 0;border:0;color:inherit;background:transparent;'
            f'font-size:inherit"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}'
        )

    def _is_numeric(self, column: int) -> bool:
        cells = [row[column] for row in self.rows if row[column] != ""]
        return bool(cells) and all(map(_is_number, cells))


def page(body: str) -> str:
    """Put what is drawn where a page of any theme leaves it readable."""
    # Both class names keep MathJax from reading dollar signs as formulas: version 2 knows the first, 3 the second.
    style = "color:inherit;background:transparent;font-variant-numeric:tabular-nums;line-height:1.5;margin:.3em 0"
    return f'<div class="ibidem tex2jax_ignore mathjax_ignore" style="{style}">{body}</div>'


def _cell(side: str, content: Any = "") -> str:
    # Short names stay whole; long ones may break anywhere, or one of them would push the rest off the page.
    wrap = "white-space:nowrap" if len(str(content)) <= 40 else "max-width:36em;overflow-wrap:anywhere"
    return f"text-align:{side};vertical-align:top;padding:.15em .7em;border:0;{_LINE};{wrap}"


def _swatch(name: str) -> str:
    fill = _FILLS.get(name)
    style = f"display:inline-block;width:.8em;height:.8em;margin-right:.4em;vertical-align:baseline;background:{fill}"
    return f'<span aria-hidden="true" style="{style}"></span>' if fill else ""


def _content(cell: Any) -> str:
    if isinstance(cell, Bar):
        return cell.html()
    if isinstance(cell, int) and not cell:
        return '<span style="opacity:.5">0</span>'
    text, limit = (cell.text, cell.limit) if isinstance(cell, Long) else (str(cell), _CELL)
    if len(text) <= limit:
        return escaped(text)
    left = f"<div>{len(text):,} characters in all</div>" if len(text) > _CHARACTERS else ""
    style = "white-space:pre-wrap;max-height:24em;overflow:auto;margin:0;color:inherit;background:transparent"
    return (
        f'<details><summary style="cursor:pointer">{escaped(cut(text, limit))}</summary>'
        f'<pre style="{style}">{escaped(text[:_CHARACTERS])}</pre>{left}</details>'
    )


def escaped(text: str) -> str:
    """Make a text of anybody's part of a page."""
    return html.escape(plain(text))


def _is_number(value: Any) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
