"""The order that hazards give the steps of a plan, against looking at each pair of steps."""

import random
import time

import pytest

from ibidem import Guard, Plan, Read, Write
from ibidem.core.effects import Live, Nested, Pure, Undeclared
from ibidem.core.hazards import Access, hazard
from ibidem.core.resources import Template
from ibidem.plan.order import Order

RESOURCES = [None, *((Template.parse(t).fill({})) for t in ("*", "a", "a:*", "a:1", "a:2", "a:1:x", "a:1:*", "b"))]
EFFECTS = [Read("a"), Read("a"), Write("a"), Pure(), Live(), Nested(), Undeclared()]


def above(needs):
    """For each step all that it waits for, directly or not."""
    found = {}

    def of(step):
        if step not in found:
            found[step] = set(needs[step]).union(*(of(other) for other in needs[step]))
        return found[step]

    return [of(step) for step in range(len(needs))]


@pytest.mark.parametrize("seed", range(300))
def test_each_hazard_is_kept_and_nothing_else_waits(seed):
    rng = random.Random(seed)
    count = rng.randrange(2, 14)
    after = list(range(count))
    rng.shuffle(after)  # a step may need one that is written after it
    needs = [set() for _ in range(count)]
    for place, step in enumerate(after):
        needs[step] = set(rng.sample(after[:place], min(place, rng.choice([0, 0, 1, 2]))))
    accesses = []
    for _ in range(count):
        effect, touched = rng.choice(EFFECTS), rng.choice(RESOURCES)
        accesses.append(Access(effect, None if touched is None else tuple(touched)))
    order = Order([set(each) for each in needs], accesses)
    wanted = [set(each) for each in needs]
    for place, later in enumerate(order.sequence):
        wanted[later] |= {e for e in order.sequence[:place] if hazard(accesses[e], accesses[later]) is not None}
    assert above(order.needs) == above(wanted)
    for step, waited in enumerate(order.needs):
        assert {step in order.followers[other] for other in waited} <= {True}
        for hazardous in waited - needs[step]:  # what others imply is not said
            assert not any(hazardous in above(order.needs)[other] for other in waited - {hazardous})


@pytest.mark.parametrize("argument", [lambda n: n, lambda n: 1, lambda n: "$first.id"])
def test_the_hazards_of_a_thousand_steps_take_a_moment(argument):
    """A document may come from anybody, and has a thousand steps at most."""

    def read(x=None):
        return {"id": x}

    def change(x=None):
        return x

    steps = [{"id": "first", "tool": "read"}]
    steps += [{"id": f"s{n}", "tool": ["read", "change"][n % 2], "args": {"x": argument(n)}} for n in range(999)]
    plan = Plan.from_json({"steps": steps}, [read, change])
    guard = Guard(effects={"read": Read("x:{x}"), "change": Write("x:{x}")})
    began = time.process_time()
    plan.check(guard)
    assert time.process_time() - began < 0.5
