"""Approvals: a plan asks for each of its calls what that call by itself would have been asked.

`HumanInTheLoopMiddleware` guards tools by name, and sees the plan instead of the calls in it. So the plan asks: with the
request that the middleware would have made, when the arguments are known, before the call is made. The middleware is found
where it stands around the call by which the plan was submitted; where there is none to find, `approvals=` says it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

from langgraph.prebuilt import tool_node
from langgraph.types import interrupt

from ibidem.core.asker import running_config
from ibidem.core.call import Outcome
from ibidem.plan.references import own
from ibidem.plan.results import own_fault
from ibidem.resume.attempts import Attempt, submitted

_ALL: tuple[str, ...] = ("approve", "edit", "reject", "respond")
_PREFIX = "Tool execution requires approval"
_MIDDLEWARE = "langchain.agents.middleware.human_in_the_loop"
_MOST = 1_000
"""Functions that are looked into for a middleware."""


@dataclass(frozen=True)
class Approvals:
    """Which tools are guarded, and how a person is asked."""

    on: Mapping[str, Any]
    """As `interrupt_on=`: the name of a tool to true, or to what may be decided."""
    per_call: bool = False
    """Whether each request is answered by a single decision, as with `interrupt_mode="per_call"`."""
    prefix: str = _PREFIX

    @classmethod
    def of(cls, given: Any) -> Approvals:
        """Read what a user says.

        Raises:
            TypeError: It is neither a `HumanInTheLoopMiddleware`, nor its `interrupt_on`, nor a list of names.
        """
        on = getattr(given, "interrupt_on", given)
        if isinstance(on, Mapping):
            mode, prefix = getattr(given, "interrupt_mode", "batched"), getattr(given, "description_prefix", _PREFIX)
            return cls({name: each for name, each in on.items() if each}, mode == "per_call", prefix)
        if isinstance(on, (list, tuple, set, frozenset)) and all(isinstance(name, str) for name in on):
            return cls(dict.fromkeys(on, True))
        raise TypeError(f"approvals= is a HumanInTheLoopMiddleware, its interrupt_on or a list of names, not {given!r}")

    def guards(self, name: str) -> bool:
        """Whether calls of a tool are approved first."""
        return name in self.on

    def __call__(
        self, attempt: Attempt | None, unit: tuple[str, int], name: str, arguments: dict[str, Any]
    ) -> dict[str, Any] | Outcome:
        """Ask about a call if its tool is guarded.

        Returns:
            The arguments that it may be made with, or what stands in its place.

        Raises:
            ValueError: A decision that is not allowed, as with the middleware.
            RuntimeError: There is no graph around.
        """
        if name not in self.on:
            return arguments
        if attempt is None:
            raise RuntimeError(f"{name!r} needs approval, and outside a graph with a checkpointer nobody can be asked")
        config = self.on[name] if isinstance(self.on[name], Mapping) else {}
        allowed: list[str] = list(config.get("allowed_decisions") or _ALL)
        question = self._question(unit, name, own(arguments), config.get("description"), allowed)
        # A `when` of the middleware's only lets calls pass: without what it looks at, everything is asked about.
        if not attempt.still_asks(unit, [name, own(arguments)]):  # a set may be described in another order now
            interrupt(question)  # takes the answer that was given to another question
            attempt.discard()
        answer = interrupt(question)
        decision = answer if self.per_call else _only(answer)
        return self._decided(decision, name, arguments, allowed)

    def _question(
        self, unit: tuple[str, int], name: str, arguments: dict[str, Any], description: Any, allowed: list[str]
    ) -> dict[str, Any]:
        if not isinstance(description, str):
            description = f"{self.prefix}\n\nTool: {name}\nArgs: {arguments}"
        if self.per_call:
            where = ".".join([submitted.get() or "plan", unit[0], *([str(unit[1])] if unit[1] >= 0 else [])])
            asked = {"type": "tool_approval", "tool_call_id": where, "name": name, "args": arguments}
            return {**asked, "description": description}
        request = {"name": name, "args": arguments, "description": description}
        return {
            "action_requests": [request],
            "review_configs": [{"action_name": name, "allowed_decisions": allowed}],
        }

    def _decided(
        self, decision: Any, name: str, arguments: dict[str, Any], allowed: list[str]
    ) -> dict[str, Any] | Outcome:
        kind = decision.get("type") if isinstance(decision, Mapping) else None
        if kind not in allowed:
            raise ValueError(f"the decision {kind!r} is not allowed for {name!r}: it is one of {', '.join(allowed)}")
        if kind == "approve":
            return arguments
        if kind == "respond":
            return Outcome(decision["message"])
        if kind == "edit":
            action = decision["edited_action"]
            if action["name"] != name or not isinstance(action["args"], Mapping):
                raise ValueError(f"an edit in a plan changes the arguments of {name!r}, and not which tool it is")
            return dict(action["args"])
        reason = decision.get("message")
        why = f" with reason: {reason}" if reason else ""
        return Outcome(fault=own_fault("unauthorized", f"The user rejected this call{why}. It was not made."))


def _only(answer: Any) -> Any:
    decisions = answer.get("decisions") if isinstance(answer, Mapping) else None
    if not isinstance(decisions, list) or len(decisions) != 1:
        count = len(decisions) if isinstance(decisions, list) else 0
        raise ValueError(f"one call was to be decided about, and there are {count} decisions")
    return decisions[0]


class Around(NamedTuple):
    """What stands around the call that is being made."""

    approvals: Approvals | None
    is_whole: bool
    """Whether the stack reaches the graph that is around; true where there is none, or no such middleware."""


def found_above() -> Around:
    """Find the middleware that stands around the call that is being made.

    It wraps tool calls. So it is in the stack or, where the calls that it lets pass run in tasks or threads of their own, in
    what the `ToolNode` that is in the stack runs its calls through.
    """
    frame: FrameType | None = sys._getframe(1)
    found: Approvals | None = None
    is_whole = _MIDDLEWARE not in sys.modules or "__pregel_scratchpad" not in (
        running_config().get("configurable") or {}
    )
    while frame is not None:
        owners: list[Any] = []
        if frame.f_code.co_name in ("wrap_tool_call", "awrap_tool_call"):
            owners = [frame.f_locals.get("self")]
        elif str(frame.f_globals.get("__name__")).startswith("langgraph."):
            is_whole = True
            if frame.f_globals is vars(tool_node):
                node = frame.f_locals.get("self")
                owners = _owners([getattr(node, name, None) for name in ("_wrap_tool_call", "_awrap_tool_call")])
        for owner in owners:
            if isinstance(getattr(owner, "interrupt_on", None), Mapping):
                found = both(found, Approvals.of(owner))
        frame = frame.f_back
    return Around(found, is_whole)


def _owners(functions: list[Any]) -> list[Any]:
    """Give the objects whose methods functions are made of: those in their closures, in partial ones and around others."""
    left, seen, owners = list(functions), set[int](), []
    while left and len(seen) < _MOST:
        function = left.pop()
        if id(function) in seen or not callable(function):
            continue
        seen.add(id(function))
        owners.append(getattr(function, "__self__", None))
        left += [getattr(function, name, None) for name in ("__func__", "__wrapped__", "func")]
        for cell in getattr(function, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # not filled yet
                left.append(cell.cell_contents)
    return owners


def can_be_found() -> bool:
    """Whether the middleware wraps tool calls: an older one that is in use could not be seen from a plan."""
    module = sys.modules.get(_MIDDLEWARE)
    middleware = getattr(module, "HumanInTheLoopMiddleware", None)
    return middleware is None or "wrap_tool_call" in vars(middleware)


def both(one: Approvals | None, other: Approvals | None) -> Approvals | None:
    """Ask wherever one of two does; where both do, as the first says."""
    if one is None or other is None:
        return one if other is None else other
    return Approvals({**other.on, **one.on}, one.per_call or other.per_call, one.prefix)
