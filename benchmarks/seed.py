"""Play the seed's case: 20 calls, 4 of them different, 50 ms each, behind nothing and behind three kinds of memo.

The calls come one by one (a turn each), or in one parallel turn of a hand-built ToolNode, in several orders; tools are
async, or sync and run in threads. Each round runs every scenario behind a memo that knows nothing yet, then once more
warm, and the memos take turns within the round. What is printed is the median of the rounds, and the worst count of
runs.

- **nothing**: the node as it is.
- **dictionary**: looks into a dictionary before it runs, and writes into it afterwards, as anyone would do first.
- **cashews**: `cashews.Cache().setup("mem://")` with `lock=True`; it decorates async functions only.
- **ibidem**: the same node, wrapped, with the tool declared as `Read()`.
"""

import asyncio
import functools
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import cashews
from langgraph.prebuilt import ToolNode

import ibidem
from _measure import Report, Results, Sample, arguments, finish, interleave, loop
from _nodes import calls_of, through_ainvoke, through_invoke, tool_of, turn_of

CALLS, UNIQUE = 20, 4
LATENCY = 0.05
"""Seconds that a tool takes."""
ROUNDS = 5
ONE_BY_ONE, ONE_TURN, WARM = 1.05, 1.2, 0.02
"""One by one, of what the four runs take; one turn, of what one run takes; warm, of what nothing takes."""

