"""A call that comes after a change in the same message is answered anew, if and only if the change touches it."""

import asyncio

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.runtime import Runtime

import ibidem
from ibidem import Guard, Pure, Read, Write

CONFIG = {"configurable": {"thread_id": "1", "__pregel_runtime": Runtime()}}


class Bench:
    """A node over tools that note their runs."""

    def __init__(self, **effects):
        self.ran = []
        tools = [self.tool(name) for name in ("pure", "read", "write", "other")]
        self.node = ibidem.ToolNode(tools, guard=Guard(effects=effects))

    def tool(self, name):
        def body(a: int) -> str:
            self.ran.append((name, a))
            return f"{name} {a}"

        body.__name__ = name
        return tool(body, description="d")

    def turn(self, *calls, synchronous):
        self.ran.clear()
        made = [{"name": n, "args": {"a": a}, "id": f"{i}", "type": "tool_call"} for i, (n, a) in enumerate(calls)]
        message = [AIMessage("", tool_calls=made)]
        answers = self.node.invoke(message, CONFIG) if synchronous else asyncio.run(self.node.ainvoke(message, CONFIG))
        assert [m.content for m in answers] == [f"{n} {a}" for n, a in calls]
        return sorted(self.ran)


@pytest.mark.parametrize("synchronous", [True, False])
def test_only_what_an_earlier_write_touches_runs_again(synchronous):
    bench = Bench(pure=Pure(), read=Read("r:{a}", ttl=None), write=Write("r:{a}"))
    bench.turn(("pure", 1), ("read", 2), ("read", 1), synchronous=synchronous)
    assert bench.turn(("write", 1), ("pure", 1), ("read", 2), ("read", 1), synchronous=synchronous) == [
        ("read", 1),
        ("write", 1),
    ]


@pytest.mark.parametrize("synchronous", [True, False])
def test_after_an_undeclared_call_only_what_is_pure_is_answered(synchronous):
    bench = Bench(pure=Pure(), read=Read("r:{a}", ttl=None))
    bench.turn(("pure", 1), ("read", 2), synchronous=synchronous)
    assert bench.turn(("other", 1), ("pure", 1), ("read", 2), synchronous=synchronous) == [("other", 1), ("read", 2)]


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_read_waits_for_a_write_of_which_only_the_result_tells_what_it_touches_and_is_then_served(synchronous):
    bench = Bench(read=Read("r:{a}", ttl=None), write=Write("r:{a}", also=lambda arguments, result: []))
    bench.turn(("read", 2), synchronous=synchronous)
    assert bench.turn(("write", 1), ("read", 2), synchronous=synchronous) == [("write", 1)]


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_read_before_the_write_is_answered(synchronous):
    bench = Bench(read=Read("r:{a}", ttl=None), write=Write("r:{a}"))
    bench.turn(("read", 1), synchronous=synchronous)
    assert bench.turn(("read", 1), ("write", 1), synchronous=synchronous) == [("write", 1)]
