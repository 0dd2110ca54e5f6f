"""Tools of MCP servers, through whichever adapter is installed: `langchain.mcp` (mcp 2) or langchain-mcp-adapters (mcp 1).

A real server answers: in this process with `langchain.mcp`, over stdio with langchain-mcp-adapters.
"""

import asyncio
import importlib.util
import sys
import textwrap
import warnings

import pytest
from adapter_kit import ai, call, came, saying, wait
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

import ibidem
from ibidem import Guard, Pure, Read

MCP2 = importlib.util.find_spec("fastmcp") is not None and importlib.util.find_spec("langchain.mcp") is not None
MCP1 = importlib.util.find_spec("langchain_mcp_adapters") is not None
pytestmark = [
    pytest.mark.skipif(
        not (MCP1 or MCP2), reason="neither langchain.mcp with fastmcp nor langchain-mcp-adapters is here"
    ),
    pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning"),
    # The MCP packages warn of one another, and leave streams of a server that ended to the garbage collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*is in beta"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SERVER = """
    import itertools, sys
    from mcp.server.fastmcp import FastMCP
    from mcp.types import ToolAnnotations

    who = sys.argv[1]
    server, count = FastMCP("shop"), itertools.count(1)

    @server.tool(annotations=ToolAnnotations(readOnlyHint=True))
    def look(key: str) -> str:
        return f"{key} at {who}, run {next(count)}"

    @server.tool(annotations=ToolAnnotations(readOnlyHint=False))
    def act(key: str) -> str:
        if key == "bad":
            raise ValueError("no")
        return f"done {next(count)}"

    @server.tool()
    def silent(key: str) -> str:
        return f"{key} run {next(count)}"

    server.run()
"""


def in_process(who):
    """An in-process server; each calls itself the same."""
    import itertools

    from fastmcp import FastMCP
    from mcp.types import ToolAnnotations

    server, count = FastMCP("shop", version="1"), itertools.count(1)

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def look(key: str) -> str:
        return f"{key} at {who}, run {next(count)}"

    @server.tool(annotations=ToolAnnotations(read_only_hint=False))
    def act(key: str) -> str:
        if key == "bad":
            raise ValueError("no")
        return f"done {next(count)}"

    @server.tool()
    def silent(key: str) -> str:
        return f"{key} run {next(count)}"

    return server


class Served:
    """The tools of one server, and how to list them again."""

    def __init__(self, who, tmp_path):
        self.who, self.path = who, tmp_path / "server.py"
        self.sessions = []

    async def __aenter__(self):
        if MCP2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from langchain.mcp import MCPAdapter
            self.adapter = MCPAdapter(in_process(self.who))
            await self.adapter.__aenter__()
        else:
            from langchain_mcp_adapters.sessions import create_session

            self.path.write_text(textwrap.dedent(SERVER))
            connection = {"transport": "stdio", "command": sys.executable, "args": [str(self.path), self.who]}
            self.context = create_session(connection)
            self.session = await self.context.__aenter__()
            await self.session.initialize()
        return self

    async def tools(self):
        if MCP2:
            found = await self.adapter.list_tools()
        else:
            from langchain_mcp_adapters.tools import load_mcp_tools

            found = await load_mcp_tools(self.session)
        return {each.name: each for each in found}

    async def __aexit__(self, *exc):
        await (self.adapter if MCP2 else self.context).__aexit__(*exc)


def served(test):
    """Run an asynchronous test: a server is left in the task that entered it."""

    def run(tmp_path):
        wait(asyncio.wait_for(test(lambda who="one": Served(who, tmp_path)), 60))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def text(message):
    return message.content if isinstance(message.content, str) else message.content[0]["text"]


@served
async def test_a_read_is_replayed_with_content_and_artifact(server):
    """R17: the blocks carry random ids, which come back as they were."""
    async with server() as one:
        tools = await one.tools()
        guard = Guard(effects={"look": Read(scope="conversation")})
        look = ibidem.wrap(tools["look"], guard)
        assert look.args == tools["look"].args and look.metadata == tools["look"].metadata
        first, second = [await look.ainvoke(call("look", {"key": "a"}, f"c{n}")) for n in (1, 2)]
        assert text(first) == text(second) == "a at one, run 1"
        assert first.content == second.content
        assert first.artifact == second.artifact
        assert [m.tool_call_id for m in (first, second)] == ["c1", "c2"]
        assert came(second) == "memo"
        assert text(await look.ainvoke(call("look", {"key": "b"}))) == "b at one, run 2"


@served
async def test_two_servers_with_one_name_share_nothing(server):
    """The identity holds the connection: what a server calls itself does not say which one it is."""
    async with server("one") as one, server("two") as two:
        guard = Guard(effects={"look": Pure(scope="shared")})
        for _ in range(2):
            for each in (one, two):
                look = ibidem.wrap((await each.tools())["look"], guard)
                assert text(await look.ainvoke(call("look", {"key": "a"}))).startswith(f"a at {each.who}")


@served
async def test_an_identity_that_is_spelled_out_outlives_the_connection(server):
    guard = Guard(effects={"look": Pure(identity="shop", scope="shared")})
    said = set()
    for _ in range(2):
        async with server("one") as one:
            look = ibidem.wrap((await one.tools())["look"], guard)
            said.add(text(await look.ainvoke(call("look", {"key": "a"}))))
    assert said == {"a at one, run 1"}
    assert guard.stats().memo == 1


@served
async def test_hints_are_not_believed_unless_that_is_asked_for(server):
    async with server() as one:
        tools = await one.tools()
        for trusted in (False, True):
            guard = Guard(trust_mcp=trusted, effects={"unused": Read()})
            ibidem.wrap(list(tools.values()), guard)
            declared = {row.tool: row.declared for row in guard.explain()}
            assert declared["act"] == declared["silent"] == "nothing"
            assert declared["look"] == ("MCP hint" if trusted else "nothing")


@served
async def test_a_trusted_hint_makes_a_read_that_every_other_call_forgets(server):
    async with server() as one:
        tools = ibidem.wrap(await one.tools(), Guard(trust_mcp=True))
        looked = [text(await tools["look"].ainvoke(call("look", {"key": "a"}))) for _ in range(2)]
        assert looked == ["a at one, run 1"] * 2
        await tools["act"].ainvoke(call("act", {"key": "x"}))
        assert text(await tools["look"].ainvoke(call("look", {"key": "a"}))) == "a at one, run 3"


@served
async def test_errors_of_a_server_are_not_remembered(server):
    async with server() as one:
        tools = await one.tools()
        guard = Guard(effects={"act": Read(scope="conversation")})
        act = ibidem.wrap(tools["act"], guard)
        expected = await tools["act"].ainvoke(call("act", {"key": "bad"}))
        for _ in range(2):
            message = await act.ainvoke(call("act", {"key": "bad"}))
            assert message.status == expected.status == "error"
            assert text(message) == text(expected)
        assert len(guard.entries()) == 0
        assert guard.stats().total.failed == 2


@served
async def test_identical_calls_under_way_are_one_request(server):
    async with server() as one:
        look = ibidem.wrap((await one.tools())["look"], Guard(effects={"look": Read(scope="conversation")}))
        calls = [look.ainvoke(call("look", {"key": "a"}, f"c{n}")) for n in range(5)]
        messages = await asyncio.gather(*calls)
        assert {text(m) for m in messages} == {"a at one, run 1"}
        assert [m.tool_call_id for m in messages] == [f"c{n}" for n in range(5)]


@served
async def test_in_a_graph(server):
    async with server() as one:
        script = (ai(call("look", {"key": "a"}, "1")), ai(call("look", {"key": "a"}, "2")), "done")
        model = saying(*script)
        builder = StateGraph(MessagesState)
        builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
        builder.add_node("tools", ToolNode(list((await one.tools()).values())))
        builder.set_entry_point("model")
        builder.add_conditional_edges("model", tools_condition)
        builder.add_edge("tools", "model")
        graph = ibidem.wrap(builder.compile(), Guard(effects={"look": Read(scope="conversation")}))
        state = await graph.ainvoke({"messages": [HumanMessage("x")]})
        found = [m for m in state["messages"] if isinstance(m, ToolMessage)]
        assert [(text(m), came(m)) for m in found] == [("a at one, run 1", "ran"), ("a at one, run 1", "memo")]


@pytest.mark.skipif(MCP2 or not MCP1, reason="langchain-mcp-adapters is not here")
def test_what_an_interceptor_takes_from_the_runtime_keeps_a_tool_from_being_remembered():
    """R15: an interceptor may put the asking user's token into the request."""
    from langchain_mcp_adapters.tools import convert_mcp_tool_to_langchain_tool
    from mcp.types import CallToolResult, TextContent, Tool, ToolAnnotations

    asked = []

    async def interceptor(request, handler):
        asked.append(request.args)
        return CallToolResult(content=[TextContent(type="text", text=f"run {len(asked)}")])

    def made(connection, **options):
        return convert_mcp_tool_to_langchain_tool(
            None,
            Tool(
                name="look",
                inputSchema={"type": "object", "properties": {"key": {"type": "string"}}},
                annotations=ToolAnnotations(readOnlyHint=True),
            ),
            connection=connection,
            **options,
        )

    guard = Guard(trust_mcp=True)
    connection = {"transport": "stdio", "command": "none", "args": []}
    look = ibidem.wrap(made(connection, tool_interceptors=[interceptor]), guard)
    for number in (1, 2):
        assert text(wait(look.ainvoke(call("look", {"key": "a"})))) == f"run {number}"
    (reason,) = guard.stats().uncacheable
    assert "runtime" in reason

    def identity(connection):
        return guard.explain(made(connection))[0].identity

    assert identity(connection) != identity({**connection, "args": ["other"]})
