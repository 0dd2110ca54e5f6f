"""Blocks: what a model's message asks for, and what a tool's result looks like to the API.

The API takes text or a list of content blocks, and of a result that is an error text only, and some of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ibidem.core import telling
from ibidem.core.call import Outcome
from ibidem.core.faults import Fault

_NEEDED = {
    "text": "text",
    "image": "source",
    "document": "source",
    "search_result": "source",
    "tool_reference": "tool_name",
    "browser_state": "type",
}
"""The content blocks of a result, and what makes each one more than a dictionary that has a type."""

_EMPTY = "The tool gave no reason."


def of(thing: Any, name: str) -> Any:
    """Read a field of what is one of the SDK's models, or a dictionary."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def uses(message: Any) -> list[Any]:
    """Give the calls that a message asks the client for: those of server tools and of MCP servers are none.

    None at all where the message was cut off, or is paused: its last call may not be what the model was about to write.
    """
    content = of(message, "content")
    if isinstance(content, str) or content is None:
        return []
    if not (isinstance(message, Mapping) and "stop_reason" not in message) and of(message, "stop_reason") != "tool_use":
        return []
    return [block for block in content if of(block, "type") == "tool_use"]


def answered(block: Any, outcome: Outcome, name: str, errors: Any) -> dict[str, Any]:
    """Make the `tool_result` of a call.

    Args:
        block: The `tool_use`.
        outcome: How the call ended.
        name: Of the tool.
        errors: Of the guard: the words for a failure.
    """
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": of(block, "id")}
    family = of(block, "toolset_name")
    if family is not None:
        result["toolset_name"] = family
    said, failed = _said(outcome, name, errors)
    if failed:
        return {**result, "content": _words(said), "is_error": True}
    return {**result, "content": said}


def failure(name: str, fault: Fault, errors: Any) -> str:
    """Put a failure into words, and write down what the model is not told."""
    telling.log(name, fault)
    return telling.told(fault, errors)


def _said(outcome: Outcome, name: str, errors: Any) -> tuple[Any, bool]:
    fault, value = outcome.fault, outcome.value
    if hasattr(value, "tool_call_id") and hasattr(value, "content"):  # LangChain's message says both by itself
        return content(value.content), getattr(value, "status", "") == "error"
    if fault is None or not outcome.failed:
        return content(value), False
    if fault.returned:
        return content(value), True
    own = getattr(fault.exception, "content", None)  # the SDK's ToolError, or ours: the tool's own words to the model
    if own is not None and type(fault.exception).__name__ in ("ToolError", "ToldError"):
        return content(own), True
    return failure(name, fault, errors), True


def content(value: Any) -> str | list[dict[str, Any]]:
    """Write what a tool gave as the API takes it: text and blocks as they are, anything else as JSON."""
    if isinstance(value, str):
        return _well_formed(value)
    if isinstance(value, (list, tuple)) and value:
        blocks = [_block(part) for part in value]
        if all(block is not None for block in blocks):
            return [block for block in blocks if block is not None]
    return _well_formed(json.dumps(value, ensure_ascii=False, default=_plain))


def _block(part: Any) -> dict[str, Any] | None:
    """Read a content block: Anthropic's own, or LangChain's for text and images; None: it is none."""
    if not isinstance(part, Mapping):
        dump = getattr(part, "model_dump", None)
        part = dump(mode="json", exclude_none=True) if callable(dump) else None
    if part is None:
        return None
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return {name: said for name, said in {**part, "text": _well_formed(part["text"])}.items() if name != "id"}
    if kind in ("image", "image_url", "document", "file") and not isinstance(part.get("source"), Mapping):
        source = _source(part)
        return None if source is None else {"type": "image" if kind != "file" else "document", "source": source}
    needed = _NEEDED.get(str(kind))
    return dict(part) if needed is not None and part.get(needed) is not None else None


def _source(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read where LangChain, OpenAI and MCP put the data of an image or a file."""
    link = part.get("image_url", part.get("url"))
    url = link.get("url") if isinstance(link, Mapping) else link
    media = part.get("mime_type") or part.get("mimeType")
    data = part.get("base64") or part.get("data")
    if isinstance(url, str) and url.startswith("data:") and ";base64," in url:
        media, _, data = url.removeprefix("data:").partition(";base64,")
    if isinstance(data, str) and media:
        return {"type": "base64", "media_type": media, "data": data}
    return {"type": "url", "url": url} if isinstance(url, str) else None


def _words(said: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Keep of an error what the API takes: text, and not none at all."""
    if isinstance(said, str):
        return said or _EMPTY
    return [block for block in said if block.get("type") == "text" and block.get("text")] or _EMPTY


def _plain(value: Any) -> Any:
    """Give what JSON can hold of a value that it cannot."""
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, Iterator):
        return list(value)
    return str(value)


def _well_formed(text: str) -> str:
    """Replace halves of characters, which no request can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
