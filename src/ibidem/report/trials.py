"""Trials: what a guard that is being tried out has found, and what it suggests.

`mode="shadow"` compares what would have been served with what each run answered; `check=` compares what was served
with a second run. A suggestion says what was seen and under which condition it holds, never that a tool only reads:
a write that answers "ok" twice has not differed either.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

from ibidem.core import forks
from ibidem.core.call import Tool
from ibidem.core.effects import Effect, Pure, Read, Undeclared
from ibidem.core.resources import Template
from ibidem.report.statistics import Stats
from ibidem.report.tables import Rows
from ibidem.report.views import ROWS, Long, Table, page

Kind = Literal["shadow", "check"]

Verdict = Literal["same", "differed", "failed", "unclear"]
"""What comparing a remembered answer with a run came to: `failed`, the run did; `unclear`, something that the answer
depends on changed meanwhile, the run did not end, or two values cannot be compared."""

ENOUGH = 5
"""Repeats without a difference from which on a declaration is suggested: fewer are chance as often as not."""

_TOOLS = 1000
"""Tools and declarations that are kept apart; what comes later is counted together."""

_NOTE = (
    "A suggestion is no finding: a tool that writes and answers the same each time has not differed either. "
    "Declare a tool only if you know that it changes nothing."
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found out about one tool, as it is declared."""

    tool: str
    effect: str
    resources: str
    """What it is declared to read, as written: `order:{order_id}`; several are separated by commas."""
    calls: int
    """Calls that came."""
    served: int
    """Calls that were answered without a run; with `mode="shadow"`, those that would have been."""
    compared: int
    """Those of them whose answer was compared with that of a run."""
    differed: int
    """Compared answers that differed."""
    failed: int
    """Runs that failed where an answer was, or would have been, served."""
    unclear: int
    """Comparisons that told nothing: something changed meanwhile, the run did not end, or the values have no equality."""
    repeats: int
    """Of an undeclared tool: calls that an identical one of the same conversation had preceded, both with an answer."""
    changed: int
    """Repeats that answered otherwise than the call before."""
    advice: str


class Report(Rows[Trial]):
    """What a guard on trial has found out."""

    def _table(self) -> Table:
        names = {
            "tool": "tool",
            "effect": "effect",
            "resources": "reads",
            "calls": "calls",
            "served": "served",
            "compared": "compared",
            "differed": "differed",
            "failed": "run failed",
            "unclear": "unclear",
            "repeats": "repeats",
            "changed": "repeats differed",
            "advice": "what to do",
        }
        rows = [[_cell(name, getattr(row, name)) for name in names] for row in self.rows[:ROWS]]
        title = "ibidem: answers from memory beside those of a run"
        return Table(title, list(names.values()), rows, len(self.rows) - len(rows))

    def __repr__(self) -> str:
        if not self.rows:
            return f"{self._table().title}: nothing yet; it takes Guard(mode='shadow') or Guard(check=0.01), and calls"
        return f"{self._table().text()}\n{_NOTE}"

    def _repr_html_(self) -> str:
        return f"{self._table().html()}{page(f'<div>{_NOTE}</div>')}" if self.rows else page(f"<div>{self!r}</div>")


def _cell(name: str, value: object) -> object:
    return Long(str(value)) if name in ("effect", "resources") else value


@dataclass(slots=True)
class _Found:
    """The counts of one tool under one declaration."""

    effect: Effect
    calls: int = 0
    verdicts: dict[Verdict, int] = field(default_factory=lambda: {"same": 0, "differed": 0, "failed": 0, "unclear": 0})
    repeats: int = 0
    changed: int = 0
    apart: int = 0
    """Repeats that answered the same although another call of the conversation may have changed something between."""
    asked: bool = False
    """Whether it has asked a person."""


