"""The judge of histories: it finds the order there is, and finds none where there is none."""

import itertools
import math
import random

import pytest
from linearizable import Operation, violation


def read(value, began, ended, register="x"):
    return Operation(register, "read", value, began, ended)


def write(value, began, ended=math.inf, register="x"):
    return Operation(register, "write", value, began, ended)


LINEARIZABLE = {
    "nothing": [],
    "what was never written": [read(0, 0, 1)],
    "one after the other": [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
    "the old value during a write": [write(1, 0, 5), read(0, 1, 2)],
    "the new value during a write, and then again": [write(1, 0, 5), read(1, 1, 2), read(1, 3, 4)],
    "a write whose process died, and which happened late": [write(1, 0), read(0, 1, 2), read(1, 3, 4)],
    "a write whose process died, and which never happened": [write(1, 0), read(0, 1, 2), read(0, 3, 4)],
    "two writes at once, in either order": [
        write(1, 0, 9),
        write(2, 0, 9),
        read(2, 1, 2),
        read(1, 3, 4),
        read(1, 10, 11),
    ],
    "a read that never ended": [write(1, 0, 1), read(7, 2, math.inf)],
    "registers of their own": [write(1, 0, 1), read(0, 2, 3, "y")],
}
NOT_LINEARIZABLE = {
    "a stale read": [write(1, 0, 1), read(0, 2, 3)],
    "a value that nobody wrote": [write(1, 0, 1), read(2, 2, 3)],
    "the new value and then the old one, during a write": [write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)],
    "the old value after a dead process's write was seen": [write(1, 0), read(1, 1, 2), read(0, 3, 4)],
    "two readers that see two writes in opposite orders": [
        *(write(1, 0, 1), write(2, 0, 1)),
        *(read(1, 2, 9), read(2, 10, 11), read(2, 2, 3), read(1, 4, 5)),
    ],
    "a missing value": [write(1, 0, 1), read(None, 2, 3)],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_an_order_is_found(name):
    assert violation(LINEARIZABLE[name], 0) is None


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_no_order_is_found_where_there_is_none(name):
    assert violation(NOT_LINEARIZABLE[name], 0) is not None


def by_trying_all_orders(history):
    """Judge as the definition says, in as many steps as there are orders."""
    optional = [each for each in history if each.ended == math.inf]
    certain = [each for each in history if each.ended < math.inf]
    for count in range(len(optional) + 1):
        for also in itertools.combinations(optional, count):
            for order in itertools.permutations([*certain, *also]):
                value, latest, right = 0, -math.inf, True
                for each in order:
                    latest = max(latest, each.began)
                    right = right and each.ended > latest and (each.kind == "write" or each.value == value)
                    value = each.value if each.kind == "write" else value
                if right:
                    return True
    return False


def test_the_search_agrees_with_trying_all_orders():
    rng, found = random.Random(1), set()
    for _ in range(400):
        history = []
        for n in range(1, 6):
            began = rng.random()
            if rng.random() < 0.5:
                history.append(write(n, began, began + rng.random() if rng.random() < 0.8 else math.inf))
            else:
                history.append(read(rng.randrange(4), began, began + rng.random()))
        expected = by_trying_all_orders(history)
        assert (violation(history, 0) is None) == expected, history
        found.add(expected)
    assert found == {True, False}
