"""Measure Anthropic tool loops, by hand, through the SDK's runner and while the answer streams, with ibidem and without.

The real SDK, against a server on loopback that plays the Messages API. What a table calls a tool sleeps; so what is
measured is what the loop adds, and whether it waits for one call after another.
"""

import asyncio
import inspect
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anthropic
from anthropic import beta_async_tool, beta_tool

import ibidem
from _measure import Report, Sample, arguments, clocked, finish, interleave, loop
from ibidem import Guard
from ibidem.testing import MessagesServer, Reply, text, use

ROUNDS = 5
SECONDS = 0.3
"""What a tool takes, and how far apart the blocks of a stream are."""
PARALLEL, AFTER_S = 1.15, 0.1
"""What a message of three calls may take at most, in times of one; how long after its stream tools may end."""
ASK: dict[str, Any] = {"model": "claude", "max_tokens": 1000, "messages": [{"role": "user", "content": "go"}]}
_TAKES = inspect.signature(anthropic.resources.beta.Messages.tool_runner).parameters
WHOLE: dict[str, Any] = {"thread": False} if "thread" in _TAKES else {}
"""What makes the SDK's runner send whole conversations, in versions that can do otherwise."""
USES = [use("get", {"key": key}) for key in "abc"]


class Gauge:
    """Counts how often a tool ran, and how many of its runs there were at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.runs = self.now = self.most = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.runs, self.now = self.runs + 1, self.now + 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1

    def tools(self) -> tuple[Any, Any]:
        """Make the tool, sync and async."""

        def get(key: str) -> str:
            """Get something slowly."""
            with self:
                time.sleep(self.seconds)
            return key

        async def aget(key: str) -> str:
            """Get something slowly."""
            with self:
                await asyncio.sleep(self.seconds)
            return key

        return beta_tool(get), beta_async_tool(aget, name="get")


def clients(server: MessagesServer) -> tuple[anthropic.Anthropic, anthropic.AsyncAnthropic]:
    """Make both clients of a server."""
    options: dict[str, Any] = {"api_key": "of the benchmark", "base_url": server.url, "max_retries": 0}
    return anthropic.Anthropic(**options), anthropic.AsyncAnthropic(**options)


class Again:
    """Plays turns by the length of the conversation, as often as it is had, and notes when the last request came."""

    def __init__(self, *turns: Any) -> None:
        self.turns = turns
        self.came = 0.0

    def __call__(self, body: Any) -> Any:
        self.came = time.perf_counter()
        return self.turns[min(sum(m["role"] == "assistant" for m in body["messages"]), len(self.turns) - 1)]


def messages_of(report: Report, rounds: int, seconds: float, *, runner: asyncio.Runner) -> None:
    """Add what a message of three calls takes, from when it is there to when its answer has reached the server."""
    guard = Guard(live=["get"])
    gauges: dict[str, Gauge] = {}
    turns = Again(Reply(USES), Reply([text("done")]))

    with MessagesServer(turns) as server:
        client, aclient = clients(server)

        def sync_runner(tool: Any, guard: Guard | None) -> float:
            plain = client.beta.messages.tool_runner(**ASK, tools=[tool], **WHOLE)
            messages = iter(plain if guard is None else ibidem.anthropic.runner(plain, guard))
            next(messages)
            there = time.perf_counter()
            for _ in messages:
                pass
            return there

        async def async_runner(tool: Any, guard: Guard | None) -> float:
            plain = aclient.beta.messages.tool_runner(**ASK, tools=[tool], **WHOLE)
            messages = aiter(plain if guard is None else ibidem.anthropic.runner(plain, guard))
            await anext(messages)
            there = time.perf_counter()
            async for _ in messages:
                pass
            return there

        def by_hand(tool: Any, guard: Guard) -> float:
            reply = client.messages.create(**ASK, tools=ibidem.anthropic.tools_for([tool]))
            there = time.perf_counter()
            results: Any = ibidem.anthropic.answer(reply, [tool], guard)
            said: Any = {"role": "assistant", "content": reply.content}
            client.messages.create(**{**ASK, "messages": [*ASK["messages"], said, results]})
            return there

        async def aby_hand(tool: Any, guard: Guard) -> float:
            reply = await aclient.messages.create(**ASK, tools=ibidem.anthropic.tools_for([tool]))
            there = time.perf_counter()
            results: Any = await ibidem.anthropic.aanswer(reply, [tool], guard)
            said: Any = {"role": "assistant", "content": reply.content}
            await aclient.messages.create(**{**ASK, "messages": [*ASK["messages"], said, results]})
            return there

        def subject(name: str, way: str, run: Callable[..., Any], guard: Guard | None) -> Callable[[], Sample]:
            gauge = gauges[name] = Gauge(seconds)
            tool = gauge.tools()[way == "async"]

            def sample() -> Sample:
                with clocked():
                    there = run(tool, guard) if way == "sync" else runner.run(run(tool, guard))
                return Sample(wall=turns.came - there)

            return sample

        ways = {
            "the SDK's runner, sync": ("sync", sync_runner, None),
            "the SDK's runner, async": ("async", async_runner, None),
            "ibidem.anthropic.runner, sync": ("sync", sync_runner, guard),
            "ibidem.anthropic.runner, async": ("async", async_runner, guard),
            "answer": ("sync", by_hand, guard),
            "aanswer": ("async", aby_hand, guard),
        }
        subjects = {name: subject(name, *way) for name, way in ways.items()}
        results = interleave(subjects, rounds, warmup=1)
        runner.run(aclient.close())
        client.close()
    rows = []
    for name in subjects:
        spread = results.spread(name, "wall")
        rows.append([name, spread.text(1000, 0), f"{spread.median / seconds:.2f}", gauges[name].most])
        if "SDK" in name:
            report.exactly(f"{name}: calls at once", gauges[name].most, 1)
        else:
            report.exactly(f"{name}: calls at once", gauges[name].most, 3)
            report.at_most(f"{name}: times of one tool", spread.median / seconds, PARALLEL, spread.text(1 / seconds))
    report.exactly("rules of the API broken by messages", len(server.violations), 0)
    head = f"Three calls of {seconds:g} s in one message, until the API has their results"
    report.table(head, ["", "ms", "times of one tool", "at once"], rows)


def streams(report: Report, rounds: int, seconds: float, *, runner: asyncio.Runner) -> None:
    """Add how long after the end of a stream its tools have ended."""
    guard = Guard(live=["get"])
    closed = Reply([*USES, text("that is all")], gap=seconds)
    rows = []
    for said, reply in (("then text", closed), ("nothing after", Reply(USES, gap=seconds))):
        with MessagesServer(Again(reply, Reply([text("done")]))) as server:
            client, aclient = clients(server)

            def early(tool: Any, client: Any = client) -> float:
                with ibidem.anthropic.stream(client, guard, tools=[tool], **ASK) as stream:
                    stream.until_done()
                    ended = time.perf_counter()
                    stream.answer()
                return time.perf_counter() - ended

            async def aearly(tool: Any, aclient: Any = aclient) -> float:
                async with ibidem.anthropic.stream(aclient, guard, tools=[tool], **ASK) as stream:
                    await stream.until_done()
                    ended = time.perf_counter()
                    await stream.answer()
                return time.perf_counter() - ended

            def late(tool: Any, client: Any = client) -> float:
                for stream in client.beta.messages.tool_runner(**ASK, tools=[tool], stream=True, **WHOLE):
                    stream.until_done()
                    ended = time.perf_counter()
                    break
                runner_results(stream, tool)
                return time.perf_counter() - ended

            def subject(run: Callable[..., Any], number: int) -> Callable[[], Sample]:
                gauge = Gauge(seconds)
                tool = gauge.tools()[number]

                def sample() -> Sample:
                    gauge.runs = 0
                    took = run(tool) if number == 0 else runner.run(run(tool))
                    return Sample(wall=took, runs=gauge.runs)

                return sample

            subjects = {
                f"SDK, after the stream ({said})": subject(late, 0),
                f"ibidem.anthropic.stream, sync ({said})": subject(early, 0),
                f"ibidem.anthropic.stream, async ({said})": subject(aearly, 1),
            }
            results = interleave(subjects, rounds, warmup=0)
            runner.run(aclient.close())
            client.close()
        for name in subjects:
            spread = results.spread(name, "wall")
            rows.append([name, spread.text(1000, 0), results.runs(name)])
            report.exactly(f"{name}: runs", results.runs(name) or 0, 3)
            if name.startswith("ibidem"):
                bound = AFTER_S if said == "then text" else seconds + AFTER_S
                report.at_most(f"{name}: s after the stream", spread.median, bound, spread.text())
        report.exactly(f"rules of the API broken by streams ({said})", len(server.violations), 0)
    head = f"Blocks {seconds:g} s apart, tools of {seconds:g} s, after the stream has ended"
    report.table(head, ["", "ms", "runs"], rows)


def runner_results(stream: Any, tool: Any) -> None:
    """Run the calls of a message one after another, as the SDK's runner does when the stream has ended."""
    for block in stream.get_final_message().content:
        if block.type == "tool_use":
            tool.call(block.input)


def measure(rounds: int, *, quick: bool = False) -> Report:
    """Measure everything."""
    report = Report("anthropic loops")
    seconds = 0.05 if quick else SECONDS
    with loop() as runner:
        messages_of(report, rounds, seconds, runner=runner)
        streams(report, rounds, seconds, runner=runner)
    return report


def main() -> int:
    """Run as the command line asks; return the exit code."""
    given = arguments(__doc__.partition("\n")[0], ROUNDS).parse_args()
    return finish(measure(given.rounds or (1 if given.quick else ROUNDS), quick=given.quick), given)


if __name__ == "__main__":
    sys.exit(main())
