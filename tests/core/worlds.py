"""A simulated world and an oracle: what a read may answer, given what had finished before it was issued.

A resource counts its changes by who made them: by declared writes, which every read must see, and by the undeclared
calls of each conversation, which the reads of that conversation must see (and, if it has no thread, those of everyone
or of its user). A read answers the counters it saw. It is wrong if one of them is below what had *finished* before the
read was issued; what is still under way it may see or not.
"""

import asyncio
import contextlib
import functools
import random
import types
from collections import Counter

from ibidem import Guard, Live, Nested, Read, Write, wrap
from ibidem.testing import run_shuffled

NAMES = ("a", "b", "c")
CONVERSATIONS = ("1", "2", None)
USERS = (None, "ann", "bob")


class World:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.state = {name: Counter() for name in NAMES}
        self.finished = {name: Counter() for name in NAMES}
        self.wrong = []
        self.busy = self.random.choice((0.1, 0.2, 0.4))
        """The part of calls that change something."""
        self.crowded = self.random.random() < 0.7
        """Whether all callers are of one conversation and one user."""
        self.unclear = False
        """Whether the answer of a change was lost, so that it stays open."""

    # -- what tools do

    async def pause(self):
        for _ in range(self.random.randrange(3)):
            await asyncio.sleep(self.random.choice((0, 0, 1, 2)))

    async def look(self, *names):
        await self.pause()
        seen = {}
        for name in names:
            seen[name] = dict(self.state[name])
            await self.pause()
        return seen

    async def change(self, names, by, done):
        """Change some resources; `done` learns what was changed, however it ends."""
        await self.pause()
        for name in names:
            self.state[name][by] += 1
            done.append((name, by, self.state[name][by]))
            await self.pause()
        self.fail(by)

    def fail(self, by):
        """End a change as it may end: some say that they failed, a few of the declared ones leave it unclear."""
        if self.random.random() < 0.2:
            if by == "declared" and self.random.random() < 0.2:
                self.unclear = True
                raise TimeoutError("the answer was lost")
            raise OSError("the connection was lost")

    # -- what callers see

    def issue(self):
        return {name: Counter(counts) for name, counts in self.finished.items()}

    def has_finished(self, done):
        for name, by, count in done:
            self.finished[name][by] = max(self.finished[name][by], count)

    def judge(self, kind, answer, issued, sees):
        for name, seen in answer.items():
            for by, least in issued[name].items():
                if sees(by) and seen.get(by, 0) < least:
                    self.wrong.append(f"{kind} of {name}: {by} answered {seen.get(by, 0)}, {least} had finished")


def sees(conversation, user, scope):
    """Whose changes a read must see."""

    def must(by):
        if by == "declared":
            return True
        kind, name, whose = by
        if (kind, name) == (("thread", conversation) if conversation else ("process", "")):
            return True
        # Changes made in no thread are told to their user's reads, or to everyone's, where these are shared.
        return kind == "process" and scope != "conversation" and whose in (None, user)

    return must


class Guarded:
    """The tools of a world, through a guard."""

    def __init__(self, world, guard, settle="1m"):
        self.world, self.guard = world, guard
        none = contextlib.nullcontext

        def enter(conversation, user):
            if conversation is None and user is None:
                return none()
            return guard.conversation(conversation, user=user)

        self.enter = enter

        async def read(name):
            return await world.look(name)

        async def both(name):
            """Tells only by its result what else it depends on."""
            return await world.look(name, after(name))

        async def outer(name):
            """A read that reads through the guard itself."""
            seen = await world.look(name)
            return {**seen, **await self.read["conversation"](after(name))}

        async def write(name, done):
            await world.change([name], "declared", done)

        async def write_all(done):
            await world.change(NAMES, "declared", done)

        async def write_also(name, done):
            await world.change([name, after(name)], "declared", done)
            return after(name)

        async def unknown(name, by, done):
            await world.change([name], by, done)

        async def unknown_reading(name, by, done):
            """An undeclared call that reads before and after it changes: it must see its own change."""
            await self.read["conversation"](name)
            await world.change([name], by, done)
            seen = await self.read["conversation"](name)
            mine = {name: Counter({by: count for _, by, count in done})}
            world.judge("nested read", seen, mine, lambda other: other == by)

        async def agent(job):
            return await job()

        def w(function, effect, name):
            twin = types.FunctionType(function.__code__, globals(), name, None, function.__closure__)
            return wrap(twin if effect is None else effect(twin), guard)

        self.read = {
            scope: w(read, Read("r:{name}", scope=scope, identity=f"read {scope}"), f"read_{scope}")
            for scope in ("conversation", "user", "shared")
        }
        self.anything = w(read, Read(identity="anything"), "anything")
        self.live = w(read, Live(merge=True), "live")
        self.both = w(
            both, Read("r:{name}", also=lambda a, seen: [("r", name) for name in seen], identity="both"), "both"
        )
        self.outer = w(outer, Read("r:*", identity="outer"), "outer")
        self.write = w(write, Write("r:{name}", settle=settle), "write")
        self.write_all = w(write_all, Write("r:*", settle=settle), "write_all")
        also = Write("r:{name}", also=lambda a, other: [("r", other)], settle=settle)
        self.write_also = w(write_also, also, "write_also")
        self.unknown = w(unknown, None, "unknown")
        self.unknown_reading = w(unknown_reading, None, "unknown_reading")
        self.agent = w(agent, Nested(), "agent")

    def reads(self):
        yield from (("read", scope, function) for scope, function in self.read.items())
        yield from ((kind, "conversation", getattr(self, kind)) for kind in ("anything", "live", "both", "outer"))

    def __len__(self):
        return len(self.guard._memo.flights)


def after(name):
    return NAMES[(NAMES.index(name) + 1) % len(NAMES)]


async def caller(tools, world, steps):
    """One conversation's loop: random calls, some cancelled, some in the body of another call."""
    rng = world.random
    conversation, user = ("1", "ann") if world.crowded else (rng.choice(CONVERSATIONS), rng.choice(USERS))
    with tools.enter(conversation, user):
        for _ in range(steps):
            step = functools.partial(one_call, tools, world, conversation, user)
            if rng.random() < 0.15:
                step = functools.partial(tools.agent, step)
            task = asyncio.ensure_future(step())
            if rng.random() < 0.2:
                await world.pause()
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await task
            await world.pause()


async def one_call(tools, world, conversation, user):
    rng = world.random
    name = rng.choice(NAMES)
    if rng.random() > world.busy:
        kind, scope, function = rng.choice(list(tools.reads()))
        issued = world.issue()
        answer = await function(name)
        world.judge(f"{scope} {kind}", answer, issued, sees(conversation, user, scope))
        return
    done = []
    by = ("thread", conversation, None) if conversation else ("process", "", user)
    kind = rng.choice(("write", "write_all", "write_also", "unknown", "unknown_reading"))
    function = getattr(tools, kind)
    arguments = {"write_all": (done,), "write": (name, done), "write_also": (name, done)}.get(kind, (name, by, done))
    try:
        await function(*arguments)
    finally:
        world.has_finished(done)


def play(seed, make=lambda world: Guarded(world, Guard()), callers=4, steps=7):
    """Play one seed and give the world afterwards."""
    world = World(seed)

    async def main():
        tools = make(world)
        await asyncio.gather(*(caller(tools, world, steps) for _ in range(callers)))
        return tools

    world.tools = run_shuffled(main(), seed)
    return world
