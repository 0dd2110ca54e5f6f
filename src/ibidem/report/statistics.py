"""Statistics: how many calls there were and where their results came from."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ibidem.core import forks
from ibidem.core.call import Outcome
from ibidem.report import views


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
        return self.memo + self.shared


_HEADS = ("tool", "calls", "ran", "memo", "shared", "failed", "stopped", "saved s")
_COUNTS = ("calls", "ran", "memo", "shared", "failed", "retried", "fallback", "stopped", "seconds", "saved_seconds")


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

    def _table(self) -> views.Table:
        rows = []
        for name, each in [*sorted(self.tools.items()), ("total", self.total)]:
            reasons = "; ".join(f"{count} x {reason}" for reason, count in each.uncacheable.most_common())
            saved = f"{each.saved_seconds:.3f}"
            counts = [each.calls, each.ran, each.memo, each.shared, each.failed, each.stopped]
            kinds = "; ".join(f"{count} x {kind}" for kind, count in each.kinds.most_common())
            extra = [each.retried or "", each.fallback or "", kinds]
            rows.append([name, *counts, saved, reasons, *extra])
        return views.Table(
            "ibidem: calls and where their results came from",
            [*_HEADS, "not remembered", "retried", "fallback", "faults"],
            rows,
        )

    def __str__(self) -> str:
        return self._table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table().html()


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
