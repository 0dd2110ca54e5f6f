"""Conversations that change their process in the middle: one store on the disk, one checkpointer, two processes.

Each conversation is cut at a random message. One process plays what comes before the cut, the other what comes after; which
is which is drawn for every conversation. Neither ever sees a call again that it has played itself, so whatever is saved
after the cut was read in the other process.
"""

import multiprocessing
import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

import ibidem
from _recordings import Call, Conversation
from _stage import DECLARED, PLAYING, Played, Setting, build
from policies import POLICIES

COUNTS = ("reached", "suppressed", "stray", "disordered")
_here: dict[str, Any] = {}
"""The graph of this process and what belongs to it."""


def cut(conversation: Conversation, rng: random.Random) -> tuple[Conversation, Conversation]:
    """Cut a conversation at a random message; one of a single message has nothing before the cut."""
    at = rng.randrange(1, max(2, len(conversation.messages)))
    if len(conversation.messages) < 2:
        at = 0
    before: list[list[list[Call]]] = []
    after: list[list[list[Call]]] = []
    for turn in conversation.turns:
        before.append(turn[:at])
        after.append(turn[at:])
        at = max(0, at - len(turn))
    first, rest = ([turn for turn in part if turn] for part in (before, after))
    return replace(conversation, turns=first), replace(conversation, turns=rest)


def begin(conversations: list[Conversation], setting: Setting, folder: Path) -> None:
    """Build the graph of this process."""
    threads = SqliteSaver(sqlite3.connect(folder / "threads.db", check_same_thread=False))
    graph = build(conversations, setting, threads)
    policy = POLICIES.get(conversations[0].domain, {}) if setting.guard == DECLARED else {}
    _here.update(graph=graph, setting=setting, policy=policy)


def play_part(part: Conversation, limit: int) -> tuple[tuple[int, ...], list[AnyMessage]]:
    """Play a part of a conversation in this process.

    Args:
        part: What is left of the conversation.
        limit: The steps that a run may take.

    Returns:
        What was counted, in the order of `COUNTS`, and all messages of the thread so far.
    """
    graph, played = _here["graph"], Played(part, _here["policy"], _here["setting"])
    PLAYING.set(played)
    state: dict[str, Any] = {"messages": []}
    for _ in part.turns:
        config = {"configurable": {"thread_id": part.id}, "recursion_limit": limit}
        state = graph.invoke({"messages": [HumanMessage("Go on.")]}, config)
    guard = ibidem.guard_of(graph)
    if guard is not None:
        guard.store.flush()
    return tuple(getattr(played, name) for name in COUNTS), state["messages"]


def play_split(
    conversations: list[Conversation], setting: Setting, folder: Path, seed: int = 1
) -> Iterator[tuple[Played, list[AnyMessage]]]:
    """Play conversations of one domain, one after the other, each in two processes.

    Args:
        conversations: Of one domain.
        setting: How they are played; synchronously, whatever it says.
        folder: An empty one, for the store and the threads.
        seed: Of where they are cut.

    Yields:
        Each conversation with what both processes counted, and the messages of its thread.
    """
    rng = random.Random(seed)
    setting = replace(setting, sync=True, store=folder / "store")
    with ExitStack() as stack:
        # Spawned, as a server's workers are: a forked child would begin with the parent's memory.
        spawn = multiprocessing.get_context("spawn")
        pools = [stack.enter_context(ProcessPoolExecutor(1, spawn)) for _ in range(2)]
        for begun in [pool.submit(begin, conversations, setting, folder) for pool in pools]:
            begun.result()
        for conversation in conversations:
            whole, limit = Played(conversation, {}, setting), 2 * len(conversation.messages) + 10
            rng.shuffle(pools)
            messages: list[AnyMessage] = []
            for pool, part in zip(pools, cut(conversation, rng), strict=True):
                if part.turns:
                    counts, messages = pool.submit(play_part, part, limit).result()
                    for name, count in zip(COUNTS, counts, strict=True):
                        setattr(whole, name, getattr(whole, name) + count)
            yield whole, messages
