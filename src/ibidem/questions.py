"""Questions: what a guard answers about its tools and results, and what it is told to forget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ibidem.core.asker import name_of
from ibidem.core.call import Key, Tool
from ibidem.core.resources import Cell, parse_answer, write_cells
from ibidem.core.runtime import BLOCKING
from ibidem.layers.breaker import Breakers
from ibidem.layers.memo import Memo
from ibidem.report.reporter import Reporter
from ibidem.report.statistics import Stats
from ibidem.report.summary import Summary, Turns
from ibidem.report.tables import Circuits, Entries, EntryView, Explained, Explanation
from ibidem.report.trials import Report, Trials
from ibidem.stores.protocol import Entry, Store
from ibidem.toolbox import Toolbox

if TYPE_CHECKING:
    from ibidem.guard import Guard


class Questions:
    """The half of a guard that answers questions: nothing here runs a call."""

    store: Store
    toolbox: Toolbox
    trials: Trials
    _memo: Memo
    _reporter: Reporter
    _turns: Turns
    _breakers: Breakers

    def stats(self) -> Stats:
        """Count calls, where their results came from, and what was saved."""
        return self._reporter.snapshot()

    def explain(self, target: Any = None) -> Explanation:
        """Say, for each tool, its effect, where that was declared, and how its results are kept apart.

        Args:
            target: A tool, a list, a node or a graph, wrapped or not; None: every tool this guard has met.
        """
        if target is None:
            tools: Mapping[str, Tool] = self.toolbox.tools
        else:
            from ibidem.wrapping import adapt  # wrapping needs the guard; the guard needs it for this answer only

            with self.toolbox.looking() as tools:
                adapt(target, cast("Guard", self).bind())
        known = (self.trials.as_of_now(tool) for _, tool in sorted(tools.items()))
        return Explanation(tuple(map(Explained.of, known)))

    def report(self) -> Report:
        """Say what `mode="shadow"` or `check=` found out: what was, or would have been, served, and whether it was right."""
        return self.trials.report(self.stats())

    def last_turn(self, conversation: Any = None) -> Summary:
        """Say how the calls of a graph's last turn ended.

        Args:
            conversation: Only of this one.
        """
        return self._turns.last(None if conversation is None else str(conversation))

    def circuits(self) -> Circuits:
        """Say which breakers are open, and for how long."""
        return self._breakers.states(BLOCKING.now())

    def entries(self) -> Entries:
        """List what would be served, newest first."""
        now = self.store.now()

        def holds(key: Key, entry: Entry) -> bool:
            own: tuple[Cell, ...] = (("conversation", *key.partition),) if len(key.partition) > 1 else ()
            return not entry.cells or self._memo.holds(own, entry.cells, entry.snapshot)

        found = [EntryView.of(key, entry, now) for key, entry in self.store.entries() if holds(key, entry)]
        return Entries(tuple(sorted(found, key=lambda entry: entry.age)))

    def forget(self, *, conversation: Any = None, user: Any = None, tool: str | None = None) -> int:
        """Drop what is remembered, and what reads under way were about to add; say how many entries that were.

        Without arguments everything is dropped; with several, what all of them name.

        Args:
            conversation: Only what this conversation read.
            user: Only what is kept for this user: results of `scope="user"`.
            tool: Only results of the tool of this name.
        """
        whose = None if user is None else ("user", name_of(user, "user"))

        def unwanted(key: Key, entry: Entry) -> bool:
            read_there = conversation is None or entry.conversation == str(conversation)
            return read_there and whose in (None, key.partition) and tool in (None, entry.tool)

        return self.store.forget(unwanted)

    def touch(self, *resources: str | tuple[str, ...]) -> None:
        """Tell of a change that no call made: what depends on these resources is forgotten.

        Args:
            *resources: Such as `"order:42"`, `"order:*"`, or a tuple of literal segments.
        """
        if not resources:
            raise TypeError("touch() takes what changed, such as touch('order:42'), or touch('*') for everything")
        self.store.stamps.touch(write_cells(parse_answer(resources)))

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until everything that is remembered is on the disk; with a store in memory there is nothing to wait for.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: It takes longer, since another process holds the database, say.
        """
        if (flush := getattr(self.store, "flush", None)) is not None:
            flush(timeout)
