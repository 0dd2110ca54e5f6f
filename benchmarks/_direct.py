"""What plain functions cost behind a memo, and a thousand callers at once: the part of cost.py without a framework."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import aiocache
import cashews
import joblib

import ibidem
from _measure import Report, Sample, clocked, interleave

TEXT = "An order that somebody wrote down at some length. " * 41
"""A value of 2 KB: a text, as most tools answer."""
RECORD: dict[str, Any] = {
    **{f"field_{n}": f"a value of field number {n}, as text" for n in range(20)},
    "lines": [{"product": f"P-{n}", "quantity": n, "price": n * 1.5} for n in range(20)],
}
"""A value of 2 KB in a hundred parts. What a hit gives is the caller's own, so each part is copied."""
VALUES = {"text": TEXT, "record": RECORD}
HIT_US = 8
"""What a direct hit of a text may take at most, in microseconds."""
CALLERS = 1_000
LATENCY = 0.05
"""Seconds that the run takes which a thousand callers share."""
BY_HAND = "a future shared by hand"
STAMPEDE = 1.3
"""What a thousand identical calls may take at most of a future shared by hand."""


def hits(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what one hit of a plain function takes, beside other memos."""
    repeats = 20 if quick else 200
    rows = []
    for title, value in VALUES.items():
        with _memos(value, repeats, runner) as subjects:
            results = interleave(subjects, rounds, warmup=1 if quick else 3)
        for name in subjects:
            took = results.spread(name, "cpu")
            rows.append([title, name, results.runs(name), took.text(1e6 / repeats)])
            what = f"hit of a {title}, {name}"
            if name.startswith("ibidem"):
                report.exactly(f"{what}: runs", results.runs(name) or 0, 0)
                if value is TEXT:
                    report.at_most(f"{what}: CPU us", took.median * 1e6 / repeats, HIT_US, took.text(1e6 / repeats))
            elif value is TEXT and not name.startswith("dictionary"):
                # A record is copied for every caller; others hand everybody the same object. Shown above, not judged.
                kind = f"ibidem, {name.rpartition(' ')[2]}"
                ratio = results.ratio(kind, name, "cpu")
                report.at_most(f"hit of a {title}, {kind}: CPU of {name}", ratio.median, 1.0, ratio.text(1, 3))
    report.table("A hit of a plain function, value of 2 KB", ["value", "memo", "runs", "CPU us"], rows)


@contextlib.contextmanager
def _memos(value: Any, repeats: int, runner: asyncio.Runner) -> Iterator[dict[str, Callable[[], Sample]]]:
    """Give a warm function behind each memo."""
    runs = 0

    def order(order_id: str) -> Any:  # noqa: ARG001
        nonlocal runs
        runs += 1
        return value

    async def aorder(order_id: str) -> Any:  # noqa: ARG001
        nonlocal runs
        runs += 1
        return value

    def sync(function: Any) -> Callable[[], Sample]:
        def sample() -> Sample:
            function("42")
            before = runs
            with clocked() as sample:
                for _ in range(repeats):
                    function("42")
            sample.runs = runs - before
            return sample

        return sample

    def awaited(function: Any) -> Callable[[], Sample]:
        async def sample() -> Sample:
            await function("42")
            before = runs
            with clocked() as sample:
                for _ in range(repeats):
                    await function("42")
            sample.runs = runs - before
            return sample

        return lambda: runner.run(sample())

    kept: dict[str, Any] = {}

    def dictionary(order_id: str) -> Any:
        if order_id not in kept:
            kept[order_id] = order(order_id)
        return kept[order_id]

    guard = ibidem.Guard(reads=["order", "aorder"])
    cache = cashews.Cache()
    cache.setup("mem://")
    with tempfile.TemporaryDirectory() as folder:
        yield {
            "dictionary, sync": sync(dictionary),
            "ibidem, sync": sync(ibidem.wrap(order, guard)),
            "joblib Memory, sync": sync(joblib.Memory(folder, verbose=0).cache(order)),
            "ibidem, async": awaited(ibidem.wrap(aorder, guard)),
            "aiocache, async": awaited(aiocache.cached(ttl=600, namespace=str(id(value)))(aorder)),
            "cashews, async": awaited(cache(ttl="10m")(aorder)),
            "cashews with lock, async": awaited(cache(ttl="10m", lock=True, prefix="locked")(aorder)),
        }
    runner.run(cache.close())


def stampede(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what a thousand identical calls take that begin together."""
    latency = 0.005 if quick else LATENCY
    makers = {BY_HAND: _by_hand, "ibidem": _by_ibidem, "cashews with lock": _by_cashews}
    subjects = {name: (lambda make=make: runner.run(_together(make, latency))) for name, make in makers.items()}
    results = interleave(subjects, rounds, warmup=1 if quick else 3)
    rows = [
        [name, results.runs(name), results.spread(name, "wall").text(1e3), results.spread(name, "cpu").text(1e3)]
        for name in subjects
    ]
    title = f"{CALLERS:,} identical calls at once, one run takes {latency * 1e3:g} ms"
    report.table(title, ["memo", "runs", "wall ms", "CPU ms"], rows)
    report.exactly(f"{CALLERS:,} identical calls: runs", results.runs("ibidem") or 0, 1)
    ratio = results.ratio("ibidem", BY_HAND, "wall")
    report.at_most(f"{CALLERS:,} identical calls: wall of {BY_HAND}", ratio.median, STAMPEDE, ratio.text(1, 3))


async def _together(make: Callable[[Any], Any], latency: float) -> Sample:
    """Time a thousand calls that begin together, behind a memo that knows nothing yet."""
    runs = 0

    async def order(order_id: str) -> str:  # noqa: ARG001
        nonlocal runs
        runs += 1
        await asyncio.sleep(latency)
        return TEXT

    async with make(order) as function:
        with clocked() as sample:
            answers = await asyncio.gather(*(function("42") for _ in range(CALLERS)))
    if answers != [TEXT] * CALLERS:
        raise RuntimeError("a caller got a wrong answer")
    sample.runs = runs
    return sample


@contextlib.asynccontextmanager
async def _by_hand(function: Any) -> Any:
    """Share a future: the least that merging calls can cost. It forgets to mind cancellation, errors and copies."""
    flights: dict[str, asyncio.Future[Any]] = {}

    async def shared(order_id: str) -> Any:
        flight = flights.get(order_id)
        if flight is not None:
            return await flight
        flight = flights[order_id] = asyncio.get_running_loop().create_future()
        flight.set_result(await function(order_id))
        return flight.result()

    yield shared


@contextlib.asynccontextmanager
async def _by_ibidem(function: Any) -> Any:
    yield ibidem.wrap(function, ibidem.Guard(reads=["order"]))


@contextlib.asynccontextmanager
async def _by_cashews(function: Any) -> Any:
    cache = cashews.Cache()
    cache.setup("mem://")
    yield cache(ttl="10m", lock=True)(function)
    await cache.close()
