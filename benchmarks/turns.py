"""Measure turns: requests that a message costs, how long calls that have nothing to do with each other take, what order costs.

One run, against bare LangGraph: twenty lookups of a server on loopback with a function that asks for many at once; twenty calls of
four kinds; calls that sleep; and the time that a turn pays for being looked at.
"""

import asyncio
import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest.mock import patch

import httpx
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

import ibidem
from _measure import Report, Sample, arguments, clocked, finish, interleave, loop
from ibidem import Batch, Guard, Read, Write

ROUNDS = 15
CALLS = 20
ORDER_US = 25
"""What a call of a turn without conflicts may cost at most for its turn being looked at."""
SLOWEST = 1.10
"""How long calls that have nothing to do with each other may take, by the slowest of them."""


class Asking(BaseChatModel):
    """Asks for the calls that it holds, then is done."""

    calls: list[Any]

    @property
    def _llm_type(self) -> str:
        return "asking"

    def bind_tools(self, tools: Any, **_: Any) -> Any:  # noqa: ARG002
        return self

    def _generate(self, messages: Any, *_: Any, **__: Any) -> ChatResult:
        asked = any(isinstance(message, AIMessage) for message in messages)
        said = AIMessage("done") if asked else AIMessage("", tool_calls=[dict(call) for call in self.calls])
        return ChatResult(generations=[ChatGeneration(message=said)])


