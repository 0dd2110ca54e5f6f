"""Idempotency keys: the text by which the other side knows a call again.

It is the same for every attempt of a call, and after a resume for the call that the graph makes again; and another for
every other call. An id that a model made is not enough: some models count from `call_0` in every turn. So the task of the
turn, which LangGraph finds again on resume, is part of it. Where there is no id, nothing can be found again: the key is drawn.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

from ibidem.core.asker import Given, asker
from ibidem.core.keys import NoExactKey, canonical

_PROCESS = uuid.uuid4().hex
"""Names conversations that have no name of their own: a number of a run is given again by the next process."""


def idempotency_key(
    tool: str, arguments: Mapping[str, Any], call_id: str | None, given: Given, config: Mapping[str, Any]
) -> str:
    """Name a call.

    Args:
        tool: Its name.
        arguments: As the model gave them.
        call_id: As the model made it.
        given: What the guard was bound to.
        config: LangChain's configuration.

    Returns:
        A UUID as text.
    """
    configurable = config.get("configurable") or {}
    who = asker(given, configurable)
    known = who.conversation[0] == "thread"
    try:
        said = canonical(arguments)
    except NoExactKey:
        said = None
    if not call_id or said is None:
        return str(uuid.uuid4())
    parts = {
        "conversation": [*who.conversation, "" if known else _PROCESS],
        "user": who.user,
        "task": str(configurable.get("checkpoint_ns") or ""),
        "call": str(call_id),
        "tool": tool,
    }
    digest = hashlib.sha256(canonical(parts) + b"\0" + said).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))
