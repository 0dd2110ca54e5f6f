"""Measure plans: how near they come to the critical path, what a step costs, and what they save agents.

One run: random DAGs with exponential latencies on a real clock, no-op steps beside bare `graphlib` with `gather` and
LangGraph's StateGraph, memory, hostile documents, and the chains of recorded agents replayed as plans.
"""

import asyncio
import contextlib
import gc
import graphlib
import operator
import os
import random
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph

import _chains
import _hostile
import ibidem
from _measure import Report, Sample, arguments, clocked, finish, interleave, loop
from _recordings import load
from ibidem import Guard, Plan, PlanError, Write

ROUNDS = 5
TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"
EAGER, SLOTS, STEP_US, HOSTILE_MS, LINEAR = 1.05, 1.20, 15, 50, 1.2
"""What may be at most: makespan over the critical path, with four slots over the lower bound, the cost of a step, the time a
document takes, and the memory of a step in a large plan over that in a small one."""


def edges_of(count: int, rng: random.Random, parents: int = 3) -> list[list[int]]:
    """Draw a DAG: each node has up to so many parents among those before it."""
    return [sorted(rng.sample(range(node), min(node, rng.randrange(parents + 1)))) for node in range(count)]


def critical(edges: list[list[int]], seconds: list[float]) -> float:
    """Give the length of the longest path."""
    ends: list[float] = []
    for parents, own in zip(edges, seconds, strict=True):
        ends.append(own + max((ends[parent] for parent in parents), default=0.0))
    return max(ends)


async def wait(seconds: float, after: Any = None) -> int:  # noqa: ARG001
    """Stand for a tool that takes its time."""
    await asyncio.sleep(seconds)
    return 1


async def noop(after: Any = None) -> int:  # noqa: ARG001
    """Stand for a tool that takes none."""
    return 1


def plan_of(edges: list[list[int]], seconds: list[float] | None = None) -> Plan:
    """Write a DAG as a plan."""
    plan, steps = Plan(), []
    for node, parents in enumerate(edges):
        given: dict[str, Any] = {"after": [steps[parent] for parent in parents]}
        steps.append(plan.call(noop, **given) if seconds is None else plan.call(wait, seconds=seconds[node], **given))
    return plan


