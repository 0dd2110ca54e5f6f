"""Measure what failures cost: results, payments made twice, time, load on what is down already, and the way of success.

Three tables, one run: a turn of six calls that fail in every way, through LangGraph, LangChain's middleware, tenacity and ibidem;
the load that two hundred calls put on a dependency that is dead; and what a call that succeeds pays for being looked after.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import purgatory
import tenacity

import _turns
import ibidem
from _measure import Report, Sample, arguments, clocked, finish, interleave, loop
from ibidem import Breaker, Guard, Retry

ROUNDS = 9
LOAD = 1.3
"""What reaches a dead dependency at most, for each call."""
LOOKED_AFTER_US, TIMEOUT_ASYNC_US, TIMEOUT_SYNC_US = 3, 20, 80
"""What a call that succeeds may pay at most for retry and breaker, and for a timeout."""


def loads(report: Report, *, runner: asyncio.Runner) -> None:
    """Add how often a dead dependency is asked."""
    calls = 200
    asked = [0]

    async def ask() -> None:
        asked[0] += 1
        raise _turns.DownError

    def tenacious(function: Any) -> Any:
        return tenacity.retry(stop=tenacity.stop_after_attempt(3), reraise=True)(function)

    def broken(function: Any) -> Any:
        return purgatory.AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=30)("down")(function)

    def guarded(**options: Any) -> Callable[[Any], Any]:
        return lambda function: ibidem.wrap(function, Guard(live=["ask"], **options))

    retry = Retry(first_delay="1ms")
    ways: dict[str, Callable[[Any], Any]] = {
        "nothing": lambda function: function,
        "tenacity, 3 tries": tenacious,
        "purgatory": broken,
        "tenacity around purgatory": lambda function: tenacious(broken(function)),
        "ibidem, retry": guarded(retry=retry),
        "ibidem, retry and breaker": guarded(retry=retry, breaker=Breaker()),
    }
    rows = []
    for name, around in ways.items():
        asked[0], call = 0, around(ask)

        async def together(call: Any = call) -> None:
            for _ in range(calls // 20):  # turns of twenty
                await asyncio.gather(*(call() for _ in range(20)), return_exceptions=True)

        runner.run(together())
        rows.append([name, asked[0], f"{asked[0] / calls:.2f}"])
        if name.startswith("ibidem"):
            report.at_most(f"dead dependency, {name}: requests a call", asked[0] / calls, LOAD)
    report.table(f"A dead dependency and {calls} calls, twenty at a time", ["", "requests", "a call"], rows)


def success(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what a call that succeeds pays."""
    repeats = 50 if quick else 500

    def noop(key: int) -> int:
        return key

    async def anoop(key: int) -> int:
        return key

    looked_after = {"retry": Retry(), "breaker": Breaker()}
    options: dict[str, dict[str, Any]] = {
        "memo layer alone": {},
        "retry, breaker": looked_after,
        "timeout": {"timeout": 30},
    }

    def sync(guard: Guard) -> Callable[[], Sample]:
        call = ibidem.wrap(noop, guard)

        def sample() -> Sample:
            with clocked() as sample:
                for _ in range(repeats):
                    call(1)
            return sample

        return sample

    def awaited(guard: Guard) -> Callable[[], Sample]:
        call = ibidem.wrap(anoop, guard)

        async def sample() -> Sample:
            with clocked() as sample:
                for _ in range(repeats):
                    await call(1)
            return sample

        return lambda: runner.run(sample())

    subjects = {f"{name}, sync": sync(Guard(live=["*noop"], **each)) for name, each in options.items()}
    subjects |= {f"{name}, async": awaited(Guard(live=["*noop"], **each)) for name, each in options.items()}
    results = interleave(subjects, rounds * 5, warmup=1 if quick else 5)
    scale = 1e6 / repeats
    rows = [[name, results.spread(name, "wall").text(scale)] for name in subjects]
    report.table("A call that succeeds", ["", "us"], rows)
    bounds = {"retry, breaker": (LOOKED_AFTER_US, LOOKED_AFTER_US), "timeout": (TIMEOUT_SYNC_US, TIMEOUT_ASYNC_US)}
    for name, both in bounds.items():
        for way, bound in zip(("sync", "async"), both, strict=True):
            # The least of many rounds: what others on the machine take comes on top, and never off.
            least = {
                each: min(s.wall for s in results.samples[f"{each}, {way}"]) for each in (name, "memo layer alone")
            }
            more = (least[name] - least["memo layer alone"]) * scale
            report.at_most(f"{name}, {way}: us more than the memo layer alone", more, bound)


def measure(rounds: int, *, quick: bool = False) -> Report:
    """Measure everything."""
    report = Report("failures")
    logging.getLogger("ibidem").setLevel(logging.CRITICAL)  # each failure that a model is told of is a line
    with loop() as runner:
        _turns.turns(report, rounds, quick=quick, runner=runner)
        loads(report, runner=runner)
        success(report, rounds, quick=quick, runner=runner)
    return report


def main() -> int:
    """Run as the command line asks; return the exit code."""
    given = arguments(__doc__.partition("\n")[0], ROUNDS).parse_args()
    return finish(measure(given.rounds or (1 if given.quick else ROUNDS), quick=given.quick), given)


if __name__ == "__main__":
    sys.exit(main())
