"""Chains of single reads in recorded conversations, replayed as plans.

A chain is a run of consecutive model messages within a user's turn, each with one read. Whatever the model knew before
is written into the plan; an argument that an earlier result of the chain contains becomes a reference to it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from _recordings import Call, Conversation
from ibidem import Guard, Live, Plan, PlanError


@dataclass
class Saved:
    """What plans save of the round trips of a file."""

    trips: int = 0
    """Model messages with calls."""
    bound: int = 0
    """Those that chains could save if nothing had to be decided: all but the first of each."""
    references: int = 0
    """Those that the replayed plans saved."""
    undecided: int = 0
    """Those of them where no reference picks one of several elements of a list."""
    wrong: int = 0
    """Steps that were called with other arguments, or gave another result, than was recorded."""


def chains(conversation: Conversation) -> Iterator[list[Call]]:
    """Give the chains of a conversation, of two reads and more."""
    for turn in conversation.turns:
        chain: list[Call] = []
        for message in [*turn, []]:
            if len(message) == 1 and message[0].kind == "read":
                chain.append(message[0])
                continue
            if len(chain) > 1:
                yield chain
            chain = []


def leaves(
    value: Any, path: tuple[Any, ...] = (), *, picked: bool = False
) -> Iterator[tuple[Any, tuple[Any, ...], bool]]:
    """Give the plain values in a result, how to reach each, and whether that picks one of several."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key), picked=picked)
    elif isinstance(value, list):
        for position, part in enumerate(value):
            yield from leaves(part, (*path, position), picked=picked or len(value) > 1)
    elif isinstance(value, (str, int)) and not isinstance(value, bool) and len(str(value)) > 2:
        yield value, path, picked


def parsed(result: str) -> Any:
    try:
        return json.loads(result)
    except ValueError:
        return None


def planned(chain: Sequence[Call]) -> tuple[Plan, bool]:
    """Write a chain as a plan; and say whether a reference picks one of several elements."""
    plan, picks, known = Plan(), False, {}
    for number, call in enumerate(chain):
        arguments = {}
        for name, value in call.args.items():
            known_as, picked = known.get(value, (value, False)) if isinstance(value, (str, int)) else (value, False)
            picks = picks or picked
            arguments[name] = known_as
        step = plan.add(f"s{number}", call.name, arguments)
        for value, path, picked in leaves(parsed(call.result)):
            reference: Any = step
            for key in path:
                reference = reference[key]
            if value not in known or (known[value][1] and not picked):
                known[value] = reference, picked
    return plan, picks


def replayed(chain: Sequence[Call]) -> tuple[bool, bool, int]:
    """Replay a chain as a plan: whether all of it ran, whether nothing was picked, and how many steps were wrong."""
    asked: dict[str, list[Any]] = {}
    left = {name: [call for call in chain if call.name == name] for name in {call.name for call in chain}}

    def tool(name: str) -> Any:
        def called(**arguments: Any) -> Any:
            asked.setdefault(name, []).append(arguments)
            call = next(each for each in left[name] if each.args == arguments)
            left[name].remove(call)
            if call.is_error:
                raise ValueError(call.result)
            return call.result

        called.__name__ = name
        return called

    plan, picks = planned(chain)
    plan.tools = [tool(name) for name in left]
    result = plan.run(Guard(effects=dict.fromkeys(left, Live())), max_concurrency=1)
    # An error is for the model to decide about; the last may be one, since nothing comes after it.
    whole = not any(each.state != "done" for each in list(result.steps.values())[:-1])
    wrong = sum(
        each.state == "done" and each.value != call.result
        for each, call in zip(result.steps.values(), chain, strict=True)
    )
    return whole, not picks, wrong


def saved(conversations: Sequence[Conversation]) -> Saved:
    """Replay all chains, each cut where an error had to be decided about."""
    found = Saved(trips=sum(len(each.messages) for each in conversations))
    for conversation in conversations:
        for chain in chains(conversation):
            found.bound += len(chain) - 1
            for part in cut(chain):
                try:
                    whole, undecided, wrong = replayed(part)
                except PlanError:
                    continue
                found.wrong += wrong
                if whole:
                    found.references += len(part) - 1
            for part in cut(chain, undecided=True):
                whole, undecided, _ = replayed(part)
                if whole and undecided:
                    found.undecided += len(part) - 1
    return found


def cut(chain: Sequence[Call], *, undecided: bool = False) -> Iterator[list[Call]]:
    """Cut a chain after each error and, if asked, before each reference that picks."""
    part: list[Call] = []
    for call in chain:
        if part and (part[-1].is_error or (undecided and planned([*part, call])[1])):
            yield part
            part = []
        part.append(call)
    if part:
        yield part
