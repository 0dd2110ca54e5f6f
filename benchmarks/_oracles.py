"""What could be saved in a recorded conversation, and what in it may not change places."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import ibidem
from _recordings import Call, Conversation

Policy = Mapping[str, Any]
"""Effects by the name of a tool."""
Place = tuple[tuple[str, ...], bool]
"""A resource: its segments, and whether all below it is meant."""


def touched(policy: Policy, call: Call) -> list[Place]:
    """Return the resources of a declared call."""
    return [(resource.path, resource.below) for resource in policy[call.name].touched(call.args) or ()]


def conflict(policy: Policy, one: Call, other: Call) -> bool:
    """Tell whether two declared calls may not change places: one writes what the other reads or writes."""
    declared = policy.get(one.name), policy.get(other.name)
    if None in declared or not any(isinstance(effect, ibidem.Write) for effect in declared):
        return False
    return overlapping(touched(policy, one), touched(policy, other))


def overlapping(some: Iterable[Place], others: Iterable[Place]) -> bool:
    """Tell whether two sets of resources meet; written again here, so that the judge is not the judged."""
    for (path, below), (other, other_below) in itertools.product(some, others):
        common = min(len(path), len(other))
        if path[:common] != other[:common]:
            continue
        if (below or len(path) >= len(other)) and (other_below or len(other) >= len(path)):
            return True
    return False


def oracles(conversation: Conversation, policy: Policy, *, raised: bool) -> tuple[int, int]:
    """Count what could be saved in a conversation.

    Args:
        conversation: What was recorded.
        policy: What is declared; empty where nothing is.
        raised: Whether errors are raised, so that none can be answered from memory.

    Returns:
        The repeated reads whose recorded result equals that of the latest identical call, and the repeated calls that may
        be remembered, with no conflicting write, declared or undeclared, since the latest identical one.
    """
    latest: dict[str, str] = {}
    standing: dict[str, Call] = {}
    same = untouched = 0
    for call in conversation.calls:
        if call.kind == "read":
            same += latest.get(call.key) == call.result
        effect = policy.get(call.name)
        untouched += call.key in standing
        if effect is None:
            standing = {k: c for k, c in standing.items() if isinstance(policy[c.name], ibidem.Pure)}
        elif isinstance(effect, ibidem.Write):
            standing = {k: c for k, c in standing.items() if not conflict(policy, call, c)}
        elif not isinstance(effect, (ibidem.Live, ibidem.Nested)):
            standing[call.key] = call
        latest[call.key] = call.result
        if raised and call.is_error:
            latest.pop(call.key)
            standing.pop(call.key, None)
    return same, untouched
