"""Recorded conversations, as the files of the replay hold them."""

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call."""

    id: str
    name: str
    args: dict[str, Any]
    result: str
    is_error: bool
    kind: str
    key: str
    """Name and arguments as text: equal for identical calls, whatever the order of their keys."""

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Call":
        """Read one call of a file; a result that is not text becomes text, as a tool's would."""
        result = told["result"] if isinstance(told["result"], str) else json.dumps(told["result"])
        error = bool(told.get("is_error")) or result.startswith("Error")
        args = dict(told["args"])
        return cls(told["id"], told["name"], args, result, error, told["kind"], key_of(told["name"], args))


@dataclass(frozen=True, slots=True)
class Conversation:
    """One recorded conversation."""

    id: str
    domain: str
    turns: list[list[list[Call]]]
    """For each turn of the user the messages of the model, each with its calls."""

    @property
    def messages(self) -> list[list[Call]]:
        """The calls of each message that has any."""
        return [message for turn in self.turns for message in turn]

    @property
    def calls(self) -> list[Call]:
        """All calls, in the order in which the model emitted them."""
        return [call for message in self.messages for call in message]


def key_of(name: str, args: Mapping[str, Any]) -> str:
    """Return one text for a name and its arguments, whatever the order of keys."""
    return f"{name} {json.dumps(args, sort_keys=True)}"


def load(path: Path) -> list[Conversation]:
    """Read a file of recorded conversations."""
    found = []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            told = json.loads(line)
            turns = itertools.groupby((t for t in told["turns"] if t["calls"]), key=lambda turn: turn.get("user_turn"))
            read = [[[Call.read(call) for call in message["calls"]] for message in turn] for _, turn in turns]
            found.append(Conversation(told["id"], told["domain"], read))
    return found


def argument_names(conversations: Iterable[Conversation]) -> dict[str, list[str]]:
    """Return the arguments that each tool was ever given."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for conversation in conversations:
        for call in conversation.calls:
            found[call.name].update(dict.fromkeys(call.args))
    return {name: list(args) for name, args in found.items()}


def reading_tools(conversations: Iterable[Conversation]) -> list[str]:
    """Return the names of the tools that were recorded as reads, and never as anything else."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for conversation in conversations:
        for call in conversation.calls:
            kinds[call.name].add(call.kind)
    return sorted(name for name, found in kinds.items() if found == {"read"})


def sample(conversations: list[Conversation], limit: int | None, seed: int) -> list[Conversation]:
    """Draw at most so many conversations, in their order."""
    if limit is None or limit >= len(conversations):
        return conversations
    chosen = sorted(random.Random(seed).sample(range(len(conversations)), limit))
    return [conversations[at] for at in chosen]
