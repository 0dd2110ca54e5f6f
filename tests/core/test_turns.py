"""The turn as a small program: what one call may change keeps its order, the rest runs at once, and nothing hangs."""

import asyncio
import contextlib
import functools
import os
import random
import threading

import pytest
from langgraph.errors import GraphInterrupt

from ibidem import Guard, Live, Pure, Read, Write, wrap
from ibidem.core.hazards import Access
from ibidem.core.turns import COMES, WRAPPED, Asked, Book, Turn
from ibidem.layers.hazards import Hazards
from ibidem.running import Step, arun_turn, asked_of
from ibidem.testing import run_shuffled

SCHEDULES = 10_000 if os.environ.get("IBIDEM_SOAK") else 300
NAMES = ("a", "b", "c")
MERGED = -1


class Refused(Exception):
    pass


class World:
    """Resources that count their writes, and tools over them that take their time."""

    def __init__(self, seed, *, undeclared=0.0, interrupts=0.15, threaded=False):
        self.random = random.Random(seed)
        self.state = dict.fromkeys(NAMES, 0)
        self.undeclared, self.interrupts = undeclared, interrupts
        self.asked = set()
        self.stale = []
        self.program = [self.draw(number) for number in range(self.random.randrange(2, 9))]

    def draw(self, number):
        kind = self.random.choice(["read", "read", "read_all", "write", "write", "write_all", "live", "pure"])
        if self.random.random() < self.undeclared:
            kind = "unknown"
        asks = kind not in ("pure", "unknown") and self.random.random() < self.interrupts
        merges = kind in ("read", "read_all", "pure") and not asks  # identical ones share a run, and are remembered
        return kind, {"name": self.random.choice(NAMES), "n": MERGED if merges else number}, asks

    async def pause(self):
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(self.random.choice((0, 0, 1, 2)))

    async def run(self, kind, name, n):
        await self.pause()
        asks = n != MERGED and self.program[n][2]
        if asks and n not in self.asked:
            self.asked.add(n)
            raise GraphInterrupt(())
        names = NAMES if kind in ("read_all", "write_all", "live") else (name,)
        seen = []
        for each in names:
            if kind in ("write", "write_all", "unknown"):
                self.state[each] = self.state[each] * 10 + n + 1
            elif kind != "pure":
                seen.append(self.state[each])
            await self.pause()
        return (kind, name, *seen)

    def in_order(self):
        """What running the calls one by one gives."""
        state, answers = dict.fromkeys(NAMES, 0), []
        for kind, arguments, _ in self.program:
            n, name = arguments["n"], arguments["name"]
            names = NAMES if kind in ("read_all", "write_all", "live") else (name,)
            if kind in ("write", "write_all", "unknown"):
                state = {k: v * 10 + n + 1 if k in names else v for k, v in state.items()}
                answers.append((kind, name))
            else:
                answers.append((kind, name, *(() if kind == "pure" else (state[each] for each in names))))
        return state, answers

    def tools(self):
        def make(kind):
            async def tool(name, n):
                return await self.run(kind, name, n)

            tool.__name__ = kind
            return tool

        return {kind: make(kind) for kind in (*EFFECTS, "unknown")}


EFFECTS = {
    "read": Read(lambda a: [("r", a["name"])], identity="read"),
    "read_all": Read("r:*", identity="read_all"),
    "write": Write(lambda a: [("r", a["name"])]),
    "write_all": Write("r:*"),
    "live": Live(),
    "pure": Pure(identity="pure"),
}


def without_hazards(guard):
    """The negative control: the same layers, but for the one that keeps order."""
    from ibidem.layers.chain import Chains

    guard.layers = tuple(layer for layer in guard.layers if not isinstance(layer, Hazards))
    guard._chains = Chains(guard.layers)
    return guard


