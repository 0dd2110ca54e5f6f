"""Play recorded conversations through a real LangGraph graph that ibidem wraps, and judge every answer.

A file holds one conversation a line: `turns` of `calls`, each with the arguments of the agent and the result that it got. A
scripted model says again what the recorded one said, a real `ToolNode` runs the calls, and a tool answers what was recorded for
the very call that is played. The recorded result is the truth of that moment, so what the model is given must equal it:

- a **wrong** answer differs from what was recorded: a stale one, another's, one with another id, a missing one;
- a **suppressed** write did not reach its tool;
- a **stray** run reached a tool more often than the message asked for it;
- **disordered** calls of one message touch, as declared, the same thing, and ran at once or the wrong way round.

Each file meets three guards: `reads=` with the names of its reading tools and nothing else; what policies.py declares; and, as
the negative control, a dictionary from name and arguments to result, which must be caught giving wrong answers. Two
oracles say what could be saved: the repeated reads whose recorded result equals that of the latest identical call, and
those that no declared write of anything they depend on came before. The second is what a perfect memo that honours the
declarations saves; the first has luck in it, since a write does not always change what it may change.

Errors are returned as recorded, as text. That is the harder setting, so it is the default: nothing tells the memo that such a
text is an error, it is remembered like any result, and would show up as a wrong answer where it had become untrue.
`--raise-errors` raises them instead, for `handle_tool_errors` to turn into the same text: then none may be remembered.

Conversations are worlds of their own, but `order:1` is one resource wherever it is named: what is written in one conversation is
forgotten in all. So they are played one after the other; `--together 4` interleaves them as in a server, where nothing may be
wrong either, and less is saved.

`--split` plays them twice more, with a store on the disk: each conversation is cut at a random message, and what comes after
the cut runs in another process than what came before. Nothing may be wrong, and as much must be saved as by one process
that remembers in memory.

Declared TTLs are off and the default is far longer than a conversation takes here, so time plays no role. The calls of another
actor (some recordings have a user with tools of their own) are played like the agent's.

Exits with 1 if any guard but the control gave a wrong answer, suppressed a write, ran a stray call or disordered two.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.graph.state import CompiledStateGraph
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import synthetic
from _oracles import oracles
from _recordings import Conversation, load, sample
from _split import play_split
from _stage import CONTROL, DECLARED, PLAYING, READS, Played, Setting, build
from policies import POLICIES

TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"
GUARDS = (READS, DECLARED, CONTROL)


@dataclass
class Row:
    """What became of the calls of a file under one guard."""

    guard: str
    calls: int = 0
    reached: int = 0
    same: int = 0
    untouched: int = 0
    suppressed: int = 0
    stray: int = 0
    disordered: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def saved(self) -> int:
        """How many calls were answered without their tool."""
        return self.calls - self.reached

    @property
    def faults(self) -> int:
        """How much went wrong."""
        return len(self.wrong) + self.suppressed + self.stray + self.disordered

    def judge(self, played: Played, messages: Iterable[AnyMessage], setting: Setting) -> None:
        """Add one conversation that has been played."""
        conversation = played.conversation
        same, untouched = oracles(conversation, POLICIES.get(conversation.domain, {}), raised=setting.raised)
        self.calls += len(conversation.calls)
        self.same += same
        self.untouched += untouched
        for name in ("reached", "suppressed", "stray", "disordered"):
            setattr(self, name, getattr(self, name) + getattr(played, name))
        self.wrong += played.wrong(messages, raised=setting.raised)


def play(conversations: list[Conversation], setting: Setting, done: Progress | None = None) -> Row:
    """Play conversations of one or more domains under one guard.

    Under `DECLARED`, domains that policies.py does not know are left out.
    """
    row = Row(f"{setting.guard}, split" if setting.split else setting.guard)
    domains: dict[str, list[Conversation]] = {}
    for each in conversations:
        if setting.guard != DECLARED or each.domain in POLICIES:
            domains.setdefault(each.domain, []).append(each)
    task = done and done.add_task(row.guard, total=sum(map(len, domains.values())))

    def judge(played: Played, messages: Iterable[AnyMessage]) -> None:
        row.judge(played, messages, setting)
        if done and task is not None:
            done.advance(task)

    def finish(graph: CompiledStateGraph, played: Played, state: dict[str, Any]) -> None:
        judge(played, state["messages"])
        graph.checkpointer.delete_thread(played.conversation.id)

    for each in domains.values():
        if setting.split:
            with TemporaryDirectory() as folder:
                for split, messages in play_split(each, setting, Path(folder)):
                    judge(split, messages)
            continue
        graph = build(each, setting)
        policy = POLICIES.get(each[0].domain, {}) if setting.guard == DECLARED else {}
        played = [Played(conversation, policy, setting) for conversation in each]
        if setting.sync:
            with ThreadPoolExecutor(setting.together) as pool:
                for one, state in zip(played, pool.map(lambda one, graph=graph: run(graph, one), played), strict=True):
                    finish(graph, one, state)
        else:
            asyncio.run(run_all(graph, played, setting.together, finish))
    return row


def config_of(played: Played) -> dict[str, Any]:
    """Return the config of a run: the conversation is the thread."""
    limit = 2 * len(played.conversation.messages) + 10
    return {"configurable": {"thread_id": played.conversation.id}, "recursion_limit": limit}


def run(graph: CompiledStateGraph, played: Played) -> dict[str, Any]:
    """Play one conversation, a run of the graph for each turn of the user."""
    PLAYING.set(played)
    state: dict[str, Any] = {"messages": []}
    for _ in played.conversation.turns:
        state = graph.invoke({"messages": [HumanMessage("Go on.")]}, config_of(played))
    return state


async def run_all(graph: CompiledStateGraph, played: list[Played], together: int, finish: Any) -> None:
    """Play conversations, each in a task of its own."""
    free = asyncio.Semaphore(together)

    async def one(each: Played) -> None:
        async with free:
            PLAYING.set(each)
            state: dict[str, Any] = {"messages": []}
            for _ in each.conversation.turns:
                state = await graph.ainvoke({"messages": [HumanMessage("Go on.")]}, config_of(each))
            finish(graph, each, state)

    await asyncio.gather(*(one(each) for each in played))


def report(title: str, rows: Iterable[Row]) -> Table:
    """Draw the table of one file."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("guard")
    heads = (
        "calls",
        "reached",
        "saved",
        "same\nresult",
        "no write\nbetween",
        "wrong",
        "sup-\npressed",
        "stray",
        "dis-\nordered",
    )
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        counts = (row.calls, row.reached, row.saved, row.same, row.untouched)
        faults = (len(row.wrong), row.suppressed, row.stray, row.disordered)
        table.add_row(row.guard, *(str(n) for n in (*counts, *faults)))
    return table


