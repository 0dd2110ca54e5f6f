"""Random plans in random schedules and virtual time give what running their steps one by one gives, in whatever order.

The other side is an interpreter of its own, a page long, that knows nothing of workers, waits or guards.
"""

import asyncio
import os
import random

import pytest

from ibidem import Guard, Plan, Read, Write
from ibidem.plan.checking import prepare
from ibidem.testing import run_shuffled

SOAK = os.environ.get("IBIDEM_SOAK")
PLANS = 10_000 if SOAK else 500
NAMES = ("a", "b")


class World:
    """Resources that tools read and change. A tool fails by its arguments, never by chance."""

    def __init__(self):
        self.state = dict.fromkeys(NAMES, 0)

    def pure(self, x=None, bad=False):
        if bad:
            raise OSError("bad")
        return {"x": x, "list": [1, 2, 3][: len(str(x)) % 4], "n": len(str(x)) % 7}

    def read(self, name, x=None):
        return {"x": x, "n": self.state[name], "list": [self.state[name]] * 2}

    def write(self, name, x=None, bad=False):
        self.state[name] = self.state[name] * 31 % 1_000_003 + len(str(x)) + 1
        if bad:
            raise OSError("bad")
        return {"n": self.state[name], "list": [], "x": None}


def tools_of(world, rng=None):
    """The tools of a world; with a generator they take their time."""

    async def pause():
        if rng is not None and rng.random() < 0.7:
            await asyncio.sleep(rng.choice([0, 0, 1, 2, 5]))

    async def pure(x=None, bad=False):
        await pause()
        return world.pure(x, bad)

    async def read(name, x=None):
        await pause()
        found = world.read(name, x)
        await pause()
        return found

    async def write(name, x=None, bad=False):
        await pause()
        done = world.write(name, x, bad)
        await pause()
        return done

    return [pure, read, write]


def random_plan(rng):
    """Make a plan as data, of every kind of step."""
    steps = []
    for number in range(rng.randrange(1, 12)):
        tool = rng.choice(["pure", "pure", "read", "write"])
        known = [each["id"] for each in steps]
        step = {"id": f"s{number}", "tool": tool, "args": {}}

        def reference(known=known):
            return f"${rng.choice(known)}" + rng.choice(["", ".n", ".x", ".list", ".list[0]", ".missing"])

        if known and rng.random() < 0.7:
            step["args"]["x"] = rng.choice(
                [reference(), [reference(), {"deep": reference()}], {"$text": [reference(), "!"]}]
            )
        if tool != "read" and rng.random() < 0.15:
            step["args"]["bad"] = True
        if tool != "pure":
            step["args"]["name"] = rng.choice(NAMES)
        if known and rng.random() < 0.2:
            step["map"] = f"${rng.choice(known)}.list"
            step["args"]["x"] = rng.choice(["$item", ["$item", reference()]])
        if known and rng.random() < 0.2:
            op = rng.choice(["eq", "ne", "lt", "gt", "in", "exists"])
            value = {"in": [1, 2], "exists": rng.random() < 0.7}.get(op, rng.randrange(4))
            step["when"] = [{"ref": reference(), "op": op, "value": value}]
        if known and rng.random() < 0.2:
            step["after"] = [rng.choice(known)]
        if rng.random() < 0.2:
            step["optional"] = True
        steps.append(step)
    return {"steps": steps}


class Gone(Exception):
    """A reference leads to nothing."""