async def play(world, guard):
    """Run the turn; after an interrupt, run again what has not ended, as a graph does on resume."""
    tools = {kind: wrap(tool, guard) for kind, tool in world.tools().items()}
    answers = {}

    async def one(position):
        kind, arguments, _ = world.program[position]
        answers[position] = (await guard.arun(tools[kind], **arguments)).value

    while len(answers) < len(world.program):
        left = [position for position in range(len(world.program)) if position not in answers]
        calls = [(tools[world.program[position][0]], (), world.program[position][1]) for position in left]
        steps = [
            Step(asked_of(*each), functools.partial(one, position)) for each, position in zip(calls, left, strict=True)
        ]
        with contextlib.suppress(GraphInterrupt):
            await arun_turn(steps)
    return [answers[position] for position in range(len(world.program))]


def outcome_of(seed, make=lambda: Guard(effects=EFFECTS), **options):
    world = World(seed, **options)
    answers = run_shuffled(play(world, make()), seed)
    return world, answers


@pytest.mark.soak
def test_a_turn_answers_as_if_it_ran_one_by_one():
    for seed in range(SCHEDULES):
        world, answers = outcome_of(seed)
        assert (world.state, answers) == world.in_order(), f"seed {seed}: {world.program}"


def test_without_hazards_it_does_not():
    """The negative control: the check above can fail."""
    wrong = 0
    for seed in range(100):
        world, answers = outcome_of(seed, lambda: without_hazards(Guard(effects=EFFECTS)))
        wrong += (world.state, answers) != world.in_order()
    assert wrong > 20


@pytest.mark.soak
def test_with_undeclared_calls_mixed_in_nothing_is_stale_afterwards():
    for seed in range(SCHEDULES):
        world = World(seed, undeclared=0.3, interrupts=0)
        guard = Guard(effects=EFFECTS)

        async def main(world=world, guard=guard):
            await play(world, guard)
            read = world.tools()["read"]
            return [(await guard.arun(read, name, MERGED)).value[-1] for name in NAMES]

        assert run_shuffled(main(), seed) == list(world.state.values()), f"seed {seed}"


# -- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 6])
def test_no_deadlock_in_a_pool_of_few_threads(threads, monkeypatch):
    from ibidem import running
    from ibidem.core import pool, runtime

    few = pool.Pool(threads)
    for module in (running, runtime):
        monkeypatch.setattr(module, "POOL", few)
    state, log, lock = dict.fromkeys(NAMES, 0), [], threading.Lock()

    def read(name: str, n: int) -> int:
        return state[name]

    def write(name: str, n: int) -> None:
        with lock:
            state[name] += 1
            log.append((name, n))

    guard = Guard(effects={"read": EFFECTS["read"], "write": EFFECTS["write"]})
    calls = [(tool, {"name": name, "n": n}) for n in range(4) for name in NAMES for tool in (write, read)]
    outcomes = guard.gather(calls)
    assert [o.value for o, (tool, _) in zip(outcomes, calls, strict=True) if tool is read] == [1] * 3 + [2] * 3 + [
        3
    ] * 3 + [4] * 3
    assert all([n for each, n in log if each == name] == [0, 1, 2, 3] for name in NAMES)


# -- how the earlier one ended ----------------------------------------------------------------------------------------


def failing(problem):
    ran = []

    def first(name: str) -> None:
        ran.append("first")
        raise problem

    def second(name: str) -> str:
        ran.append("second")
        return "done"

    def look(name: str) -> str:
        ran.append("look")
        return "seen"

    effects = {"first": Write("r:{name}"), "second": Write("r:{name}"), "look": Read("r:{name}")}
    return ran, effects, [(each, {"name": "a"}) for each in (first, second, look)]


def test_a_failed_write_does_not_block_what_follows_and_that_learns_of_it():
    ran, effects, calls = failing(ValueError("no such order"))
    events = []
    outcomes = Guard(effects=effects, on_event=events.append).gather(calls)
    assert ran == ["first", "second", "look"]
    assert outcomes[1].value == "done"
    assert [str(each) for each in outcomes[1].after] == ["1 first (write after write, failed)"]
    assert [str(each) for each in outcomes[2].after] == [
        "1 first (read after write, failed)",
        "2 second (read after write)",
    ]
    assert [e.reason for e in events if e.kind == "waited" and e.tool == "second"] == [
        "1 first (write after write, failed)"
    ]