def calls_of(name: str, *arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Write the calls of a message."""
    return [{"name": name, "args": each, "id": f"{name} {n}", "type": "tool_call"} for n, each in enumerate(arguments)]


def hand_built(calls: list[Any], tools: list[Any], **_: Any) -> Any:
    """Build a graph of a node of tools."""
    model = Asking(calls=calls)
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode(tools))
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    return builder.compile()


def agent(calls: list[Any], tools: list[Any], middleware: Any = ()) -> Any:
    """Build LangChain's agent."""
    return create_agent(Asking(calls=calls), tools, middleware=middleware)


@contextmanager
def server() -> Iterator[tuple[str, list[int]]]:
    """Serve products, and count the requests."""
    requests = [0]

    class Products(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests[0] += 1
            time.sleep(0.005)
            body = json.dumps([f"product {each}" for each in self.path.rpartition("=")[2].split(",")]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        """Connections that may wait; of 20 at once, five would be taken and the others come again after a second."""

    http = Server(("127.0.0.1", 0), Products)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/products?ids=", requests
    finally:
        http.shutdown()
        http.server_close()


def lookups(report: Report, rounds: int, *, runner: asyncio.Runner) -> None:
    """Add what a message of lookups costs a server."""
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))
    with server() as (address, requests):

        def fetch(ids: list[int]) -> list[str]:
            with urllib.request.urlopen(address + ",".join(map(str, ids))) as reply:
                return list(json.load(reply))

        async def afetch(ids: list[int]) -> list[str]:
            return list((await client.get(address + ",".join(map(str, ids)))).json())

        def get(product_id: int) -> str:
            return fetch([product_id])[0]

        async def aget(product_id: int) -> str:
            return (await afetch([product_id]))[0]

        def tool_of(way: str) -> StructuredTool:
            function = {"func": get} if way == "sync" else {"coroutine": aget}
            return StructuredTool.from_function(**function, name="get", description="A product.")  # type: ignore[arg-type]

        def guard(way: str) -> Guard:
            batch = Batch(fetch if way == "sync" else afetch, arg="product_id")
            return Guard(effects={"get": Read("product:{product_id}", batch=batch)})

        def sample(make: Callable[[str], Any], way: str) -> Callable[[], Sample]:
            def run() -> Sample:
                graph, before = make(way), requests[0]
                with clocked() as sample:
                    given: Any = {"messages": []}
                    state = graph.invoke(given) if way == "sync" else runner.run(graph.ainvoke(given))
                assert sum(isinstance(each, ToolMessage) for each in state["messages"]) == len(calls)
                sample.runs = requests[0] - before
                return sample

            return run

        for title, calls, bound in (
            ("different", calls_of("get", *({"product_id": n} for n in range(CALLS))), 1),
            ("of 4 products", calls_of("get", *({"product_id": n % 4} for n in range(CALLS))), 1),
            ("of 4 products, no batch function", calls_of("get", *({"product_id": n % 4} for n in range(CALLS))), 4),
        ):
            batched = "no batch" not in title

            def guarded(way: str, batched: bool = batched) -> Guard:
                return guard(way) if batched else Guard(effects={"get": Read("product:{product_id}")})

            ways: dict[str, Callable[[str], Any]] = {
                "bare ToolNode": lambda way, calls=calls: hand_built(calls, [tool_of(way)]),
                "bare create_agent": lambda way, calls=calls: agent(calls, [tool_of(way)]),
                "ibidem, ToolNode": lambda way, calls=calls, guarded=guarded: ibidem.wrap(
                    hand_built(calls, [tool_of(way)]), guarded(way)
                ),
                "ibidem, create_agent": lambda way, calls=calls, guarded=guarded: ibidem.wrap(
                    agent(calls, [tool_of(way)]), guarded(way)
                ),
                "ibidem.Middleware": lambda way, calls=calls, guarded=guarded: agent(
                    calls, [tool_of(way)], [ibidem.Middleware(guarded(way))]
                ),
            }
            subjects = {f"{name}, {way}": sample(make, way) for name, make in ways.items() for way in ("sync", "async")}
            results = interleave(subjects, rounds, warmup=1)
            rows = [[name, results.runs(name), results.spread(name, "wall").text(1e3, 1)] for name in subjects]
            report.table(f"{CALLS} lookups, {title}", ["", "requests", "wall ms"], rows)
            for name in subjects:
                if name.startswith("ibidem"):
                    report.exactly(f"{CALLS} lookups, {title}, {name}: requests", results.runs(name) or 0, bound)
    runner.run(client.aclose())


def independent(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add how long calls take that have nothing to do with each other."""
    pause = 0.05 if quick else 0.2

    async def get(key: str) -> str:
        await asyncio.sleep(pause)
        return key

    async def put(key: str) -> str:
        await asyncio.sleep(pause)
        return key

    tools = [StructuredTool.from_function(coroutine=each, name=each.__name__, description="d") for each in (get, put)]
    calls = [
        *calls_of("put", *({"key": f"p{n}"} for n in range(2))),
        *calls_of("get", *({"key": f"g{n}"} for n in range(6))),
    ]
    effects = {"get": Read("k:{key}"), "put": Write("k:{key}")}

    def sample(make: Callable[[], Any]) -> Callable[[], Sample]:
        def run() -> Sample:
            graph = make()
            with clocked() as sample:
                runner.run(graph.ainvoke({"messages": []}))
            return sample

        return run

    subjects = {
        "bare ToolNode": sample(lambda: hand_built(calls, tools)),
        "ibidem, ToolNode": sample(lambda: ibidem.wrap(hand_built(calls, tools), Guard(effects=effects))),
        "ibidem, create_agent": sample(lambda: ibidem.wrap(agent(calls, tools), Guard(effects=effects))),
    }
    results = interleave(subjects, rounds, warmup=1)
    rows = [[name, results.spread(name, "wall").text(1e3, 1)] for name in subjects]
    report.table(f"8 calls of {pause * 1e3:.0f} ms that touch nothing in common", ["", "wall ms"], rows)
    for name in subjects:
        took = results.spread(name, "wall").median
        report.at_most(f"independent calls, {name}: wall by the slowest call", took / pause, SLOWEST)


class Passing(AgentMiddleware):
    """Lets every call pass."""

    def wrap_tool_call(self, request: Any, handler: Any) -> Any:
        """Pass."""
        return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
        """Pass."""
        return await handler(request)


def order(report: Report, rounds: int, *, quick: bool, runner: asyncio.Runner) -> None:
    """Add what a turn costs for being looked at."""
    repeats = 2 if quick else 10

    async def get(key: str) -> str:
        return key

    async def put(key: str) -> str:
        return key

    tools = [StructuredTool.from_function(coroutine=each, name=each.__name__, description="d") for each in (get, put)]
    calls = [*calls_of("put", {"key": "p"}), *calls_of("get", *({"key": f"g{n}"} for n in range(CALLS - 1)))]
    message = AIMessage("", tool_calls=calls)
    effects = {"get": Read("k:{key}"), "put": Write("k:{key}")}

    def node(*, alone: bool) -> Callable[[], Sample]:
        def run() -> Sample:
            builder = StateGraph(MessagesState)
            builder.add_node("tools", ibidem.wrap(ToolNode(tools), Guard(effects=effects)))
            builder.add_edge(START, "tools")
            graph = builder.compile()

            async def several() -> None:
                for _ in range(repeats):
                    await graph.ainvoke({"messages": [message]})

            with patch("ibidem.langgraph.node.matters", (lambda *_: False) if alone else matters), clocked() as sample:
                runner.run(several())
            return sample

        return run

    from ibidem.langgraph.turns import matters

    subjects = {"memo layer alone": node(alone=True), "with its turn": node(alone=False)}
    results = interleave(subjects, rounds * 2, warmup=1 if quick else 3)
    scale = 1e6 / repeats / CALLS
    rows = [[name, results.spread(name, "wall").text(scale, 1)] for name in subjects]
    report.table(f"A turn of {CALLS} calls without a conflict, us a call", ["", "us"], rows)
    least = {name: min(each.wall for each in results.samples[name]) for name in subjects}
    report.at_most(
        "a turn without conflicts: us a call more than the memo layer alone",
        (least["with its turn"] - least["memo layer alone"]) * scale,
        ORDER_US,
    )

    def agents(middleware: Callable[[], list[Any]], *, warm: bool) -> Callable[[], Sample]:
        graph = agent(calls_of("get", *({"key": f"g{n}"} for n in range(5))), tools, middleware())

        def run() -> Sample:
            async def several() -> None:
                for n in range(repeats):
                    name = "warm" if warm else f"{time.perf_counter()} {n}"
                    await graph.ainvoke({"messages": []}, {"configurable": {"thread_id": name}})

            with clocked() as sample:
                runner.run(several())
            return sample

        return run

    guards = {"hits": True, "misses": False}
    subjects = {"one pass-through middleware": agents(lambda: [Passing()], warm=True)} | {
        f"ibidem.Middleware, {name}": agents(lambda: [ibidem.Middleware(effects=effects)], warm=warm)
        for name, warm in guards.items()
    }
    results = interleave(subjects, rounds * 2, warmup=1 if quick else 3)
    rows = [[name, results.spread(name, "wall").text(1e3 / repeats, 2)] for name in subjects]
    report.table("An agent's run with a turn of 5 calls", ["", "ms"], rows)
    for name in guards:
        ratio = results.ratio(f"ibidem.Middleware, {name}", "one pass-through middleware", "wall")
        report.at_most(f"ibidem.Middleware, {name}: by one pass-through middleware", ratio.median, 1.0, ratio.text())


def measure(rounds: int, *, quick: bool = False) -> Report:
    """Measure everything."""
    report = Report("turns")
    with loop() as runner:
        lookups(report, rounds, runner=runner)
        independent(report, 1 if quick else 5, quick=quick, runner=runner)
        order(report, rounds, quick=quick, runner=runner)
    return report


def main() -> int:
    """Run as the command line asks; return the exit code."""
    given = arguments(__doc__.partition("\n")[0], ROUNDS).parse_args()
    return finish(measure(given.rounds or (1 if given.quick else ROUNDS), quick=given.quick), given)


if __name__ == "__main__":
    sys.exit(main())
