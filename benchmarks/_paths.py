"""What a call through a ToolNode costs, by the way it takes: the part of cost.py that goes through LangGraph."""

import asyncio
import itertools
import warnings
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.prebuilt import ToolNode

import ibidem
from _measure import Report, Sample, interleave
from _nodes import CONFIG, calls_of, passer, tool_of, turn_of

SIZES = (1, 5, 20)
"""Calls of a turn."""
MODES = ("ainvoke, async tools", "ainvoke, sync tools", "invoke, sync tools")
BOUNDS = {"hit": 0.15, "hit, heard": 1.15, "miss": 1.25, "undeclared": 1.10}
"""What each way may cost at most of the same node without ibidem."""
BOUNDED = MODES[:2]
"""The ways to run a node that the bounds are about."""
HEARD: dict[str, Any] = {**CONFIG, "callbacks": [BaseCallbackHandler()]}
"""A configuration in which somebody listens."""


class Counted:
    """A no-op that counts its runs: a call that should not have run, or should have, is seen."""

    def __init__(self, mode: str) -> None:
        self.runs = 0

        async def awaited(x: int) -> str:  # noqa: ARG001
            self.runs += 1
            return "done"

        def called(x: int) -> str:  # noqa: ARG001
            self.runs += 1
            return "done"

        self.function = awaited if "async tools" in mode else called


class Ways:
    """The subjects of one mode and one size of turn."""

    def __init__(self, mode: str, size: int, repeats: int, runner: asyncio.Runner) -> None:
        self.mode, self.size, self.repeats = mode, size, repeats
        self._fresh = itertools.count(1_000)
        self._counted = Counted(mode)
        plain = ToolNode([tool_of(self._counted.function, name) for name in ("declared", "other")])
        guard = ibidem.Guard(effects={"declared": ibidem.Read()})
        with warnings.catch_warnings(action="error"):
            wrapped = ibidem.wrap(plain, guard)
        sync = mode.startswith("invoke")
        self._plain, self._wrapped = (passer(node, sync=sync, runner=runner) for node in (plain, wrapped))

    def subjects(self) -> dict[str, Callable[[], Sample]]:
        """Give what takes turns, by name."""
        return {
            self.name("none"): lambda: self._pass(self._plain, "declared", new=True),
            self.name("none, heard"): lambda: self._pass(self._plain, "declared", new=True, config=HEARD),
            self.name("hit"): lambda: self._pass(self._wrapped, "declared"),
            self.name("hit, heard"): lambda: self._pass(self._wrapped, "declared", config=HEARD),
            self.name("miss"): lambda: self._pass(self._wrapped, "declared", new=True),
            self.name("undeclared"): lambda: self._pass(self._wrapped, "other", new=True),
        }

    def name(self, way: str) -> str:
        """Name a subject."""
        return f"{self.mode}, {self.size}: {way}"

    def _pass(self, through: Callable[..., Sample], tool: str, *, new: bool = False, config: Any = CONFIG) -> Sample:
        """Run some turns; with the same arguments each time, a first turn beforehand stores what they will hit."""
        turns = [
            turn_of(calls_of(tool, [next(self._fresh) if new else x for x in range(self.size)]))
            for _ in range(self.repeats)
        ]
        if not new:
            through(turns[:1])
        before = self._counted.runs
        sample = through(turns, config)
        sample.runs = self._counted.runs - before
        return sample


def measure(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what calls through a ToolNode cost."""
    rows = []
    for mode, size in itertools.product(MODES, SIZES):
        each = Ways(mode, size, 1 if quick else max(1, 20 // size), runner)
        results = interleave(each.subjects(), rounds, warmup=1 if quick else 5)
        for way in ("none", "hit", "hit, heard", "miss", "undeclared"):
            name = each.name(way)
            to = each.name("none, heard" if "heard" in way else "none")
            ratio = results.ratio(name, to, "cpu")
            runs = (results.runs(name) or 0) // each.repeats
            cost = results.spread(name, "cpu").text(1e6 / each.repeats, 0)
            rows.append([each.mode, each.size, way, runs, cost, None if way == "none" else ratio.text(1, 3)])
            if way in BOUNDS:
                report.exactly(f"{name}: runs", runs, 0 if way.startswith("hit") else each.size)
                if each.mode in BOUNDED and each.size == max(SIZES):
                    report.at_most(f"{name}: CPU of none", ratio.median, BOUNDS[way], ratio.text(1, 3))
    heads = ["through", "calls", "way", "runs", "CPU us a turn", "of none"]
    report.table("A turn of no-op tools through a ToolNode, with ibidem and without", heads, rows)
