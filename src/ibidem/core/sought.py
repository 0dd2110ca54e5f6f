"""Sought calls: what is known of a call before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ibidem.core.call import Asker, Key, Tool


@dataclass(slots=True)
class Sought:
    """A call before it is made."""

    tool: Tool
    arguments: Mapping[str, Any]
    asker: Asker
    key: Key | None = None
    reason: str | None = None
    """Why there is no key although the effect would allow one."""
    looked: int = -1
    """How many flights had landed when `hit` looked for it in vain: until another lands it need not be looked for."""
