"""What the benchmarks share: interleaved rounds, medians of ratios, expectations, and the report.

A figure of another minute says little on a machine that does other things too. So the subjects of a comparison take
turns: each round runs every one of them once, in an order of its own, and a ratio is formed within the round. What is
reported is the median over the rounds, and the quartiles beside it. Garbage collection is off while a clock runs, and
the first rounds only warm up.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

Clock = Literal["wall", "cpu"]


@dataclass
class Sample:
    """What one turn of one subject took."""

    wall: float = 0.0
    """Seconds on the clock."""
    cpu: float = 0.0
    """Seconds of processor time of this process, all threads together."""
    runs: int | None = None
    """How often the tools ran, where that was counted."""


@contextlib.contextmanager
def clocked(processor: Callable[[], float] = time.process_time) -> Iterator[Sample]:
    """Time a block with garbage collection off; the sample is complete when the block ends.

    Args:
        processor: What processor time is read from; `time.thread_time` leaves other threads out.
    """
    sample = Sample()
    was_on = gc.isenabled()
    gc.disable()
    wall, cpu = time.perf_counter(), processor()
    try:
        yield sample
    finally:
        sample.cpu, sample.wall = processor() - cpu, time.perf_counter() - wall
        if was_on:
            gc.enable()


@dataclass(frozen=True)
class Spread:
    """The median of some figures and their quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> "Spread":
        """Summarise figures."""
        if len(figures) == 1:
            return cls(figures[0], figures[0], figures[0])
        low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
        return cls(median, low, high)

    def text(self, scale: float = 1.0, digits: int = 2) -> str:
        """Write it, as `median (low - high)`; a figure that stands alone, alone."""
        if self.low == self.high:
            return f"{self.median * scale:.{digits}f}"
        median, low, high = (f"{figure * scale:.{digits}f}" for figure in (self.median, self.low, self.high))
        return f"{median} ({low} - {high})"


@dataclass
class Results:
    """The samples of each subject, by round."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def spread(self, subject: str, clock: Clock) -> Spread:
        """Summarise what one subject took, in seconds."""
        return Spread.of([getattr(sample, clock) for sample in self.samples[subject]])

    def ratio(self, subject: str, to: str, clock: Clock) -> Spread:
        """Summarise the ratios of two subjects within each round."""
        pairs = zip(self.samples[subject], self.samples[to], strict=True)
        return Spread.of([getattr(one, clock) / max(getattr(other, clock), 1e-9) for one, other in pairs])

    def runs(self, subject: str) -> int | None:
        """How often the tools of a subject ran in its worst round."""
        return max((s.runs for s in self.samples[subject] if s.runs is not None), default=None)


def interleave(subjects: Mapping[str, Callable[[], Sample]], rounds: int, *, warmup: int = 3) -> Results:
    """Let the subjects take turns.

    Args:
        subjects: Each runs once a round and says what that took.
        rounds: How many count.
        warmup: Rounds before those, which do not.
    """
    results = Results({name: [] for name in subjects})
    order, shuffle = list(subjects), random.Random(1).shuffle
    for number in range(-warmup, rounds):
        if number == 0:
            gc.collect()
            gc.freeze()  # so that what the imports left behind is not looked through again and again
        shuffle(order)
        for name in order:
            sample = subjects[name]()
            if number >= 0:
                results.samples[name].append(sample)
        gc.collect()
    gc.unfreeze()
    return results


@contextlib.contextmanager
def loop() -> Iterator[asyncio.Runner]:
    """Give an event loop for a whole benchmark: making one for each sample would be measured too."""
    with asyncio.Runner() as runner:
        yield runner


@dataclass(frozen=True)
class Expectation:
    """What a figure should be at most, or exactly, and what it was."""

    what: str
    measured: float
    bound: float
    exact: bool = False
    detail: str = ""

    @property
    def holds(self) -> bool:
        """Whether it came true."""
        return self.measured == self.bound if self.exact else self.measured <= self.bound


@dataclass
class Report:
    """Tables and expectations, printed or written as JSON."""

    title: str
    tables: list[tuple[str, list[str], list[list[Any]]]] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)

    def table(self, title: str, heads: list[str], rows: Iterable[list[Any]]) -> None:
        """Add a table."""
        self.tables.append((title, heads, list(rows)))

    def at_most(self, what: str, measured: float, bound: float, detail: str = "") -> None:
        """Expect a figure to be no more than a bound."""
        self.expectations.append(Expectation(what, measured, bound, detail=detail))

    def exactly(self, what: str, measured: float, bound: float, detail: str = "") -> None:
        """Expect a count to be just this."""
        self.expectations.append(Expectation(what, measured, bound, exact=True, detail=detail))

    @property
    def missed(self) -> list[Expectation]:
        """What did not come true."""
        return [each for each in self.expectations if not each.holds]

    def as_json(self) -> str:
        """Write everything as one JSON object."""
        return json.dumps(
            {
                "title": self.title,
                "tables": [
                    {"title": title, "rows": [dict(zip(heads, row, strict=True)) for row in rows]}
                    for title, heads, rows in self.tables
                ],
                "expectations": [{**asdict(each), "holds": each.holds} for each in self.expectations],
            },
            indent=1,
        )

    def show(self, console: Console) -> None:
        """Print everything."""
        for title, heads, rows in self.tables:
            console.print(_table(title, heads, rows), "")
        rows = [
            [
                each.what,
                f"{each.measured:g}" if each.exact else f"{each.measured:.3f}",
                f"{'=' if each.exact else '<='} {each.bound:g}",
                "yes" if each.holds else "NO",
                each.detail,
            ]
            for each in self.expectations
        ]
        console.print(_table(f"{self.title}: expected", ["what", "measured", "expected", "holds", "spread"], rows))
        held = len(self.expectations) - len(self.missed)
        console.print(f"\n{held} of {len(self.expectations)} hold.")


def _table(title: str, heads: list[str], rows: list[list[Any]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, justify="left" if head in ("", "what", "holds", "spread") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    return table


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    """Make the parser of a benchmark's command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, help=f"rounds that count (default: {rounds})")
    parser.add_argument("--quick", action="store_true", help="one small round, to try it out: times mean nothing")
    parser.add_argument("--json", action="store_true", help="write JSON instead of tables")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if an expectation does not hold")
    return parser


def finish(report: Report, given: argparse.Namespace) -> int:
    """Write a report as the command line asks, and give the exit code."""
    if given.json:
        print(report.as_json())
    else:
        report.show(Console(width=None if sys.stdout.isatty() else 170, highlight=False))
    return 1 if given.strict and report.missed else 0
