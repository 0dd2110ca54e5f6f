"""Measure what the disk costs: a hit from memory and from the disk, a miss, an invalidation, a locked database, a start.

Everything is a ratio within one run, beside plain `diskcache`, SQLite, joblib and LangGraph's `SqliteCache`. Values are
texts of 2 KB. Times are processor time of the calling thread: what the keeper does behind it is its own row.
"""

import asyncio
import contextlib
import json
import multiprocessing
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diskcache
import joblib
from langgraph.cache.sqlite import SqliteCache

import ibidem
from _direct import TEXT
from _measure import Report, Sample, Spread, arguments, clocked, finish, interleave

ROUNDS = 41
WARM_RATIO, WARM_US = 1.2, 1.0
"""What a warm hit may take at most: so many times one of the memory store, and so many microseconds."""
FIRST = 2.0
"""What a first hit from the disk may take at most of a bare `diskcache` get."""
MISS = 1.15
"""What a miss may take at most of one with the memory store."""
INVALIDATION_US = 10
STALL_MS = 20
"""What nothing on the event loop may take longer than, while another process holds the database's lock."""
START_MS = 50
KEYS = 300


def measure(rounds: int, *, quick: bool = False) -> Report:
    """Measure everything."""
    report = Report("disk")
    with tempfile.TemporaryDirectory(prefix="ibidem-disk-") as folder:
        _hits(report, rounds, Path(folder), quick=quick)
        _misses(report, rounds, Path(folder), quick=quick)
        _invalidation(report, rounds, Path(folder), quick=quick)
        _locked(report, Path(folder), quick=quick)
        _start(report, max(3, rounds // 8), Path(folder), quick=quick)
    return report


def _order(order_id: str) -> str:  # noqa: ARG001
    return TEXT


def _timed(call: Callable[[int], object], count: int) -> Callable[[], Sample]:
    def sample() -> Sample:
        with clocked(time.thread_time) as taken:
            for number in range(count):
                call(number)
        return taken

    return sample


def _hits(report: Report, rounds: int, folder: Path, *, quick: bool) -> None:
    count = 30 if quick else KEYS
    disk = ibidem.Disk(folder / "hits", key="a key of the benchmark")
    again = ibidem.Disk(folder / "hits", key="a key of the benchmark")
    effects = {"_order": ibidem.Read("order:{order_id}", scope="shared", ttl="1h")}
    memory = ibidem.wrap(_order, ibidem.Guard(effects=effects))
    warm = ibidem.wrap(_order, ibidem.Guard(effects=effects, store=disk))
    first = ibidem.wrap(_order, ibidem.Guard(effects=effects, store=again))
    cache = diskcache.Cache(str(folder / "diskcache"))
    plain = sqlite3.connect(folder / "plain.db", isolation_level=None)
    plain.executescript("PRAGMA journal_mode=WAL; CREATE TABLE kept (key TEXT PRIMARY KEY, value BLOB)")
    remembered = joblib.Memory(folder / "joblib", verbose=0).cache(_order)
    saved = SqliteCache(path=str(folder / "sqlite.db"))
    names = [f"O-{number}" for number in range(count)]
    for name in names:
        for function in (memory, warm, remembered):
            function(name)
        cache.set(name, TEXT)
        plain.execute("INSERT INTO kept VALUES (?, ?)", (name, TEXT))
        saved.set({(("orders",), name): (TEXT, None)})
    disk.flush()

    def from_disk() -> Sample:
        again._memory.close()
        return _timed(lambda n: first(names[n]), count)()

    subjects: dict[str, Callable[[], Sample]] = {
        "ibidem, memory store": _timed(lambda n: memory(names[n]), count),
        "ibidem, disk store, warm": _timed(lambda n: warm(names[n]), count),
        "ibidem, first hit from the disk": from_disk,
        "the same, without the call around it": lambda: _fetches(again, count, names),
        "diskcache get": _timed(lambda n: cache.get(names[n]), count),
        "SQLite select": _timed(
            lambda n: plain.execute("SELECT value FROM kept WHERE key = ?", (names[n],)).fetchone(), count
        ),
        "LangGraph SqliteCache get": _timed(lambda n: saved.get([(("orders",), names[n])]), count),
        "joblib hit": _timed(lambda n: remembered(names[n]), count),
    }
    results = interleave(subjects, rounds, warmup=1 if quick else 3)
    per = 1e6 / count
    report.table(
        "One hit, a text of 2 KB",
        ["what", "CPU us"],
        [[name, results.spread(name, "cpu").text(per)] for name in subjects],
    )
    pairs = zip(results.samples["ibidem, disk store, warm"], results.samples["ibidem, memory store"], strict=True)
    excess = Spread.of([(one.cpu - WARM_RATIO * other.cpu) * per for one, other in pairs])
    report.at_most(f"warm hit: us over {WARM_RATIO} memory hits", excess.median, WARM_US, excess.text())
    ratio = results.ratio("the same, without the call around it", "diskcache get", "cpu")
    report.at_most("first hit from the disk: of a diskcache get", ratio.median, FIRST, ratio.text())
    counted = ibidem.guard_of(first)
    report.exactly("first hits that ran the tool", counted.stats().ran if counted else -1, 0)
    for store in (disk, again):
        store.close()
    plain.close()
    cache.close()


def _fetches(store: Any, count: int, names: list[str]) -> Sample:
    """Time what the store adds to a call: looking for an entry that this process does not hold yet."""
    keys = [key for key, _ in store.entries()]
    by_name = {json.loads(key.arguments)["order_id"]: key for key in keys}
    wanted = [by_name[name] for name in names]
    store._memory.close()
    return _timed(lambda n: store.get(wanted[n]), count)()


def _misses(report: Report, rounds: int, folder: Path, *, quick: bool) -> None:
    count = 30 if quick else KEYS
    disk = ibidem.Disk(folder / "misses", key="a key of the benchmark")
    effects = {"_order": ibidem.Read("order:{order_id}", scope="shared")}
    runs = iter(range(10**9))

    def missing(store: Any) -> Callable[[], Sample]:
        function = ibidem.wrap(_order, ibidem.Guard(effects=effects, store=store))

        def sample() -> Sample:
            names = [f"O-{next(runs)}" for _ in range(count)]
            sample = _timed(lambda n: function(names[n]), count)()
            if isinstance(store, ibidem.Disk):
                store.flush()
            return sample

        return sample

    subjects = {"memory store": missing(ibidem.Memory()), "disk store": missing(disk)}
    results = interleave(subjects, rounds, warmup=1 if quick else 3)
    rows = [[name, results.spread(name, "cpu").text(1e6 / count)] for name in subjects]
    report.table("One miss of a tool that takes no time", ["store", "CPU us of the caller"], rows)
    ratio = results.ratio("disk store", "memory store", "cpu")
    report.at_most("a miss: of one with the memory store", ratio.median, MISS, ratio.text())
    report.exactly(
        "misses that are on the disk", disk.counts().get("stored", 0), count * (rounds + (1 if quick else 3))
    )
    disk.close()


def _invalidation(report: Report, rounds: int, folder: Path, *, quick: bool) -> None:
    count = 30 if quick else KEYS
    disk = ibidem.Disk(folder / "raise", key="a key of the benchmark")
    cells = (("conversation", "thread", "42"),)
    subjects = {
        "memory store": _timed(lambda _: memory.stamps.open(cells, cells).close(cells), count),
        "disk store": _timed(lambda _: disk.stamps.open(cells, cells).close(cells), count),
    }
    memory = ibidem.Memory()
    results = interleave(subjects, rounds, warmup=1 if quick else 3)
    rows = [[name, results.spread(name, "cpu").text(1e6 / count)] for name in subjects]
    report.table("What an undeclared call forgets: opened and closed", ["store", "CPU us"], rows)
    took = results.spread("disk store", "cpu")
    report.at_most(
        "invalidation by an undeclared call: us", took.median * 1e6 / count, INVALIDATION_US, took.text(1e6 / count)
    )
    disk.close()


def _hold(path: str, seconds: float, held: Any) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        held.set()
        time.sleep(seconds)
        connection.execute("COMMIT")


@contextlib.contextmanager
def _lock(path: Path, seconds: float) -> Iterator[None]:
    """Let another process hold the database's write lock."""
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    holder = context.Process(target=_hold, args=(str(path), seconds, held))
    holder.start()
    held.wait(30)
    try:
        yield
    finally:
        holder.join()


def _locked(report: Report, folder: Path, *, quick: bool) -> None:
    seconds = 0.3 if quick else 2.0
    disk = ibidem.Disk(folder / "locked", key="a key of the benchmark")
    effects = {"order": ibidem.Read("order:{order_id}"), "cancel": ibidem.Write("order:{order_id}")}
    guard = ibidem.Guard(effects=effects, store=disk)

    async def order(order_id: str) -> str:  # noqa: ARG001
        return TEXT

    async def cancel(order_id: str) -> str:  # noqa: ARG001
        return "done"

    async def other(order_id: str) -> str:
        return order_id

    tools = [ibidem.wrap(tool, guard) for tool in (order, cancel, other)]
    longest: dict[str, float] = {"with nothing to do": 0.0, "while calls are made": 0.0}

    async def turns(what: str, ends: float) -> int:
        calls = 0
        with guard.conversation("42"):
            while time.perf_counter() < ends:
                began = time.perf_counter()
                if what == "while calls are made":
                    for tool in tools:
                        await tool(f"O-{calls % 50}")
                    calls += len(tools)
                longest[what] = max(longest[what], time.perf_counter() - began)
                await asyncio.sleep(0)
        return calls

    with guard.conversation("42"):
        asyncio.run(tools[0]("O-0"))
    disk.flush()
    with _lock(folder / "locked" / "results" / "cache.db", seconds):
        made = asyncio.run(turns("while calls are made", time.perf_counter() + seconds * 0.9))
    asyncio.run(turns("with nothing to do", time.perf_counter() + seconds * 0.9))
    rows = [[what, f"{took * 1e3:.2f}"] for what, took in longest.items()]
    report.table(
        f"The longest turn of an event loop, the write lock held elsewhere for {seconds:g} s", ["", "ms"], rows
    )
    report.at_most("longest turn of the loop: ms", longest["while calls are made"] * 1e3, STALL_MS, f"{made:,} calls")
    disk.close()


_PROGRAM = """
import sys, time, ibidem
began = time.perf_counter()
guard = ibidem.Guard(store=sys.argv[1], key="a key of the benchmark")
opened = time.perf_counter()
def order(order_id):
    return sys.argv[2]
order = ibidem.wrap(order, guard.replace(effects={"order": ibidem.Read("order:{order_id}", scope="shared")}))
order("O-1")
print(opened - began, time.perf_counter() - opened, ibidem.guard_of(order).stats().memo)
"""


def _start(report: Report, rounds: int, folder: Path, *, quick: bool) -> None:
    calls: list[float] = []
    opens: list[float] = []
    found = 0
    for number in range((2 if quick else rounds) + 1):
        command = [sys.executable, "-c", _PROGRAM, str(folder / "start"), TEXT]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        if number:  # the first makes the store
            opens.append(float(done[0]) * 1e3)
            calls.append(float(done[1]) * 1e3)
            found += int(done[2])
    rows = [["opening", Spread.of(opens).text()], ["the first call, found on the disk", Spread.of(calls).text()]]
    report.table("A new process, after its imports", ["what", "wall ms"], rows)
    both = Spread.of([a + b for a, b in zip(opens, calls, strict=True)])
    report.at_most("opening and first call: ms", both.median, START_MS, both.text())
    report.exactly("first calls answered from the disk", found, len(calls))


def main() -> int:
    """Run as the command line asks; return the exit code."""
    given = arguments(__doc__.partition("\n")[0], ROUNDS).parse_args()
    return finish(measure(given.rounds or (1 if given.quick else ROUNDS), quick=given.quick), given)


if __name__ == "__main__":
    sys.exit(main())
