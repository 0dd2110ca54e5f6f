"""Replies of the fake Messages API: what the model says, where it is cut off, and the events that it streams as."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Block = dict[str, Any]
End = Literal["max_tokens", "refusal", "error", "drop"]

USAGE = {"input_tokens": 100, "output_tokens": 50, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


def text(said: str) -> Block:
    """Make a block of text."""
    return {"type": "text", "text": said}


def use(name: str, arguments: Mapping[str, Any] | None = None, id: str | None = None, **more: Any) -> Block:  # noqa: A002
    """Make a call of a tool.

    Args:
        name: Of the tool.
        arguments: What it is called with.
        id: Of the call; None: one is given when the reply is sent.
        **more: Other fields, such as `toolset_name`.
    """
    return {"type": "tool_use", "id": id, "name": name, "input": dict(arguments or {}), **more}


def server_use(name: str, arguments: Mapping[str, Any] | None = None, id: str = "srvtoolu_1") -> list[Block]:  # noqa: A002
    """Make a call that the API answers itself, and its answer."""
    result = {"type": "web_search_tool_result", "tool_use_id": id, "content": []}
    return [{"type": "server_tool_use", "id": id, "name": name, "input": dict(arguments or {})}, result]


@dataclass(frozen=True)
class Reply:
    """One message of the model.

    Raises:
        ValueError: It ends within, but nothing says where.
    """

    blocks: Sequence[Block]
    stop_reason: str | None = None
    """None: `tool_use` if a tool is called, else `end_turn`."""
    cut: int | None = None
    """Characters of text and arguments after which it is cut off; None: it is whole."""
    end: End = "max_tokens"
    """How it ends where it is cut off: two stop reasons, an `error` event, or a connection that drops."""
    gap: float = 0.0
    """Seconds before each block but the first, streamed."""
    delay: float = 0.0
    """Seconds before each piece of a block, streamed."""
    seed: int = 0
    """Where the pieces are cut."""
    raw: Mapping[int, str] | None = None
    """The arguments of blocks as text, by place: JSON that is none, say."""
    status: int = 200
    """Another answers with an error instead of a message."""

    def __post_init__(self) -> None:
        if self.end in ("error", "drop") and self.cut is None:
            raise ValueError(f"end={self.end!r} needs cut=: the number of characters after which it happens")

    @property
    def length(self) -> int:
        """The characters of text and arguments in it: where it can be cut."""
        return sum(len(self._payload(place)) for place in range(len(self.blocks)))

    @property
    def breaks(self) -> bool:
        """Whether it never ends as a message does."""
        return self.cut is not None and self.end in ("error", "drop")

    @property
    def ends_with(self) -> str:
        """Its stop reason."""
        if self.cut is not None:
            return self.end
        uses = any(block["type"] == "tool_use" for block in self.blocks)
        return self.stop_reason or ("tool_use" if uses else "end_turn")

    def named(self, number: int) -> Reply:
        """Give the calls that have no id one each."""
        named = [
            {**block, "id": f"toolu_{number:03}_{place}"} if block.get("id", "") is None else dict(block)
            for place, block in enumerate(self.blocks)
        ]
        return replace(self, blocks=named)

    def content(self) -> list[Block]:
        """Give the blocks as far as they were written; what is left of arguments that were cut off is an empty object."""
        left, said = self.cut, []
        for place, block in enumerate(self.blocks):
            payload = self._payload(place)
            if left is not None and len(payload) > left:
                said.append(_with(block, payload[:left]))
                return said
            left = None if left is None else left - len(payload)
            said.append(block)
        return said

    def events(self) -> Iterator[tuple[float, str, dict[str, Any]]]:
        """Give what it streams as, after `message_start`: seconds to wait, the event's name and its data."""
        left, pieces = self.cut, random.Random(self.seed)  # noqa: S311
        for place, block in enumerate(self.blocks):
            start = {**block, "input": {}} if "input" in block else {**block, "text": ""} if "text" in block else block
            yield self.gap if place else 0.0, "content_block_start", {"index": place, "content_block": start}
            payload = self._payload(place)
            kind, field = ("text_delta", "text") if "text" in block else ("input_json_delta", "partial_json")
            if "input" in block:
                yield 0.0, "content_block_delta", {"index": place, "delta": {"type": kind, field: ""}}
            while payload:
                piece = payload[: pieces.randint(1, 12)]
                if left is not None and len(piece) > left:
                    piece = piece[:left]
                if piece:
                    yield self.delay, "content_block_delta", {"index": place, "delta": {"type": kind, field: piece}}
                payload = payload[len(piece) :]
                left = None if left is None else left - len(piece)
                if left == 0 and payload:
                    break
            if left == 0 and payload and self.breaks:
                return
            yield 0.0, "content_block_stop", {"index": place}
            if left == 0 and payload:
                break
        if not self.breaks:
            stop = {"stop_reason": self.ends_with, "stop_sequence": None}
            yield 0.0, "message_delta", {"delta": stop, "usage": {"output_tokens": USAGE["output_tokens"]}}
            yield 0.0, "message_stop", {}

    def _payload(self, place: int) -> str:
        block = self.blocks[place]
        if self.raw is not None and place in self.raw:
            return self.raw[place]
        if "input" in block:
            return json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
        return str(block.get("text", ""))


def _with(block: Block, payload: str) -> Block:
    return {**block, "input": {}} if "input" in block else {**block, "text": payload}
