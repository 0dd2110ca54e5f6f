"""Drawing: a plan before it runs, while it runs, and its waterfall after, for pages, terminals and Mermaid."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ibidem.plan.checking import prepare, references
from ibidem.plan.mistakes import PlanError
from ibidem.report.diagram import Arrow, Box, diagram
from ibidem.report.views import ROWS, escaped, page
from ibidem.report.words import cut, plain

if TYPE_CHECKING:
    from ibidem.plan.results import Ended, Result
    from ibidem.plan.steps import Plan, Step

_WIDTH = 40
"""Characters of a bar in a terminal."""

_PATIENCE = 0.5
"""Seconds after which a plan that runs is drawn: what ends sooner needs no progress."""

_OFTEN = 0.2
"""Seconds between two drawings of a plan that runs."""

_FILLS = {
    "ran": "#e69f00",
    "memo": "repeating-linear-gradient(135deg,#009e73 0 3px,#7fd8bd 3px 6px)",
    "shared": "repeating-linear-gradient(90deg,#0072b2 0 2px,#9fd3f5 2px 5px)",
    "fallback": "repeating-linear-gradient(45deg,#cc79a7 0 3px,#e8c3d8 3px 6px)",
    "failed": "repeating-linear-gradient(0deg,#d55e00 0 2px,#f2b38a 2px 4px)",
    "running": "rgba(128,128,128,.5)",
}
_STYLES = {"ran": "yellow", "memo": "green", "shared": "blue", "fallback": "magenta", "failed": "red", "skipped": "dim"}


@dataclass(frozen=True, slots=True)
class Row:
    """One step as it is drawn."""

    id: str
    tool: str
    state: str
    """How its outcome came, `failed`, `skipped`, `waits` or `running`."""
    began: float
    ended: float
    said: str
    """Of a fault."""
    is_critical: bool = False
    """Whether the plan took as long as it did for this step."""

    @classmethod
    def of(cls, ended: Ended, critical: frozenset[str]) -> Row:
        fault = ended.outcome.fault
        state = ended.outcome.how if ended.state == "done" else ended.state
        said = f"{fault.kind}: {fault.message}" if fault is not None and ended.state == "failed" else ""
        return cls(ended.id, ended.tool, state, ended.began, ended.ended, said, ended.id in critical)


def rows_of(result: Result) -> list[Row]:
    """Give the rows of a waterfall."""
    critical = frozenset(result.critical_path())
    return [Row.of(ended, critical) for ended in result.steps.values()]


def waterfall_text(headline: str, rows: list[Row], whole: float) -> str:
    """Draw a waterfall for a terminal; `*` marks the critical path."""
    return "\n".join([plain(headline), *(line for line, _ in _lines(rows, whole))])


def waterfall_rich(headline: str, rows: list[Row], whole: float) -> Any:
    """Draw it in colours, for `rich`."""
    from rich.console import Group
    from rich.text import Text

    styled = [(plain(headline), "bold")]
    styled += [(line, _STYLES.get(row.state if row is not None else "", "")) for line, row in _lines(rows, whole)]
    return Group(*[Text(line, style, no_wrap=True, overflow="ellipsis") for line, style in styled])


def _lines(rows: list[Row], whole: float) -> Iterator[tuple[str, Row | None]]:
    shown = rows[:ROWS]
    wide = min(30, max((len(row.id) for row in shown), default=0))
    for row in shown:
        start, length = _span(row, whole, _WIDTH)
        bar = " " * start + "█" * length
        mark = "*" if row.is_critical else " "
        name = plain(cut(row.id, wide)).ljust(wide)
        said = plain(cut(row.said, 80))
        yield f"{mark} {name}  {bar:<{_WIDTH}}  {row.ended - row.began:8.3f} s  {row.state}  {said}".rstrip(), row
    if len(rows) > len(shown):
        yield f"and {len(rows) - len(shown):,} more", None


def _span(row: Row, whole: float, width: int) -> tuple[int, int]:
    if row.state in ("skipped", "waits") or whole <= 0:
        return 0, 0
    start = min(width - 1, int(row.began / whole * width))
    return start, max(1, min(width - start, round((row.ended - row.began) / whole * width)))


def waterfall_html(headline: str, rows: list[Row], whole: float) -> str:
    """Draw it for a notebook; the numbers say what the bars do."""
    side = "text-align:left;vertical-align:top;padding:.1em .7em;border:0;white-space:nowrap"
    body = ""
    for row in rows[:ROWS]:
        bar = ""
        if row.state not in ("skipped", "waits") and whole > 0:
            left, length = 100 * row.began / whole, max(0.5, 100 * (row.ended - row.began) / whole)
            fill = _FILLS.get(row.state, "#e69f00")
            bar = (
                f'<div style="margin-left:{min(99.5, left):.2f}%;width:{min(length, 100 - min(99.5, left)):.2f}%;'
                f'height:.8em;margin-top:.35em;background:{fill}"></div>'
            )
        weight = ";font-weight:bold" if row.is_critical else ""
        mark = "&#9679; " if row.is_critical else ""
        body += (
            f'<tr style="background:transparent"><td style="{side}{weight}">{mark}{escaped(row.id)}</td>'
            f'<td style="{side}">{escaped(row.tool)}</td>'
            f'<td style="{side};width:24em;min-width:12em" role="img" aria-label="from {row.began:.3f} s to '
            f'{row.ended:.3f} s">{bar}</td><td style="{side};text-align:right">{row.ended - row.began:.3f} s</td>'
            f'<td style="{side}">{escaped(row.state)}</td>'
            f'<td style="{side};white-space:normal">{escaped(cut(row.said, 300))}</td></tr>'
        )
    more = f"<div>and {len(rows) - ROWS:,} more</div>" if len(rows) > ROWS else ""
    legend = "&#9679; the critical path: these, one after the other, took as long as the whole plan"
    return page(
        f'<div style="font-weight:bold">{escaped(headline)}</div><table style="border-collapse:collapse;border:0;'
        f'color:inherit;background:transparent;font-size:inherit"><tbody>{body}</tbody></table>{more}'
        f"{f'<div>{legend}</div>' if any(row.is_critical for row in rows[:ROWS]) else ''}"
    )


# -- before it runs ----------------------------------------------------------------------------------------------------


def outline(plan: Plan) -> list[tuple[str, str, str]]:
    """Give for each step its id, its tool, and what it waits for, in words."""
    return [(step.id, step.tool_name, _words(step)) for step in plan.steps.values()]


def _words(step: Step) -> str:
    used = dict.fromkeys(reference.spelled for reference in references(step) if reference.source != "item")
    said = [f"uses {', '.join(used)}"] if used else []
    said += [f"after {', '.join(step.afters)}"] if step.afters else []
    said += [f"once for each of {step.over.spelled}"] if step.over is not None else []
    said += [f"if {c.reference.spelled} {c.op} {c.value!r}" for c in step.conditions]
    said += ["optional"] if step.is_optional else []
    return "; ".join(said)


def outline_text(plan: Plan) -> str:
    """Write a plan for a terminal."""
    rows = outline(plan)
    wide = max((len(name) for name, _, _ in rows), default=0)
    lines = [plain(cut(f"  {name:<{wide}}  {tool}  {words}", 200)).rstrip() for name, tool, words in rows[:ROWS]]
    more = [f"  and {len(rows) - ROWS:,} more"] if len(rows) > ROWS else []
    return "\n".join([f"a plan of {len(rows)} step{'' if len(rows) == 1 else 's'}", *lines, *more])


def outline_html(plan: Plan) -> str:
    """Draw a plan that has not run: what needs what as a picture, and each step in a row."""
    side = "text-align:left;vertical-align:top;padding:.1em .7em;border:0"
    rows = outline(plan)
    body = ""
    for row in rows[:ROWS]:
        cells = "".join(f'<td style="{side}">{escaped(cut(cell, 300))}</td>' for cell in row)
        body += f'<tr style="background:transparent">{cells}</tr>'
    more = f"<div>and {len(rows) - ROWS:,} more</div>" if len(rows) > ROWS else ""
    return page(
        f'<div style="font-weight:bold">a plan of {len(rows)} step{"" if len(rows) == 1 else "s"}, not run yet</div>'
        f"{_diagram(plan)}"
        '<table style="border-collapse:collapse;border:0;color:inherit;background:transparent;font-size:inherit">'
        f"<tbody>{body}</tbody></table>{more}"
    )


def _diagram(plan: Plan) -> str:
    """Draw what needs what; a dashed arrow is an order without a result."""
    numbers, boxes = _numbers(plan), []
    uses = _uses(plan)
    arrows = [Arrow(*edge, why) for edge, why in uses.items()]
    for name, step in plan.steps.items():
        marks = [*_marks(step), *(["if ..."] if step.conditions else [])]
        boxes.append(Box(name, ", ".join(marks) or ("" if name == step.tool_name else step.tool_name)))
        edges = {(numbers[other], numbers[name]): f"after {other}" for other in step.afters if other in numbers}
        arrows += [Arrow(*edge, why, dashed=True) for edge, why in edges.items() if edge not in uses]
    return diagram("what needs what", boxes, arrows)


def _numbers(plan: Plan) -> dict[str, int]:
    return {name: number for number, name in enumerate(plan.steps)}


def _marks(step: Step) -> list[str]:
    """Say what is particular of how a step runs, but for its conditions."""
    return [*(["for each"] if step.over is not None else []), *(["optional"] if step.is_optional else [])]


def _uses(plan: Plan) -> dict[tuple[int, int], str]:
    """Give which step uses the result of which, by their numbers, and by which reference first."""
    numbers = _numbers(plan)
    found: dict[tuple[int, int], str] = {}
    for name, step in plan.steps.items():
        for reference in references(step):
            if reference.source in numbers:
                found.setdefault((numbers[reference.source], numbers[name]), reference.spelled)
    return found


def to_mermaid(plan: Plan, guard: Any = None) -> str:
    """Write a plan as a Mermaid flowchart; a dotted arrow is an order without a result."""
    numbers, uses = _numbers(plan), _uses(plan)
    lines = ["flowchart LR"]
    for name, step in plan.steps.items():
        label = name if name == step.tool_name else f"{name}: {step.tool_name}"
        marks = [*_marks(step), *(f"if {c.reference.spelled} {c.op} {c.value!r}" for c in step.conditions)]
        whole = cut("\n".join([label, *marks]), 200)
        lines.append(f'    s{numbers[name]}["{_mermaid(whole)}"]')
    lines += [f"    s{source} --> s{target}" for source, target in uses]
    lines += [f"    s{edge[0]} -.-> s{edge[1]}" for edge in _orders(plan, guard) if edge not in uses]
    return "\n".join(lines)


def _orders(plan: Plan, guard: Any) -> list[tuple[int, int]]:
    """Give the edges of a plan, hazards included where it can be prepared."""
    try:
        order = prepare(plan, guard, None, awaits=True).order
    except (PlanError, TypeError, ValueError):
        return []
    return [(other, step) for step, waited in enumerate(order.needs) for other in sorted(waited)]


def _mermaid(text: str) -> str:
    kept = "".join(c if c.isalnum() or c in " _-.$:\n" else f"#{ord(c)};" for c in text)
    return kept.replace("\n", "<br/>")


# -- while it runs -----------------------------------------------------------------------------------------------------


def live(plan: Plan) -> Callable[[Any], None] | None:
    """Give what draws a plan while it runs, in a notebook; None elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return _Live(plan, sys.modules["IPython"].display)


class _Live:
    """Draws a plan that runs for longer than a moment, and draws over it."""

    def __init__(self, plan: Plan, display: Any) -> None:
        self._plan = plan
        self._display = display
        self._handle: Any = None
        self._next = time.monotonic() + _PATIENCE

    def __call__(self, run: Any) -> None:
        now = time.monotonic()
        if now < self._next and not (run.is_over and self._handle is not None):
            return
        self._next = now + _OFTEN
        drawn = _Drawn(waterfall_html(*run.progress()))
        if self._handle is None:
            self._handle = self._display.display(drawn, display_id=True)
        else:
            self._handle.update(drawn)


@dataclass(frozen=True, slots=True)
class _Drawn:
    html: str

    def _repr_html_(self) -> str:
        return self.html