def makespans(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add how near plans come to what is possible."""
    rows = []
    mean = 0.002 if quick else 0.05
    for count in (10, 100) if quick else (10, 100, 1_000):
        ratios: dict[str, list[float]] = {"eager": [], "batches": [], "4 slots": []}
        for seed in range(rounds):
            rng = random.Random(seed)
            edges = edges_of(count, rng)
            seconds = [rng.expovariate(1 / mean) for _ in range(count)]
            longest = critical(edges, seconds)
            ways: dict[str, tuple[dict[str, Any], float]] = {
                "eager": ({}, longest),
                "batches": ({"schedule": "batches"}, longest),
                "4 slots": ({"max_concurrency": 4}, max(longest, sum(seconds) / 4)),
            }
            for name, (options, least) in ways.items():
                if count > 100 and name == "4 slots":
                    continue
                plan, guard = plan_of(edges, seconds), Guard(live=["wait"])
                began = time.perf_counter()
                runner.run(plan.arun(guard, **options))
                ratios[name].append((time.perf_counter() - began) / least)
        median = {name: sorted(each)[len(each) // 2] if each else None for name, each in ratios.items()}
        rows.append([count, *(None if each is None else f"{each:.3f}" for each in median.values())])
        if count == 100:
            report.at_most("100 steps, eager: makespan over the critical path", median["eager"] or 0, EAGER)
            report.at_most("100 steps, 4 slots: makespan over the lower bound", median["4 slots"] or 0, SLOTS)
    report.table(
        "Makespan over what is possible, exponential latencies", ["steps", "eager", "batches", "4 slots"], rows
    )


class Nothing(TypedDict):
    """The state of a graph that does nothing."""

    done: Annotated[int, operator.add]


def switched_off() -> Guard:
    """Give a guard that lets every call pass, so that what is left is the plan's own."""
    before = os.environ.get("IBIDEM")
    os.environ["IBIDEM"] = "off"
    try:
        return Guard()
    finally:
        os.environ.pop("IBIDEM")
        if before is not None:
            os.environ["IBIDEM"] = before


def costs(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what a step costs that does nothing."""
    rows = []
    for count in (100,) if quick else (1_000, 10_000):
        edges = edges_of(count, random.Random(1))
        needs = {node: set(parents) for node, parents in enumerate(edges)}
        plan, guard = plan_of(edges), Guard(live=["noop"])
        wrapped = ibidem.wrap(noop, guard)

        async def bare(needs: dict[int, set[int]] = needs) -> None:
            sorter = graphlib.TopologicalSorter(needs)
            sorter.prepare()
            while sorter.is_active():
                ready = sorter.get_ready()
                await asyncio.gather(*(noop() for _ in ready))
                sorter.done(*ready)

        async def alone(count: int = count, wrapped: Any = wrapped) -> None:
            for _ in range(count):
                await wrapped(1)

        async def planned(plan: Plan = plan, guard: Guard = guard) -> None:
            await plan.arun(guard)

        off = switched_off()

        async def unguarded(plan: Plan = plan, off: Guard = off) -> None:
            await plan.arun(off)

        subjects = {
            "graphlib and gather": bare,
            "the guard alone, one by one": alone,
            "plan": planned,
            "plan, guard switched off": unguarded,
        }
        if count <= 1_000:
            graph = graph_of(edges)

            async def langgraph(graph: Any = graph, count: int = count) -> None:
                await graph.ainvoke({"done": 0}, {"recursion_limit": count + 10})

            subjects["StateGraph"] = langgraph

        def sampled(work: Any) -> Any:
            async def inner() -> Sample:
                with clocked() as sample:
                    await work()
                return sample

            return lambda: runner.run(inner())

        results = interleave({name: sampled(work) for name, work in subjects.items()}, rounds, warmup=1)
        rows += [[count, name, results.spread(name, "cpu").text(1e6 / count)] for name in subjects]
        for name in ("plan", "plan, guard switched off"):
            own = results.spread(name, "cpu").median * 1e6 / count
            report.at_most(f"{count:,} no-op steps, {name}: us a step", own, STEP_US)
        ratio = results.ratio("plan", "graphlib and gather", "cpu")
        rows.append([count, "plan, times graphlib and gather", ratio.text()])
    report.table("A step that does nothing, us", ["steps", "", "us"], rows)


def graph_of(edges: list[list[int]]) -> Any:
    """Build the same DAG as a StateGraph."""

    async def node(state: Nothing) -> dict[str, int]:  # noqa: ARG001
        return {"done": 1}

    builder = StateGraph(Nothing)
    for number, parents in enumerate(edges):
        builder.add_node(f"n{number}", node)
        if parents:
            builder.add_edge([f"n{parent}" for parent in parents], f"n{number}")
        else:
            builder.add_edge(START, f"n{number}")
    return builder.compile()


def memory(report: Report, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what a step takes of memory."""
    sizes: dict[int, float] = {}
    for count in (100, 1_000) if quick else (1_000, 10_000):
        plan, guard = plan_of(edges_of(count, random.Random(1))), Guard(live=["noop"])
        runner.run(plan_of([[]]).arun(guard))
        gc.collect()
        tracemalloc.start()
        runner.run(plan.arun(guard))
        sizes[count] = tracemalloc.get_traced_memory()[1] / count
        tracemalloc.stop()
    small, large = sizes
    report.table(
        "Memory at most while a plan runs", ["steps", "bytes a step"], [[c, f"{s:.0f}"] for c, s in sizes.items()]
    )
    report.at_most("memory a step, large over small", sizes[large] / sizes[small], LINEAR)


def hostile(report: Report, *, quick: bool) -> None:
    """Add how long documents take that anybody may send.

    It is CPU, since the machine may do something else meanwhile; and without the garbage collector's, whose pauses grow with
    what else the process holds, here with all that was measured before. They are shown beside it.
    """
    slowest, slowest_pause, refused = 0.0, 0.0, 0
    guard, pauses = Guard(effects={"echo": Write("order:{x}")}), [0.0]

    def collector(phase: str, _: Any) -> None:
        pauses[-1] += time.process_time() if phase == "stop" else -time.process_time()

    count = 300 if quick else 10_000

    def echo(x: Any = None, y: Any = None) -> Any:
        return {"x": x, "y": y}

    others = 0
    gc.callbacks.append(collector)
    for seed in range(count):
        rng = random.Random(seed)
        document = _hostile.large(rng) if seed % 20 == 0 else _hostile.document(rng)
        pauses.append(0.0)
        began = time.process_time()
        try:
            Plan.from_json(document, [echo]).check(guard)
        except PlanError:
            refused += 1
        except Exception:  # what the benchmark counts
            others += 1
        slowest = max(slowest, time.process_time() - began - pauses[-1])
        slowest_pause = max(slowest_pause, pauses[-1])
    gc.callbacks.remove(collector)
    heads = ["documents", "refused", "slowest, ms of CPU", "longest pause of the garbage collector, ms"]
    report.table("Hostile documents", heads, [[count, refused, f"{slowest * 1e3:.1f}", f"{slowest_pause * 1e3:.1f}"]])
    report.exactly("hostile documents: errors of another type", others, 0)
    report.at_most("hostile documents: ms of CPU of the slowest", slowest * 1e3, HOSTILE_MS)


def agents(report: Report) -> None:
    """Add what plans save recorded agents; without recordings, what they save a synthetic one."""
    rows = []
    for path in sorted(TRACES.glob("*.jsonl")):
        found = _chains.saved(load(path))
        shares = [f"{share / found.trips:.1%}" for share in (found.bound, found.references, found.undecided)]
        rows.append([path.stem, found.trips, found.bound, found.references, found.undecided, *shares])
        report.exactly(f"{path.stem}: steps called or answered otherwise than recorded", found.wrong, 0)
    heads = ["", "round trips", "bound", "saved", "without choice", "bound %", "saved %", "without choice %"]
    report.table("Chains of single reads of recorded agents as plans", heads, rows)


def measure(rounds: int, *, quick: bool = False) -> Report:
    """Measure everything."""
    report = Report("plans")
    with loop() as runner, contextlib.suppress(KeyboardInterrupt):
        makespans(report, rounds, quick=quick, runner=runner)
        costs(report, rounds, quick=quick, runner=runner)
        memory(report, quick=quick, runner=runner)
    hostile(report, quick=quick)
    agents(report)
    return report


def main() -> int:
    """Run as the command line asks; return the exit code."""
    given = arguments(__doc__.partition("\n")[0], ROUNDS).parse_args()
    return finish(measure(given.rounds or (1 if given.quick else ROUNDS), quick=given.quick), given)


if __name__ == "__main__":
    sys.exit(main())
