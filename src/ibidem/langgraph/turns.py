"""The turns of nodes: what one run of a node knows of its calls, and the siblings of a call that is a task of its own."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from ibidem.core.effects import UNDECLARED, Effect
from ibidem.core.hazards import Access, hazard
from ibidem.core.keys import NoExactKey, canonical
from ibidem.core.turns import Asked, Place, Turn, here
from ibidem.guard import Guard
from ibidem.langgraph.kept import Kept

Twins = Mapping[str, tuple[Any, Any]]
"""The tools of a node by name, each with its twin."""


class NodeRun:
    """What one run of a node knows of its calls; as a block, the run itself."""

    __slots__ = ("_token", "answers", "config", "in_threads", "kept", "order", "places")

    def __init__(self, config: Any, *, in_threads: bool) -> None:
        self.config = config
        self.in_threads = in_threads
        """Whether its calls take threads of an executor with a bound."""
        self.answers: dict[int, Any] = {}
        """What was remembered, by the number of the call in the message."""
        self.order: Sequence[int] | None = None
        """The numbers of the other calls in the order in which they start; None: as they came."""
        self.places: dict[int, Place] | None = None
        """By the id of the object that a call is; None: its calls come one by one."""
        self.kept: Kept | None = None
        """What is known of the calls from an attempt that was interrupted; None: nothing is kept."""

    def __enter__(self) -> None:
        self._token = under_way.set(self)

    def __exit__(self, kind: object, flow: BaseException | None, trace: object) -> None:
        under_way.reset(self._token)
        if self.kept is not None:
            self.kept.left(flow)
            self.kept.save()

    async def __aenter__(self) -> None:
        self._token = under_way.set(self)

    async def __aexit__(self, kind: object, flow: BaseException | None, trace: object) -> None:
        under_way.reset(self._token)
        if self.kept is not None:
            self.kept.left(flow)
            await self.kept.asave()


under_way: ContextVar[NodeRun | None] = ContextVar("ibidem_node_run", default=None)
"""The run of a node that is under way here."""


def asked(twins: Twins, calls: Sequence[Any]) -> list[Asked]:
    """Say of the calls of a message what they would do to what."""
    return [_asked(twins, call) for call in calls]


def _asked(twins: Twins, call: Any) -> Asked:
    known = twins.get(call["name"])
    if known is None:
        return Asked(call["name"], call["id"], None, Access(UNDECLARED, None))
    return known[1].__ibidem_binding__.asked(call["args"], call["id"])  # type: ignore[no-any-return]


def effects(twins: Twins, calls: Sequence[Any]) -> list[Effect | None]:
    """Give the effects of the calls of a message; None: a tool that is not known, or one that runs a plan."""
    found: list[Effect | None] = []
    for call in calls:
        known = twins.get(call["name"])
        effect = known[1].__ibidem_binding__.tool.effect if known is not None else None
        found.append(effect if effect is not None and effect.inside is None else None)
    return found


def matters(twins: Twins, calls: Sequence[Any]) -> bool:
    """Whether it matters that calls are of one message: one may change something, or several can go into one request."""
    if len(calls) < 2:
        return False
    for call in calls:
        known = twins.get(call["name"])
        effect = known[1].__ibidem_binding__.tool.effect if known is not None else UNDECLARED
        effect = effect if effect.inside is None else effect.inside.effect
        if effect.changes or effect.batch is not None:
            return True
    return False


def let_ask_for(turn: Turn, twins: Twins, calls: Sequence[Any], config: Any) -> None:
    """Let the first call of a turn ask for the others, which come as their message has them."""
    for place, call in zip(turn.places, calls, strict=True):
        if place.access.effect.batch is not None:
            binding = twins[call["name"]][1].__ibidem_binding__
            place.sought = functools.partial(binding.sought, call["args"], config)


def arrives(twin: Any, call: Any) -> None:
    """Note what the call that is made here executes: wrappers, or a person, may have changed it."""
    place = here()
    if place is not None and not place.sure:
        binding = twin.__ibidem_binding__
        place.arrive(binding.tool, binding.asked(call["args"]).access)


def start_order(calls: Sequence[Any], numbers: Sequence[int], twins: Twins, turn: Turn | None) -> list[int]:
    """Order the starts of a turn so that no thread waits for a call that has none yet.

    What waits comes after what it waits for: a call after those that it must not pass, a repeat after the one whose run it
    shares. Nothing moves past an undeclared call, which runs as it would without ibidem.
    """
    level: dict[int, int] = {}
    first: dict[Any, int] = {}
    least = 0
    for number in numbers:
        known = twins.get(calls[number]["name"])
        effect = known[1].__ibidem_binding__.tool.effect if known is not None else UNDECLARED
        place = turn.places[number] if turn is not None else None
        if not effect.declared:
            least = level[number] = max(level.values(), default=0)
            continue
        before = [] if place is None else [each.number - 1 for each in place.earlier if _waits(place, each)]
        if effect.merge and not (place is not None and place.behind):
            with contextlib.suppress(NoExactKey):
                leader = first.setdefault((calls[number]["name"], canonical(calls[number]["args"])), number)
                before += [leader] if leader != number else []
        level[number] = max([least, *(level[each] + 1 for each in before if each in level)])
    return sorted(numbers, key=level.__getitem__)


def _waits(place: Place, other: Place) -> bool:
    return not other.ended and (not other.sure or hazard(other.access, place.access) is not None)


def sibling_place(
    guard: Guard, twins: Twins, call: Any, state: Any, key: str, config: Any, *, whole: Callable[[], bool]
) -> Place | None:
    """Find the place of a call that is a task of its own: the last message of its graph names its siblings.

    Args:
        guard: Knows the turns whose calls come one by one.
        twins: The tools of the node.
        call: The call, as its node got it.
        state: Of the graph.
        key: Where its messages are.
        config: LangChain's.
        whole: Tells whether all calls of the message are sent, as they stand there.
    """
    message, answered = _message(state, key)
    if message is None or not matters(twins, message.tool_calls):
        return None
    ids = [each["id"] for each in message.tool_calls]
    if call["id"] not in ids:
        return None
    configurable, metadata = config.get("configurable") or {}, config.get("metadata") or {}
    run = getattr(configurable.get("__pregel_runtime"), "control", None)
    if run is None:
        return None
    namespace = str(configurable.get("checkpoint_ns") or "").rpartition("|")[0]
    thread, step = configurable.get("thread_id"), metadata.get("langgraph_step")

    def make() -> Turn:
        turn = Turn(asked(twins, message.tool_calls), sure=False)
        for place in turn.places:
            if place.id in answered:  # by a person, say: it does not come
                place.end("done")
        if whole():
            let_ask_for(turn, twins, message.tool_calls, config)
        return turn

    known = (thread, namespace, step, message.id, tuple(ids))
    turn = guard.book.turn(known, run, make, again=thread is not None)
    place = turn.places[_number(message.tool_calls, call, answered, turn, metadata)]
    return None if place is here() else place  # a wrapped agent's middleware finds what its node found


def _number(said: Sequence[Any], call: Any, answered: frozenset[Any], turn: Turn, metadata: Mapping[str, Any]) -> int:
    """Give the number of a call in its message. Calls of one id are told apart by what they are, then by their tasks."""
    mine = [number for number, each in enumerate(said) if each["id"] == call["id"]]
    if len(mine) == 1:
        return mine[0]
    path: Any = metadata.get("langgraph_path") or ()
    sent = path[1] if len(path) > 1 else None  # an agent sends those without an answer, in their order

    def unlikely(number: int) -> tuple[bool, ...]:
        each, before = said[number], sum(other["id"] not in answered for other in said[:number])
        came = turn.places[number].state != "expected"
        return each["name"] != call["name"], each["args"] != call["args"], before != sent, came

    return min(mine, key=unlikely)


def _message(state: Any, key: str) -> tuple[AIMessage | None, frozenset[Any]]:
    """Give the last message of a model and the ids of its calls that have answers already."""
    messages = state if isinstance(state, list) else state.get(key) if isinstance(state, dict) else None
    if messages is None:
        messages = getattr(state, key, None)
    answered: set[Any] = set()
    for message in reversed(messages or ()):
        if isinstance(message, AIMessage):
            return message, frozenset(answered)
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
    return None, frozenset()
