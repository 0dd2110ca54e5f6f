"""Order: which step waits for which, found without running anything.

Beside the results that a step needs and the steps it was told to wait for, hazards order steps as they order the calls
of a turn: in the order of writing or, where a step needs a later one, after that. An edge of a hazard never closes a
cycle, since it goes from earlier to later in an order that serves the other edges already.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from ibidem.core.hazards import Access, is_ordered
from ibidem.core.resources import Cell, read_cells, write_cells


class Order:
    """The order of a plan's steps, which are numbered as they were written.

    Args:
        needs: For each step the steps that it waits for.
        accesses: What each does to the world.

    Raises:
        Cycle: The steps wait for each other in a circle.
    """

    def __init__(self, needs: Sequence[frozenset[int]], accesses: Sequence[Access]) -> None:
        self.needs = list(needs)
        """For each step those that it waits for."""
        self.followers: list[list[int]] = [[] for _ in needs]
        """For each step those that wait for it."""
        for step, waited in enumerate(needs):
            for other in waited:
                self.followers[other].append(step)
        self.sequence = _sequence(self.needs, self.followers)
        """An order in which the steps could run one by one."""
        self._add_hazards(accesses)
        self.remaining = [1] * len(needs)
        """For each step the longest way from it to the end, in steps."""
        for step in reversed(self.sequence):
            if self.followers[step]:
                self.remaining[step] = 1 + max([self.remaining[other] for other in self.followers[step]])

    def _add_hazards(self, accesses: Sequence[Access]) -> None:
        if any(access.effect.changes for access in accesses):
            for earlier, later in _hazards(self.sequence, self.needs, accesses):
                self.needs[later] |= {earlier}
                self.followers[earlier].append(later)

    @cached_property
    def batches(self) -> list[list[int]]:
        """The steps in batches, each of which needs only those before it."""
        sorter = TopologicalSorter(dict(enumerate(self.needs)))
        sorter.prepare()
        found = []
        while sorter.is_active():
            ready = sorter.get_ready()
            found.append(sorted(ready))
            sorter.done(*ready)
        return found

    def above(self, step: int) -> set[int]:
        """Give a step and all that it waits for, directly or not."""
        found, left = {step}, [step]
        while left:
            for other in self.needs[left.pop()]:
                if other not in found:
                    found.add(other)
                    left.append(other)
        return found


class Cycle(ValueError):  # noqa: N818
    """Steps that wait for each other.

    Args:
        path: The steps of the circle, the first again at the end; each is waited for by the next.
    """

    def __init__(self, path: Sequence[int]) -> None:
        super().__init__("the steps wait for each other in a circle")
        self.path = path


def _sequence(needs: Sequence[frozenset[int]], followers: Sequence[Sequence[int]]) -> list[int]:
    """Order the steps as written, as far as what they need allows.

    Not by `graphlib`, whose order within a batch is not that of writing.
    """
    waiting = [len(waited) for waited in needs]
    ready = [step for step, count in enumerate(waiting) if not count]
    found: list[int] = []
    while ready:
        step = heapq.heappop(ready)
        found.append(step)
        for follower in followers[step]:
            waiting[follower] -= 1
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    if len(found) < len(needs):
        raise Cycle(_circle(dict(enumerate(needs))))
    return found


def _hazards(
    sequence: Sequence[int], needs: Sequence[Iterable[int]], accesses: Sequence[Access]
) -> Iterator[tuple[int, int]]:
    """Give the pairs of an earlier and a later step that hazards order, without those that others imply.

    By the cells that reads look at and writes raise, as in `core.resources`: to compare each step with each would take seconds
    for a plan of a thousand. Sets of steps are numbers whose bits are places in the sequence.
    """
    place = {step: number for number, step in enumerate(sequence)}
    above: list[int] = []
    of_reads: dict[Cell, int] = {}
    of_writes: dict[Cell, int] = {}
    reads = writes = unknown_reads = unknown_writes = 0
    for number, step in enumerate(sequence):
        effect, touched = accesses[step]
        waits = 0
        for other in needs[step]:
            waits |= above[place[other]] | 1 << place[other]
        if is_ordered(effect):
            looked = read_cells(touched or ())
            raised = write_cells(touched or ()) if effect.changes else ()
            found = writes if touched is None else unknown_writes
            if effect.changes:
                found |= reads if touched is None else unknown_reads
            for cell in looked:
                found |= of_writes.get(cell, 0)
            for cell in raised:
                found |= of_reads.get(cell, 0)
            while found := found & ~waits:
                latest = found.bit_length() - 1
                yield sequence[latest], step
                waits |= above[latest] | 1 << latest
            bit = 1 << number
            if effect.changes:
                writes |= bit
                unknown_writes |= bit if touched is None else 0
                of_writes.update({cell: of_writes.get(cell, 0) | bit for cell in raised})
            else:
                reads |= bit
                unknown_reads |= bit if touched is None else 0
                of_reads.update({cell: of_reads.get(cell, 0) | bit for cell in looked})
        above.append(waits)


def _circle(needs: Mapping[int, frozenset[int]]) -> list[int]:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as problem:
        return list(problem.args[1])
    raise AssertionError("there is no circle")
