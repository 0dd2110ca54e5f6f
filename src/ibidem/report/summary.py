"""Summaries: how several calls ended, each in a row and all in one line."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

from ibidem.core.call import Outcome
from ibidem.core.hazards import After
from ibidem.report.diagram import Arrow, Box, diagram
from ibidem.report.tables import Rows
from ibidem.report.views import Table, page
from ibidem.report.words import counted

TURNS = 2_000
"""Ended calls of graphs that are kept, without what they gave, to say how the last turn went."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one call ended."""

    tool: str
    how: str
    """`ran`, `memo`, `shared` or `fallback`."""
    kind: str
    """Of the fault; empty if the call went well."""
    message: str
    """What a model is told of the fault."""
    attempts: int
    seconds: float
    timed_out: bool = False
    number: int = 0
    """Its place in its turn, from 1; 0: nobody had to wait there."""
    after: tuple[After, ...] = ()
    """The earlier calls of its turn that it was ordered after, and why."""

    @classmethod
    def of(cls, tool: str, outcome: Outcome, number: int = 0) -> Ended:
        fault = outcome.fault
        kind, message = (fault.kind, fault.message) if fault is not None and outcome.failed else ("", "")
        late = _timed_out(outcome)
        return cls(tool, outcome.how, kind, message, outcome.attempts, outcome.elapsed, late, number, outcome.after)


class Summary(Rows[Ended]):
    """How several calls ended: printed, one line; in Jupyter, a table."""

    @property
    def succeeded(self) -> list[Ended]:
        """Those that gave a result, or a fallback."""
        return [row for row in self.rows if not row.kind]

    @property
    def failed(self) -> list[Ended]:
        """Those that did not, for whatever reason."""
        return [row for row in self.rows if row.kind]

    @property
    def timed_out(self) -> list[Ended]:
        """Those of the failed whose time was over."""
        return [row for row in self.rows if row.timed_out]

    def __str__(self) -> str:
        what = ", ".join(f"{row.tool}: {row.kind}" for row in self.failed)
        late = f", {len(self.timed_out)} of them timed out" if self.timed_out else ""
        failed = f", {len(self.failed)} failed{late} ({what})" if self.failed else ""
        return f"{counted(len(self.rows), 'call')}: {len(self.succeeded)} succeeded{failed}"

    def _table(self) -> Table:
        heads = ["", "tool", "how", "after", "fault", "attempts", "seconds", "message"]
        several = len(self.rows) > 1
        rows = [
            [
                r.number or "" if several else "",
                r.tool,
                r.how,
                "; ".join(map(str, r.after)),
                r.kind,
                r.attempts,
                f"{r.seconds:.3f}",
                r.message,
            ]
            for r in self.rows
        ]
        return Table(str(self), heads, rows, empty="")

    def _repr_html_(self) -> str:
        """Draw the order of the calls, without the arrows that others imply, and each call in a row."""
        boxes = [Box(f"{row.number} {row.tool}", row.kind or row.how) for row in self.rows]
        places = {row.number: place for place, row in enumerate(self.rows)}
        above: dict[int, set[int]] = {}
        arrows = []
        for row in self.rows:
            above[row.number] = set()
            for each in sorted(row.after, reverse=True):
                if each.number in places and each.number not in above[row.number]:
                    why = str(each)
                    arrows.append(Arrow(places[each.number], places[row.number], why, dashed=each.ended == "late"))
                    above[row.number] |= {each.number, *above[each.number]}
        drawn = diagram("the order of the calls", boxes, arrows)
        return (page(drawn) if drawn else "") + super()._repr_html_()


class Outcomes(Sequence[Outcome]):
    """The outcomes of several calls, in the order in which they were asked for.

    Args:
        tools: The names of the tools.
        outcomes: As many.
    """

    def __init__(self, tools: Iterable[str], outcomes: Iterable[Outcome]) -> None:
        self._tools, self._outcomes = tuple(tools), tuple(outcomes)

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | Sequence[Outcome]:
        return self._outcomes[index]

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def succeeded(self) -> list[Outcome]:
        """Those that gave a result, or a fallback."""
        return [each for each in self if not each.failed]

    @property
    def failed(self) -> list[Outcome]:
        """Those that did not, for whatever reason."""
        return [each for each in self if each.failed]

    @property
    def timed_out(self) -> list[Outcome]:
        """Those of the failed whose time was over."""
        return [each for each in self if _timed_out(each)]

    @property
    def summary(self) -> Summary:
        return Summary(tuple(map(Ended.of, self._tools, self._outcomes, range(1, len(self) + 1))))

    def __str__(self) -> str:
        return str(self.summary)

    def __repr__(self) -> str:
        return f"<Outcomes of {self.summary}>"

    def _repr_html_(self) -> str:
        return self.summary._repr_html_()


class _Record(NamedTuple):
    conversation: str
    run: Any
    """The object that stays the same over a run of a graph."""
    step: Any
    namespace: str
    """Of the graph, without the task."""
    ended: Ended

    @property
    def turn(self) -> tuple[Any, ...]:
        return self.conversation, id(self.run), self.step, self.namespace


class Turns:
    """Remembers how the calls of graphs ended, to say how a turn went. Calls outside graphs belong to none."""

    def __init__(self) -> None:
        self._records: deque[_Record] = deque(maxlen=TURNS)

    def add(self, tool: str, conversation: str, outcome: Outcome, config: Mapping[str, Any], number: int = 0) -> None:
        """Note a call that has ended.

        Args:
            tool: Its name.
            conversation: Its id.
            outcome: How it ended.
            config: LangChain's configuration around it.
            number: Its place in its turn, where there is an order to keep.
        """
        metadata, configurable = config.get("metadata") or {}, config.get("configurable") or {}
        step = metadata.get("langgraph_step")
        if step is None:
            return
        run = getattr(configurable.get("__pregel_runtime"), "control", None)
        namespace = str(configurable.get("checkpoint_ns") or "").rpartition("|")[0]
        self._records.append(_Record(conversation, run, step, namespace, Ended.of(tool, outcome, number)))

    def last(self, conversation: str | None = None) -> Summary:
        """Summarise the turn of which a call ended last.

        Args:
            conversation: Only of this one.
        """
        records = [each for each in list(self._records) if conversation is None or each.conversation == conversation]
        ended = [each.ended for each in records if each.turn == records[-1].turn]
        return Summary(tuple(sorted(ended, key=lambda each: each.number)))

    def __iter__(self) -> Iterator[Ended]:
        return iter([each.ended for each in list(self._records)])


def _timed_out(outcome: Outcome) -> bool:
    return outcome.failed and isinstance(getattr(outcome.fault, "exception", None), TimeoutError)
