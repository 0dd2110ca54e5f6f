"""Measure what ibidem costs: a hit, a miss, an undeclared call, a direct hit, a stampede, an import, a full store.

Everything is a ratio within one run: each round runs the same turn of no-op tools without ibidem and with it, one right
after the other, and the median of the rounds' ratios is what counts. Times are of the processor, all threads of the
process together, except where many callers wait: there the clock on the wall counts too. Absolute figures are those of
the machine at hand; the ratios should hold on another.

`heard` means that a callback handler is in the configuration: then a hit may not skip what the handler is told by.
"""

import sys

import _direct
import _footprint
import _paths
from _measure import Report, arguments, finish, loop

ROUNDS = 41


def measure(rounds: int, *, quick: bool = False) -> Report:
    """Measure everything."""
    report = Report("cost")
    few = max(1, rounds // 2)
    with loop() as runner:
        _paths.measure(report, rounds, quick=quick, runner=runner)
        _direct.hits(report, rounds, quick=quick, runner=runner)
        _direct.stampede(report, few, quick=quick, runner=runner)
    _footprint.imports(report, few, quick=quick)
    _footprint.memory(report, quick=quick)
    return report


def main() -> int:
    """Run as the command line asks; return the exit code."""
    given = arguments(__doc__.partition("\n")[0], ROUNDS).parse_args()
    return finish(measure(given.rounds or (1 if given.quick else ROUNDS), quick=given.quick), given)


if __name__ == "__main__":
    sys.exit(main())