def main() -> int:
    """Play the files of the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="recordings (default: the shared ones and a synthetic one)")
    parser.add_argument("--sync", action="store_true", help="synchronous tools, invoked graph")
    parser.add_argument("--raise-errors", action="store_true", help="raise recorded errors instead of returning them")
    parser.add_argument("--together", type=int, default=1, help="conversations at once")
    parser.add_argument("--split", action="store_true", help="besides, in two processes with one store on the disk")
    parser.add_argument("--mixed", type=float, default=synthetic.MIXED, help="see synthetic.py")
    parser.add_argument("--limit", type=int, help="at most so many conversations of a file, drawn with the seed")
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic file and of what --limit draws")
    given = parser.parse_args()
    console = Console(highlight=False)
    files = given.files or [*sorted(TRACES.glob("*.jsonl")), synthetic.write(seed=given.seed, mixed=given.mixed)]
    if len(files) == 1 and not given.files:
        console.print("No recordings in ../shared/traces: playing the synthetic file only.")
    faults = 0
    for path in files:
        conversations = sample(load(path), given.limit, given.seed)
        unknown = sorted({each.domain for each in conversations} - set(POLICIES))
        if unknown:
            console.print(f"Nothing is declared for {', '.join(unknown)}: left out of the row '{DECLARED}'.")
        with Progress(console=console, transient=True, disable=not sys.stdout.isatty()) as progress:
            settings = [Setting(guard, given.sync, given.raise_errors, given.together) for guard in GUARDS]
            if given.split:
                settings += [Setting(guard, raised=given.raise_errors, split=True) for guard in (READS, DECLARED)]
            rows = [play(conversations, setting, progress) for setting in settings]
        console.print(report(f"{path.name}, {len(conversations)} conversations", rows))
        for row in rows:
            if row.guard != CONTROL:
                faults += row.faults
                for line in row.wrong[:5]:
                    console.print(f"wrong under {row.guard}: {line}", markup=False)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
