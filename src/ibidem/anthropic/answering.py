"""Answering: all the calls of a message in, one message of results out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ibidem.anthropic.blocks import answered, of, uses
from ibidem.anthropic.planning import Desk
from ibidem.anthropic.tools import Results, Tools
from ibidem.anthropic.turns import Planned, arun_all, run_all
from ibidem.bound import Bound
from ibidem.core.call import Outcome
from ibidem.guard import Guard


def answer(message: Any, tools: Tools, guard: Guard | Bound) -> Results | None:
    """Run the calls that a message asks for, and give the one user message that answers them.

    Calls that do not touch what another changes run at the same time; the others keep the order in which they stand in the
    message, and so do calls of which nothing is declared. One that fails is answered with `is_error` and costs the others
    nothing.

    Args:
        message: The API's, or the dictionary that stands for it in `messages=`.
        tools: LangChain tools, functions, `beta_tool` objects, or a dict of name to any of them; the member of a toolset is
            named by `(toolset, name)`. Blocks of other tools are left alone: add their results to the message.
        guard: What the calls pass; `guard.bind(conversation=...)` says whose they are.

    Returns:
        The message, its results in the order of the calls; None where there is nothing to answer: no call of ours, or the
        message was cut off or paused, which its `stop_reason` says.

    Raises:
        TypeError: A tool only awaits: use `aanswer`.
        Exception: What a tool raised, under `Guard(errors="raise")`, after all calls have ended.
    """
    desk = Desk(tools, guard, awaits=False).reviewed()
    blocks, calls = _planned(desk, message)
    return written(desk.bound, blocks, calls, run_all(desk.bound, calls))


async def aanswer(message: Any, tools: Tools, guard: Guard | Bound) -> Results | None:
    """Do the same on an event loop; synchronous tools run in threads."""
    desk = Desk(tools, guard, awaits=True).reviewed()
    blocks, calls = _planned(desk, message)
    return written(desk.bound, blocks, calls, await arun_all(desk.bound, calls))


def _planned(desk: Desk, message: Any) -> tuple[list[Any], list[Planned]]:
    planned = [(block, desk.plan(block, of(block, "input"), of(message, "id"))) for block in uses(message)]
    ours = [(block, call) for block, call in planned if call is not None]
    return [block for block, _ in ours], [call for _, call in ours]


def written(
    bound: Bound, blocks: Sequence[Any], calls: Sequence[Planned], outcomes: Sequence[Outcome]
) -> Results | None:
    """Write the message that answers some blocks.

    Raises:
        Exception: What a tool raised, if the guard says so.
    """
    errors = bound.guard.errors
    if not blocks:
        return None
    if errors == "raise":
        for outcome in outcomes:
            outcome.unwrap()
    content = [
        answered(block, outcome, call.name, errors)
        for block, call, outcome in zip(blocks, calls, outcomes, strict=True)
    ]
    return {"role": "user", "content": content}