def one_by_one(document, needs, rng):
    """Run the steps one after the other, in a random order of those that their needs allow."""
    world, told = World(), {step["id"]: step for step in document["steps"]}
    left, ended = list(told), {}

    def look(reference, item):
        head, *path = reference[1:].replace("[", ".[").split(".")
        value = item if head == "item" else ended[head][1]
        for key in path:
            try:
                value = value[int(key[1:-1]) if key.startswith("[") else key]
            except (KeyError, IndexError, TypeError):
                raise Gone from None
        return value

    def fill(value, item=None):
        if isinstance(value, str) and value.startswith("$"):
            return look(value, item)
        if isinstance(value, list):
            return [fill(part, item) for part in value]
        if isinstance(value, dict):
            if "$text" in value:
                parts = [fill(part, item) for part in value["$text"]]
                return "".join(part if isinstance(part, str) else __import__("json").dumps(part) for part in parts)
            return {key: fill(part, item) for key, part in value.items()}
        return value

    def condition(when):
        try:
            found = look(when["ref"], None)
        except Gone:
            if when["op"] == "exists":
                return not when["value"]
            raise
        try:
            return {
                "eq": lambda v: found == v,
                "ne": lambda v: found != v,
                "lt": lambda v: found < v,
                "gt": lambda v: found > v,
                "in": lambda v: found in v,
                "exists": lambda v: (found is not None) is v,
            }[when["op"]](when["value"])
        except TypeError:
            raise Gone from None

    def call(step, item=None):
        try:
            arguments = {name: fill(value, item) for name, value in step["args"].items()}
            return "done", getattr(world, step["tool"])(**arguments)
        except (Gone, OSError):
            return "failed", None

    def run(step):
        text = str({**step, "after": None, "id": None})
        used = {name for name in told if f"${name}." in text or f"${name}'" in text}
        blocking = {name for name in {*used, *step.get("after", ())} if not told[name].get("optional")}
        if any(ended[name][0] == "failed" for name in blocking):
            return "failed", None
        if any(ended[name][0] == "skipped" for name in blocking & used):
            return "skipped", None
        try:
            if not all(condition(when) for when in step.get("when", ())):
                return "skipped", None
            if "map" not in step:
                return call(step)
            over = look(step["map"], None)
        except Gone:
            return "failed", None
        if not isinstance(over, list):
            return "failed", None
        each = [call(step, item) for item in over]
        state = "failed" if any(state == "failed" for state, _ in each) else "done"
        keep = state == "done" or step.get("optional")
        return state, [value for _, value in each] if keep else None

    while left:
        name = rng.choice([name for name in left if not any(other in left for other in needs[name])])
        left.remove(name)
        ended[name] = run(told[name])
    return {name: (state, value) for name, (state, value) in ended.items()}, world.state


def compared(seed, make=random_plan, **options):
    """Run a plan shuffled, and one by one; give both."""
    rng = random.Random(seed)
    document, world = make(rng), World()
    guard = Guard(effects={"pure": Read("nothing", ttl=None), "read": Read("{name}"), "write": Write("{name}")})
    plan = Plan.from_json(document, tools_of(world, rng))
    prepared = prepare(plan, guard, None, awaits=True)
    names = list(plan.steps)
    needs = {names[n]: {names[other] for other in waited} for n, waited in enumerate(prepared.order.needs)}
    options = {"schedule": rng.choice(["eager", "batches"]), "max_concurrency": rng.choice([None, 1, 2]), **options}

    async def main():
        return await plan.arun(guard, **options)

    result = run_shuffled(main(), seed)
    ours = {each.id: (each.state, each.value if each.state != "skipped" else None) for each in result.steps.values()}
    for name, (state, value) in ours.items():
        if state == "failed" and not plan.steps[name].is_optional:
            ours[name] = (state, None)
    return (ours, world.state), one_by_one(document, needs, rng)


@pytest.mark.soak
def test_random_plans_give_what_their_steps_give_one_by_one():
    kinds = set()
    for seed in range(PLANS):
        ours, theirs = compared(seed)
        assert ours == theirs, f"seed {seed}"
        kinds |= {state for state, _ in ours[0].values()}
    assert kinds == {"done", "failed", "skipped"}


def test_without_hazards_the_comparison_fails(monkeypatch):
    """Negative control: where nothing keeps reads and writes in order, the results differ."""
    from ibidem.plan.order import Order

    monkeypatch.setattr(Order, "_add_hazards", lambda self, accesses: None)
    assert any(differ(seed) for seed in range(200))


def differ(seed):
    ours, theirs = compared(seed, max_concurrency=None, schedule="eager")
    return ours != theirs