class Trials:
    """Counts what trying a guard out finds, from any thread.

    Args:
        kind: How it is tried; None: not at all.
    """

    def __init__(self, kind: Kind | None = None) -> None:
        self.distrusted: dict[str, str] = {}
        """Names of tools that are not remembered any more, and why."""
        self._kind = kind
        self._found: dict[tuple[str, str], _Found] = {}
        self._lock = threading.Lock()
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def called(self, tool: Tool) -> None:
        """Count a call of a tool."""
        with self._lock:
            self._of(tool).calls += 1

    def judged(self, tool: Tool, verdict: Verdict) -> None:
        """Count an answer that was, or would have been, served, and how it compared."""
        with self._lock:
            self._of(tool).verdicts[verdict] += 1

    def repeated(self, tool: Tool, same: bool | None, *, apart: bool) -> None:
        """Count a call of an undeclared tool that an identical one of its conversation had preceded.

        Args:
            tool: The tool.
            same: Whether both answered the same; None if that cannot be told.
            apart: Whether another call may have changed something in between.
        """
        with self._lock:
            found = self._of(tool)
            found.repeats += 1
            found.changed += same is False
            found.apart += apart and same is True
            found.verdicts["unclear"] += same is None

    def asked(self, tool: Tool) -> None:
        """Note that a tool has asked a person."""
        with self._lock:
            self._of(tool).asked = True

    def distrust(self, tool: Tool, reason: str) -> None:
        """Remember nothing of a tool any more."""
        self.distrusted[tool.name] = reason

    def as_of_now(self, tool: Tool) -> Tool:
        """Give a tool with the reason why it is not remembered any more, if there is one."""
        reason = self.distrusted.get(tool.name)
        return tool if reason is None or not tool.effect.merge else tool.replace(reason=reason)

    def report(self, stats: Stats) -> Report:
        """Say what was found.

        Args:
            stats: The counts of the guard: with `check=`, the calls themselves are counted there.
        """
        with self._lock:
            return Report(tuple(self._trial(*key, found, stats) for key, found in sorted(self._found.items())))

    def _of(self, tool: Tool) -> _Found:
        key = (tool.name, _resources(tool.effect))
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _TOOLS:
                key = ("(others)", "")
            found = self._found.setdefault(key, _Found(tool.effect))
        return found

    def _trial(self, tool: str, resources: str, found: _Found, stats: Stats) -> Trial:
        verdicts = found.verdicts
        calls, served = found.calls, sum(verdicts.values())
        if isinstance(found.effect, Undeclared):
            served = 0
        if self._kind == "check" and tool in stats.tools:
            calls, served = stats.tools[tool].calls, stats.tools[tool].memo
        return Trial(
            tool=tool,
            effect="undeclared" if isinstance(found.effect, Undeclared) else repr(found.effect),
            resources=resources,
            calls=calls,
            served=served,
            compared=verdicts["same"] + verdicts["differed"],
            differed=verdicts["differed"],
            failed=verdicts["failed"],
            unclear=verdicts["unclear"],
            repeats=found.repeats,
            changed=found.changed,
            advice=advice(found, self.distrusted.get(tool)),
        )


def _resources(effect: Effect) -> str:
    if not isinstance(effect, Read):
        return ""
    texts = [r.text if isinstance(r, Template) else getattr(r, "__name__", repr(r)) for r in effect.resources]
    return ", ".join(texts) or "*"


def advice(found: _Found, distrusted: str | None) -> str:
    """Say what to do about a tool, as carefully as what was seen allows; empty if there is nothing to do."""
    if isinstance(found.effect, Undeclared):
        return _advice_for_undeclared(found)
    if not found.verdicts["differed"]:
        return ""
    if isinstance(found.effect, Pure):
        what = "it does not depend on its arguments alone: Read(...) with what it reads, or Live()"
    elif isinstance(found.effect, Read):
        what = (
            "something changes it that no declared write touches: name the resources it reads and those that writes "
            "change, give a shorter ttl=, or declare it Live()"
        )
    else:
        what = "calls at the same time answer differently: leave merge= out"
    return f"{what} ({distrusted})" if distrusted else what


def _advice_for_undeclared(found: _Found) -> str:
    if found.asked:
        return "it asks a person: leave it undeclared"
    if found.changed:
        return f"{found.changed} of {found.repeats} repeats differed: leave it undeclared, or Live() if it only reads"
    alike = found.repeats - found.verdicts["unclear"]
    if alike < ENOUGH:
        return ""
    if found.apart >= ENOUGH:
        return (
            f"{alike} repeats answered the same, {found.apart} of them after other calls that may change things: "
            "if it only reads, Read(...), and if its arguments alone decide, Pure()"
        )
    return f"{alike} repeats answered the same: if it only reads, Read(...)"