ORDERS = {
    "round robin": [n % UNIQUE for n in range(CALLS)],
    "grouped": [n * UNIQUE // CALLS for n in range(CALLS)],
    "shuffled": random.Random(7).sample([n % UNIQUE for n in range(CALLS)], CALLS),
}
MEMOS = ("nothing", "dictionary", "cashews", "ibidem")


@dataclass(frozen=True)
class Scenario:
    """How the calls come."""

    mode: str
    order: str
    parallel: bool

    @property
    def sync_tools(self) -> bool:
        """Whether the tool is a plain function."""
        return self.mode.endswith(" sync tool")

    @property
    def sync_caller(self) -> bool:
        """Whether the node is run by `invoke`."""
        return self.mode.startswith("invoke")

    @property
    def turns(self) -> list[dict[str, Any]]:
        """The turns, fresh."""
        calls = calls_of("order", ORDERS[self.order])
        return [turn_of(calls)] if self.parallel else [turn_of([call]) for call in calls]

    def __str__(self) -> str:
        return f"{'one turn' if self.parallel else 'one by one'}, {self.mode}, {self.order}"


MODES = ("ainvoke async tool", "ainvoke sync tool", "invoke sync tool")
SCENARIOS = [
    *(Scenario(mode, "round robin", parallel=False) for mode in MODES),
    *(Scenario(mode, order, parallel=True) for mode in MODES for order in ORDERS),
]


class Tool:
    """A tool that takes its time and counts its runs."""

    def __init__(self, latency: float) -> None:
        self.runs = 0
        self.latency = latency

    def order(self, x: int) -> str:
        """Look up an order."""
        self.runs += 1
        time.sleep(self.latency)
        return f"order {x}"

    async def aorder(self, x: int) -> str:
        """Look up an order."""
        self.runs += 1
        await asyncio.sleep(self.latency)
        return f"order {x}"


def remembered(function: Callable[[int], str]) -> Callable[[int], str]:
    """Put a dictionary before a function."""
    memo: dict[int, str] = {}

    @functools.wraps(function)
    def look(x: int) -> str:
        if x not in memo:
            memo[x] = function(x)
        return memo[x]

    return look


def aremembered(function: Callable[[int], Awaitable[str]]) -> Callable[[int], Awaitable[str]]:
    """Put a dictionary before an async function."""
    memo: dict[int, str] = {}

    @functools.wraps(function)
    async def look(x: int) -> str:
        if x not in memo:
            memo[x] = await function(x)
        return memo[x]

    return look


async def play(scenario: Scenario, memo: str, latency: float) -> tuple[Sample, Sample]:
    """Run a scenario behind a fresh memo, then warm; give what both took."""
    tool, cache = Tool(latency), cashews.Cache()
    function: Any = tool.order if scenario.sync_tools else tool.aorder
    if memo == "dictionary":
        function = (remembered if scenario.sync_tools else aremembered)(function)
    elif memo == "cashews":
        cache.setup("mem://")
        function = cache(ttl="10m", lock=True)(function)
    node = ToolNode([tool_of(function, "order")])
    if memo == "ibidem":
        node = ibidem.wrap(node, ibidem.Guard(effects={"order": ibidem.Read()}))

    async def run() -> Sample:
        before = tool.runs
        if scenario.sync_caller:
            sample = await asyncio.to_thread(through_invoke, node, scenario.turns)
        else:
            sample = await through_ainvoke(node, scenario.turns)
        sample.runs = tool.runs - before
        return sample

    cold, warm = await run(), await run()
    await cache.close()
    return cold, warm


def measure(rounds: int, *, latency: float = LATENCY, warmup: int = 1) -> Report:
    """Play all scenarios behind all memos."""
    report = Report("seed")
    rows: list[list[Any]] = []
    with loop() as runner:
        for scenario in SCENARIOS:
            warms: dict[str, list[Sample]] = {}

            def turn(scenario: Scenario, memo: str, warms: dict[str, list[Sample]]) -> Sample:
                cold, warm = runner.run(play(scenario, memo, latency))
                warms.setdefault(memo, []).append(warm)
                return cold

            memos = [memo for memo in MEMOS if not (memo == "cashews" and scenario.sync_tools)]
            subjects = {memo: functools.partial(turn, scenario, memo, warms) for memo in memos}
            cold = interleave(subjects, rounds, warmup=warmup)
            warm = Results({memo: samples[warmup:] for memo, samples in warms.items()})
            rows += judge(report, scenario, cold, warm, latency)
    heads = ["calls", "", "order", "memo", "runs", "ms", "runs, warm", "ms, warm", "of nothing"]
    title = f"{CALLS} calls, {UNIQUE} different, {latency * 1e3:g} ms each"
    report.table(title, heads, rows)
    return report


def judge(report: Report, scenario: Scenario, cold: Results, warm: Results, latency: float) -> list[list[Any]]:
    """Add what is expected of ibidem in one scenario, and give the rows of all memos."""
    rows = []
    for memo in cold.samples:
        pairs = Results({"warm": warm.samples[memo], "nothing": cold.samples["nothing"]})
        of_nothing = pairs.ratio("warm", "nothing", "wall")
        took, took_warm = cold.spread(memo, "wall"), warm.spread(memo, "wall")
        many = "one turn" if scenario.parallel else "one by one"
        share = None if memo == "nothing" else of_nothing.text(100) + " %"
        counts = (cold.runs(memo), took.text(1e3, 1), warm.runs(memo), took_warm.text(1e3))
        rows.append([many, scenario.mode, scenario.order, memo, *counts, share])
        if memo != "ibidem":
            continue
        report.exactly(f"{scenario}: runs", cold.runs(memo) or 0, UNIQUE)
        report.exactly(f"{scenario}: runs, warm", warm.runs(memo) or 0, 0)
        ideal, bound = (latency, ONE_TURN) if scenario.parallel else (UNIQUE * latency, ONE_BY_ONE)
        detail = took.text(1 / ideal, 3)
        report.at_most(f"{scenario}: of {ideal * 1e3:g} ms", took.median / ideal, bound, detail)
        report.at_most(f"{scenario}: warm, of nothing", of_nothing.median, WARM, of_nothing.text(1, 4))
    return rows


def main() -> int:
    """Run as the command line asks; return the exit code."""
    given = arguments(__doc__.partition("\n")[0], ROUNDS).parse_args()
    rounds = given.rounds or (1 if given.quick else ROUNDS)
    latency, warmup = (LATENCY / 5, 0) if given.quick else (LATENCY, 1)
    return finish(measure(rounds, latency=latency, warmup=warmup), given)


if __name__ == "__main__":
    sys.exit(main())
