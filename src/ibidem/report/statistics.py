"""Statistics: how many calls there were and where their results came from."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ibidem.core import forks
from ibidem.core.call import Outcome
from ibidem.report import views
from ibidem.report.words import counted, duration


@dataclass(slots=True)
class ToolStats:
    """The counts of one tool."""

    calls: int = 0
    """Calls that came."""
    ran: int = 0
    """Calls that reached the tool, failed ones included."""
    memo: int = 0
    """Calls answered from the memo."""
    shared: int = 0
    """Calls that shared another call's run."""
    batch: int = 0
    """Calls for which another call's request asked too."""
    failed: int = 0
    """Calls that reached the tool and failed, after their retries."""
    retried: int = 0
    """Tries after a call's first."""
    fallback: int = 0
    """Calls for which something else stands in the place of a result that could not be had."""
    kinds: Counter[str] = field(default_factory=Counter)
    """The kinds of the faults of failed calls, and how often."""
    stopped: int = 0
    """Calls that were cancelled, or asked a person."""
    seconds: float = 0.0
    """Seconds that the runs took."""
    saved_seconds: float = 0.0
    """Seconds that the runs took whose results were served again."""
    uncacheable: Counter[str] = field(default_factory=Counter)
    """Why results were not remembered although declared so, and how often."""

    @property
    def saved(self) -> int:
        """Calls that did not reach the tool."""
        return self.memo + self.shared + self.batch


_SOMETIMES = ("batch", "retried", "fallback", "faults")
"""Columns that are drawn where there is something to say in them."""
_HEADS = (
    *("tool", "", "calls", "ran", "memo", "shared", "batch", "failed", "retried", "fallback", "stopped", "saved s"),
    *("not remembered", "faults"),
)
_COUNTS = (
    *("calls", "ran", "memo", "shared", "batch", "failed", "retried", "fallback", "stopped"),
    *("seconds", "saved_seconds"),
)


@dataclass(frozen=True, slots=True)
class Stats:
    """The counts of a guard: a snapshot. In Jupyter it draws itself."""

    tools: Mapping[str, ToolStats]

    @property
    def total(self) -> ToolStats:
        """All tools together."""
        total = ToolStats()
        for each in self.tools.values():
            for name in _COUNTS:
                setattr(total, name, getattr(total, name) + getattr(each, name))
            total.uncacheable.update(each.uncacheable)
            total.kinds.update(each.kinds)
        return total

    @property
    def calls(self) -> int:
        return self.total.calls

    @property
    def ran(self) -> int:
        return self.total.ran

    @property
    def memo(self) -> int:
        return self.total.memo

    @property
    def shared(self) -> int:
        return self.total.shared

    @property
    def saved(self) -> int:
        return self.total.saved

    @property
    def saved_seconds(self) -> float:
        return self.total.saved_seconds

    @property
    def uncacheable(self) -> Counter[str]:
        return self.total.uncacheable

    @property
    def headline(self) -> str:
        """Say in a sentence what came of the calls."""
        total = self.total
        if not total.calls:
            return "no calls yet"
        failed = f" ({total.failed:,} failed)" if total.failed else ""
        ran = f"{total.ran:,} of {counted(total.calls, 'call')} reached a tool{failed}"
        rest = [
            f"{total.memo:,} {_were(total.memo)} answered from the memo" if total.memo else "",
            f"{total.shared:,} shared another call's run" if total.shared else "",
            f"{total.batch:,} went with another call's request" if total.batch else "",
            f"{total.stopped:,} {_were(total.stopped)} interrupted" if total.stopped else "",
            f"{duration(total.saved_seconds)} saved" if total.saved else "",
        ]
        return "; ".join(filter(None, [ran, ", ".join(filter(None, rest))]))

    def _table(self) -> views.Table:
        most = max((each.calls for each in self.tools.values()), default=0)
        total, several = self.total, len(self.tools) > 1
        rows = [_row(name, each, most) for name, each in sorted(self.tools.items())]
        if several:
            rows.append({**_row("total", total, self.calls), "not remembered": "", "faults": ""})  # they stand above
        heads = [head for head in _HEADS if head not in _SOMETIMES or any(row[head] for row in rows)]
        return views.Table(
            f"ibidem: {self.headline}",
            heads,
            [[row[head] for head in heads] for row in rows],
            has_total=several,
            empty="",
        )

    def __str__(self) -> str:
        return self._table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table().html()


def _row(name: str, each: ToolStats, whole: int) -> dict[str, Any]:
    counts = ("calls", "ran", "memo", "shared", "failed", "stopped")
    return {
        "tool": name,
        "": views.Bar({"ran": each.ran, "memo": each.memo, "shared": each.shared + each.batch}, whole),
        **{count: getattr(each, count) for count in counts},
        "batch": each.batch or "",
        "retried": each.retried or "",
        "fallback": each.fallback or "",
        "saved s": f"{each.saved_seconds:.3f}",
        "not remembered": _counted(each.uncacheable),
        "faults": _counted(each.kinds),
    }


def _counted(reasons: Counter[str]) -> str:
    return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


class Recorder:
    """Counts as calls happen, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tools: dict[str, ToolStats] = {}
        forks.after(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def came(self, tool: str, outcome: Outcome, reason: str | None) -> None:
        """Count a call and how it ended."""
        how, fault = outcome.how, outcome.fault
        with self._lock:
            each = self._of(tool)
            each.calls += 1
            if how == "memo":
                each.memo += 1
                each.saved_seconds += outcome.elapsed
            elif how == "shared":
                each.shared += 1
                each.saved_seconds += outcome.elapsed
            elif how == "batch":
                each.batch += 1
                each.failed += fault is not None
            else:
                each.ran += 1
                each.seconds += outcome.elapsed
                each.failed += fault is not None
                each.fallback += how == "fallback"
            if fault is not None:
                each.kinds[fault.kind] += 1
            if reason is not None:
                each.uncacheable[reason] += 1

    def retried(self, tool: str) -> None:
        """Count a try after the first."""
        with self._lock:
            self._of(tool).retried += 1

    def stopped(self, tool: str) -> None:
        """Count a call that control flow ended."""
        with self._lock:
            each = self._of(tool)
            each.calls += 1
            each.stopped += 1

    def not_remembered(self, tool: str, reason: str) -> None:
        """Count a result that could not be kept."""
        with self._lock:
            self._of(tool).uncacheable[reason] += 1

    def _of(self, tool: str) -> ToolStats:
        each = self._tools.get(tool)
        if each is None:
            each = self._tools[tool] = ToolStats()
        return each

    def snapshot(self) -> Stats:
        with self._lock:
            copies = {
                name: replace(each, uncacheable=Counter(each.uncacheable), kinds=Counter(each.kinds))
                for name, each in self._tools.items()
            }
        return Stats(copies)
