"""Order: which step waits for which, found without running anything.

Beside the results that a step needs and the steps it was told to wait for, hazards order steps as they order the calls
of a turn: in the order of writing or, where a step needs a later one, after that. An edge of a hazard never closes a
cycle, since it goes from earlier to later in an order that serves the other edges already.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter

from ibidem.core.effects import Nested, Pure
from ibidem.core.hazards import Access, Kind, hazard


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
        self.hazards: dict[tuple[int, int], Kind] = {}
        """Why a step waits for another that it was not told to wait for."""
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
        if not any(access.effect.changes for access in accesses):
            return
        before: list[int] = []
        changing: list[int] = []
        for later in self.sequence:
            effect = accesses[later].effect
            if not effect.declared or isinstance(effect, (Pure, Nested)):
                continue
            for earlier in before if effect.changes else changing:  # what only reads passes what only reads
                kind = None if earlier in self.needs[later] else hazard(accesses[earlier], accesses[later])
                if kind is not None:
                    self.hazards[earlier, later] = kind
                    self.needs[later] |= {earlier}
                    self.followers[earlier].append(later)
            before.append(later)
            if effect.changes:
                changing.append(later)

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


def _circle(needs: Mapping[int, frozenset[int]]) -> list[int]:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as problem:
        return list(problem.args[1])
    raise AssertionError("there is no circle")
