"""Linearizability of registers: whether operations that overlapped in time can have happened one after the other.

A history is linearizable if every operation can be given a moment between its beginning and its end such that, in the order
of these moments, each read answers what the last write before it wrote. The search is that of Wing and Gong, "Testing
and verifying concurrent objects" (1993), with Lowe's memory of the states that have led nowhere (2017). Registers are
judged one by one: a history is linearizable if that of each register is (Herlihy and Wing, 1990).
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Operation:
    """A read or a write of a register."""

    register: str
    kind: str
    """`read` or `write`."""
    value: Any
    began: float
    ended: float = math.inf
    """Infinite if its process died in the middle: such a write has happened at any time after it began, or never."""
    process: str = ""


def violation(history, initial=None):
    """Give the operations of a register that cannot have happened in any order; None if the history is linearizable.

    Args:
        history: Operations, in any order.
        initial: What every register holds at first; values are hashable.
    """
    registers = defaultdict(list)
    for operation in history:
        registers[operation.register].append(operation)
    for operations in registers.values():
        if not _linearizable(operations, initial):
            return sorted(operations, key=lambda operation: operation.began)
    return None


def _linearizable(history, initial):
    """Search for an order.

    A state is the operations that have happened, as bits, and the value. An operation may be next if none that has not
    happened ended before it began. A read that answers the value of a state may happen there at once: it changes nothing, so
    whatever can follow without it can follow after it. Only writes are choices.
    """
    operations = sorted(
        (each for each in history if each.kind == "write" or each.ended < math.inf), key=lambda each: each.began
    )
    must = sum(1 << n for n, each in enumerate(operations) if each.ended < math.inf)
    states, seen = [(0, initial)], set()
    while states:
        happened, value = states.pop()
        while True:
            possible = list(_next(operations, happened))
            reads = [n for n in possible if operations[n].kind == "read" and operations[n].value == value]
            if not reads:
                break
            for n in reads:
                happened |= 1 << n
        if happened & must == must:
            return True
        if (happened, value) in seen:
            continue
        seen.add((happened, value))
        states += [(happened | 1 << n, operations[n].value) for n in possible if operations[n].kind == "write"]
    return False


def _next(operations, happened):
    """Give the operations that may be next."""
    first_end = math.inf
    for n, operation in enumerate(operations):
        if happened >> n & 1:
            continue
        if operation.began > first_end:  # and so did all after it
            return
        first_end = min(first_end, operation.ended)
        yield n
