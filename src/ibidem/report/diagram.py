"""Diagrams: what waits for what, drawn from left to right as boxes and arrows, for pages of any theme.

An SVG in the page itself: no scripts, no identifiers, nothing from elsewhere; colours are the page's own. What is shown comes from
models and tools and is escaped. Whoever cannot see it finds the same in the words beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ibidem.report.views import escaped
from ibidem.report.words import cut

MOST = 60
"""Boxes that are drawn; a larger diagram would be no picture any more."""

_HIGH, _DOWN, _ACROSS = 34, 12, 76
"""Pixels: the height of a box, and the room between boxes, downwards and across."""

_LETTER, _LABEL = 7.2, 26
"""Pixels that a letter takes, and the letters of a label that are shown."""


class Box(NamedTuple):
    """One thing that waits or is waited for."""

    label: str
    note: str = ""
    """A second line, smaller."""


class Arrow(NamedTuple):
    """One box waits for another; both by their place in the list."""

    source: int
    target: int
    why: str = ""
    dashed: bool = False


def diagram(title: str, boxes: Sequence[Box], arrows: Sequence[Arrow]) -> str:
    """Draw boxes, each in the column after the last of those that it waits for.

    Args:
        title: For whoever has it read to him.
        boxes: At most `MOST`.
        arrows: Between them.

    Returns:
        An SVG; nothing where there are no arrows, too many boxes for a picture, or boxes that wait for each other.
    """
    columns = _columns(len(boxes), arrows) if arrows and len(boxes) <= MOST else None
    if columns is None:
        return ""
    width = _LETTER * max(len(cut(text, _LABEL)) for box in boxes for text in box) + 20
    rows = [0] * (max(columns) + 1)
    places: list[tuple[float, float]] = []
    for column in columns:
        places.append((2 + column * (width + _ACROSS), 2 + rows[column] * (_HIGH + _DOWN)))
        rows[column] += 1
    lines = "".join(_line(places[arrow.source], places[arrow.target], width, arrow) for arrow in arrows)
    shapes = "".join(_shape(place, width, box) for place, box in zip(places, boxes, strict=True))
    across, down = len(rows) * (width + _ACROSS) - _ACROSS + 4, max(rows) * (_HIGH + _DOWN) + 4
    return (
        f'<svg role="img" aria-label="{escaped(title)}" viewBox="0 0 {across:.0f} {down}" width="{across:.0f}" height="{down}" '
        f'style="max-width:100%;height:auto;margin:.4em 0;color:inherit;font-family:inherit">{lines}{shapes}</svg>'
    )


def _columns(count: int, arrows: Sequence[Arrow]) -> list[int] | None:
    """Give the column of each box; None: they go in a circle."""
    columns = [0] * count
    for _ in range(count):  # as often as the longest way has arrows, and once more to see that it was enough
        before = list(columns)
        for arrow in arrows:
            columns[arrow.target] = max(columns[arrow.target], columns[arrow.source] + 1)
        if columns == before:
            return columns
    return None


def _shape(place: tuple[float, float], width: float, box: Box) -> str:
    left, top = place
    middle = left + width / 2
    first = top + (_HIGH / 2 + 4 if not box.note else 15)
    text = f'<text x="{middle:.0f}" y="{first:.0f}" text-anchor="middle" font-size="12" fill="currentColor">'
    note = f'<text x="{middle:.0f}" y="{top + 28:.0f}" text-anchor="middle" font-size="10" fill="currentColor" opacity=".7">'
    return (
        f"<g><title>{escaped(' '.join(box))}</title>"
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{_HIGH}" rx="5" fill="rgba(128,128,128,.15)" '
        f'stroke="currentColor" stroke-opacity=".5"/>{text}{escaped(cut(box.label, _LABEL))}</text>'
        f"{note + escaped(cut(box.note, _LABEL)) + '</text>' if box.note else ''}</g>"
    )


def _line(source: tuple[float, float], target: tuple[float, float], width: float, arrow: Arrow) -> str:
    """Draw an arrow, its reason in its title; past the boxes of other columns it goes through the room between two rows."""
    x1, y1, x2, y2 = source[0] + width, source[1] + _HIGH / 2, target[0], target[1] + _HIGH / 2
    bend = _ACROSS / 2
    dash = ' stroke-dasharray="4 3"' if arrow.dashed else ""
    path = f"M{x1:.0f} {y1:.0f}"
    if x2 - x1 > _ACROSS + 1:
        lane = y1 + (_HIGH + _DOWN) / 2 * (-1 if y2 < y1 else 1)
        path += f"C{x1 + bend:.0f} {y1:.0f} {x1 + bend:.0f} {lane:.0f} {x1 + _ACROSS:.0f} {lane:.0f}"
        x1, y1 = x2 - _ACROSS, lane
        path += f"L{x1:.0f} {lane:.0f}"
    path += f"C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2 - 6:.0f} {y2:.0f}"
    head = f"M{x2:.0f} {y2:.0f}l-7 -3.5v7z"
    return (
        f'<g opacity=".65"><title>{escaped(arrow.why)}</title>'
        f'<path d="{path}" fill="none" stroke="currentColor"{dash}/><path d="{head}" fill="currentColor"/></g>'
    )
