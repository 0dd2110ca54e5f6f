"""Certainty: from when on a call that is still streaming is known to be what the model meant.

A block that has stopped is not: one that is cut off stops too, and the SDK makes of what was written an input that looks
whole. Certain are, in this order:

- `parsed`: the block has stopped and its raw JSON is a whole object. Half an object is none, so nothing partial gets here.
- `passed`: the next block has begun, so the model was done with this one.
- `asked`: the message stops because of its tools, so no part of it is cut off.

A message may be cut off after a call was parsed or passed, and then the model makes it again. So what may change something
waits until it is asked for; reads lose nothing by being made twice.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from ibidem.anthropic.blocks import of

Level = Literal["parsed", "passed", "asked"]


@dataclass
class Written:
    """A call as far as the model has written it."""

    block: Any
    """The `tool_use` as it began: its id and its name."""
    raw: str = ""
    stopped: bool = False
    doubtful: bool = False
    """Whether what is there may be all that there will be, although the model was not done."""

    def arguments(self, *, complete: bool) -> Any:
        """Give what it is called with; None: that is no whole JSON object.

        Args:
            complete: Whether the model is done with it, so that no text at all means no arguments.
        """
        if not self.raw:
            return (of(self.block, "input") or {}) if complete and not self.doubtful else None
        try:
            found = json.loads(self.raw, parse_constant=_refuse)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


class Certainty:
    """Follows the events of one message."""

    def __init__(self) -> None:
        self.calls: list[Written] = []
        """Its calls, in their order."""
        self.asked = False
        """Whether the message stopped because of its tools."""
        self._by_index: dict[int, Written] = {}
        self._last: Written | None = None
        self._unsure = False

    def follow(self, event: Any) -> list[tuple[Written, Level]]:
        """Take an event, and say of which calls more is certain now.

        Args:
            event: As the SDK's stream gives it.
        """
        kind = of(event, "type")
        if kind == "content_block_start":
            return self._began(event.index, event.content_block)
        if kind == "content_block_delta" and of(event.delta, "type") == "input_json_delta":
            written = self._by_index.get(event.index)
            if written is not None:
                written.raw += event.delta.partial_json
        elif kind == "content_block_stop":
            return self._stopped(self._by_index.get(event.index))
        elif kind == "message_delta" and of(event.delta, "stop_reason") == "tool_use":
            self.asked = True
            return [(written, "asked") for written in self.calls if written.stopped]
        return []

    def _began(self, index: int, block: Any) -> list[tuple[Written, Level]]:
        passed, self._last = self._last, None
        kind = of(block, "type")
        if kind == "fallback":
            # Another model goes on where one refused, and what that one was writing may be cut off.
            self._unsure = True
            if passed is not None:
                passed.doubtful = True
            return []
        if kind == "tool_use":
            self._by_index[index] = written = Written(block)
            self.calls.append(written)
        return [(passed, "passed")] if passed is not None else []

    def _stopped(self, written: Written | None) -> list[tuple[Written, Level]]:
        if written is None:
            return []
        written.stopped = True
        if self._unsure:
            return []
        self._last = written
        return [(written, "parsed")] if written.arguments(complete=False) is not None else []
