"""The runtime: one async source serves synchronous and asynchronous callers; failures inside are values."""

import asyncio
import contextvars
import threading

import pytest
from test_flights import offloaded, until

from ibidem import Guard, Outcome, Read, Write, wrap
from ibidem.core.call import current
from ibidem.core.runtime import run_blocking
from ibidem.testing import run_shuffled

LONG = 20


def test_a_chain_of_layers_runs_to_its_end_in_one_send():
    async def inner(n):
        return n + 1

    async def outer():
        return await inner(await inner(1))

    assert run_blocking(outer()) == 3


def test_a_layer_that_awaits_the_world_is_told_what_to_use():
    closed = []

    async def layer():
        try:
            await asyncio.sleep(0)
        finally:
            closed.append(True)

    with pytest.raises(RuntimeError, match=r"use `await call.runtime.sleep"):
        run_blocking(layer())
    assert closed == [True]


def test_layers_serve_both_kinds_of_callers():
    seen = []

    class Tell:
        def __init__(self, name):
            self.name = name

        async def __call__(self, call, inner):
            seen.append(f"{self.name} {call.tool.name}")
            await call.runtime.sleep(0)
            outcome = await inner(call)
            seen.append(f"{self.name} {outcome.how}")
            return outcome

    guard = Guard(reads=["get", "aget"], outside=[Tell("out")], inside=[Tell("in")])

    def get():
        return 1

    async def aget():
        return 1

    call, acall = wrap(get, guard), wrap(aget, guard)
    assert call() == call() == 1
    assert seen == ["out get", "in get", "in ran", "out ran", "out get", "out memo"]
    seen.clear()
    assert run_shuffled(acall(), 0) == run_shuffled(acall(), 0) == 1
    assert seen == ["out aget", "in aget", "in ran", "out ran", "out aget", "out memo"]


def test_a_layer_may_answer_in_the_place_of_the_tool():
    async def answer(call, inner):
        return Outcome("instead")

    assert wrap(lambda: 1 / 0, inside=[answer], effects={"<lambda>": Write()})() == "instead"


def test_a_layer_that_fails_hurts_only_its_call():
    async def fail(call, inner):
        raise LookupError("the layer")

    guard = Guard(reads=["<lambda>"], inside=[fail])
    call = wrap(lambda: 1, guard)
    for _ in range(2):
        with pytest.raises(LookupError, match="the layer"):
            call()
    assert len(guard._memo.flights) == 0


@pytest.mark.parametrize("effect", [None, Read(identity="t"), Write()], ids=repr)
@pytest.mark.parametrize(
    "kind", [ValueError, StopIteration, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, ExceptionGroup]
)
def test_what_a_tool_raises_reaches_its_caller_as_it_is(effect, kind):
    error = kind("several", [OSError()]) if kind is ExceptionGroup else kind("mine")

    def tool():
        raise error

    call = wrap(tool if effect is None else effect(tool), Guard(default=None))
    for _ in range(2):
        with pytest.raises(kind) as raised:
            call()
        assert raised.value is error


def test_a_synchronous_tool_of_a_loop_runs_in_a_thread_with_its_context():
    variable = contextvars.ContextVar("variable", default="outside")

    def tool():
        return threading.current_thread().name, variable.get(), current.get().tool.name

    async def main():
        variable.set("inside")
        return await offloaded(Guard(), tool, Read(identity="t"))()

    assert asyncio.run(main()) == ("ibidem", "inside", "tool")
    assert current.get() is None


def test_the_loop_turns_while_a_synchronous_tool_runs():
    async def main():
        let, turns = threading.Event(), []
        task = asyncio.create_task(offloaded(Guard(), lambda: let.wait(LONG), Write())())
        for _ in range(5):
            await asyncio.sleep(0)
            turns.append(task.done())
        let.set()
        assert await task is True and not any(turns)

    asyncio.run(main())


def test_a_result_that_comes_after_its_loop_is_closed_is_dropped_in_silence():
    guard, began, let, done = Guard(), threading.Event(), threading.Event(), threading.Event()

    def tool():
        began.set()
        assert let.wait(LONG)
        done.set()

    call = offloaded(guard, tool, Write("a"))

    async def main():
        task = asyncio.create_task(call())
        await until(began.is_set)
        return task

    asyncio.run(main())
    assert guard.store.stamps._open, "the write still runs"
    let.set()
    assert done.wait(LONG)
    for _ in range(LONG * 1000):
        if not guard.store.stamps._open:
            break
        done.clear() or done.wait(0.001)
    assert not guard.store.stamps._open


def test_the_parent_of_a_call_is_the_call_in_whose_body_it_is_made():
    guard, found = Guard(reads=["inner", "outer"]), []

    def names():
        call = current.get()
        return [call.tool.name, *(above.tool.name for above in call.ancestors)]

    inner = wrap(Read(identity="i")(lambda: found.append(names())), guard)

    def outer():
        inner()
        found.append(names())

    wrap(outer, guard)()
    assert found == [["<lambda>", "outer"], ["outer"]] and current.get() is None