def test_after_an_unknown_outcome_a_conflicting_write_is_skipped_and_says_why():
    ran, effects, calls = failing(TimeoutError())
    outcomes = Guard(effects=effects).gather(calls)
    assert ran == ["first", "look"]
    assert outcomes[0].fault.kind == "maybe_executed"
    assert outcomes[1].fault.kind == "upstream_failed"
    assert "1, first" in outcomes[1].fault.message
    assert outcomes[1].fault.may_have_run is False
    assert outcomes[2].value == "seen"


def test_it_is_run_where_the_guard_says_so():
    ran, effects, calls = failing(TimeoutError())
    outcomes = Guard(effects=effects, after_unknown="run").gather(calls)
    assert ran == ["first", "second", "look"]
    assert outcomes[1].value == "done"


def test_after_unknown_takes_two_words():
    with pytest.raises(ValueError, match="after_unknown='stop' is unknown"):
        Guard(after_unknown="stop")


def test_what_does_not_touch_the_same_runs_after_an_unknown_outcome():
    ran, effects, calls = failing(TimeoutError())
    outcomes = Guard(effects=effects).gather([calls[0], (calls[1][0], {"name": "b"})])
    assert outcomes[1].value == "done"


# -- turns whose calls come one by one ----------------------------------------------------------------------------------


def asked(*effects):
    return [Asked(f"t{n}", f"{n}", None, Access(effect, effect.touched({}))) for n, effect in enumerate(effects)]


def test_a_turn_without_changes_is_none():
    assert Turn.of(asked(Read(), Read(), Live()), sure=True) is None
    assert Turn.of(asked(Write()), sure=True) is None
    assert Turn.of(asked(Read(), Write()), sure=True) is not None


def test_a_book_keeps_the_turn_of_a_run_and_tells_the_next_run_how_it_ended():
    book, one, two = Book(), object(), object()

    def make():
        return Turn(asked(Write(), Read()), sure=False)

    turn = book.turn("k", one, make)
    assert book.turn("k", one, make) is turn
    turn.places[0].end("done")
    turn.places[1].end("interrupted")
    again = book.turn("k", two, make)
    assert again is not turn
    assert [place.before for place in again.places] == ["done", "interrupted"]
    assert [place.ended_before for place in again.places] == [True, False]


def test_a_place_waits_only_for_what_it_must_not_pass():
    turn = Turn(asked(Write("r:1"), Write("r:2"), Read("r:1"), Pure()), sure=True)
    first, second, read, pure = turn.places
    assert [read.needs(first), read.needs(second)] == ["end", None]
    assert not pure.earlier
    first.end("done")
    assert not read.waits


def test_what_may_still_be_changed_is_waited_for_until_it_arrives():
    turn = Turn(asked(Write("r:1"), Read("r:2")), sure=False)
    write, read = turn.places
    assert read.needs(write) == "arrival"
    write.arrive(None, Access(Write("r:2"), Write("r:2").touched({})))
    assert read.needs(write) == "end"


def test_only_who_should_have_come_by_then_is_not_waited_for_any_longer():
    """What comes after the one that gives up may have no thread yet, and what is in a wrapper has more time."""
    turn = Turn(asked(Write(), Write(), Write(), Write()), sure=False)
    never, wrapped, waits, later = turn.places
    with wrapped:
        turn.give_up(COMES, waits)
        assert [each.missed for each in turn.places] == [True, False, False, False]
        turn.give_up(WRAPPED, waits)
        assert [each.missed for each in turn.places] == [True, True, False, False]
    never.arrive(None, never.access)
    assert not never.missed, "it has come after all"
    assert not wrapped.missed
    assert later.needs(never) == "end"


def test_a_call_that_is_made_again_has_ended_when_its_last_run_has():
    turn = Turn(asked(Write(), Read()), sure=False)
    write = turn.places[0]
    with write:
        with contextlib.suppress(ValueError), write:
            raise ValueError
        assert not write.ended
    assert write.state == "done"
