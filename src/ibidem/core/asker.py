"""Who asks: the conversation and the user of a call.

Nearest first: what the guard was bound to, what `guard.conversation(...)` set around us, LangGraph's thread, LangGraph's
run, and outside all of them the process. LangGraph's configuration is read by the names it gives its keys, from the
context variable of a module that is there only if somebody imported it: the core imports no framework.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

from ibidem.core.call import Asker

PROCESS = ("process", "")
_RUNS = 10_000
"""Runs without a thread that are told apart at a time; a run forgotten too early only misses."""

UserOf = Callable[[Mapping[str, Any], Any], Any]
"""`(config, context) -> user`: how a guard learns whose call it is."""


class Given(NamedTuple):
    """What was said of who asks, by `bind` or `conversation`."""

    conversation: tuple[str, str] | None = None
    user: str | None = None

    @classmethod
    def of(cls, conversation: Any, user: Any) -> Given:
        """Read what a caller gave.

        Raises:
            ValueError: An empty or strange name: it would mix up what must stay apart.
        """
        named = None if conversation is None else ("thread", name_of(conversation, "conversation"))
        return cls(named, None if user is None else name_of(user, "user"))

    def over(self, outer: Given) -> Given:
        """Let what is given here win over what was given further out."""
        return Given(self.conversation or outer.conversation, self.user or outer.user)


NOBODY = Given()
ambient: ContextVar[Given] = ContextVar("ibidem_asker", default=NOBODY)
"""What `guard.conversation(...)` set."""


def name_of(value: Any, what: str) -> str:
    """Read the name of a conversation or a user.

    Raises:
        ValueError: It is neither a text nor a number nor a UUID, or it is empty.
    """
    text = str(value) if isinstance(value, (str, int)) or type(value).__name__ == "UUID" else ""
    if not text or isinstance(value, bool):
        raise ValueError(f"{what}={value!r} does not name a {what}: give a text that is not empty")
    return text


def running_config() -> Mapping[str, Any]:
    """Give LangChain's configuration of what runs around us; empty outside."""
    module = sys.modules.get("langchain_core.runnables.config")
    return (module.var_child_runnable_config.get() or {}) if module is not None else {}


def leave_run() -> None:
    """Take what runs in this context out of LangGraph's run.

    What is left of the run's plumbing would let it take the answer that a person gave to another call, or write into
    the stream of a run that goes on. What the user put into the configuration stays.
    """
    config, module = running_config(), sys.modules.get("langchain_core.runnables.config")
    if module is None or not config:
        return
    configurable = config.get("configurable") or {}
    own = {name: value for name, value in configurable.items() if not name.startswith("__pregel_")}
    module.var_child_runnable_config.set({**config, "configurable": own, "callbacks": None})


def asker(given: Given, configurable: Mapping[str, Any]) -> Asker:
    """Find who asks; the user only as far as it was given."""
    around = ambient.get()
    if given is not around:  # both are NOBODY almost always
        given = given.over(around)
    return Asker(given.conversation or _conversation(configurable), given.user)


def _conversation(configurable: Mapping[str, Any]) -> tuple[str, str]:
    thread = configurable.get("thread_id")
    if thread is not None:
        return ("thread", str(thread))
    runtime = configurable.get("__pregel_runtime")
    if runtime is None:
        return PROCESS
    # Nothing else in a configuration without a thread stays the same over a run and differs between runs.
    control = getattr(runtime, "control", None)
    return ("run", str(next(_numbers)) if control is None else _number_of(control))


def user_of(find: UserOf | None, config: Mapping[str, Any]) -> str | None:
    """Ask the guard's `user=` whose call it is; None where it does not know."""
    if find is None:
        return None
    context = getattr(config.get("configurable", {}).get("__pregel_runtime"), "context", None)
    try:
        found = find(config, context)
        return None if found is None else name_of(found, "user")
    except Exception:
        return None


def resumes(configurable: Mapping[str, Any]) -> bool:
    """Whether a task runs again after a person was asked, or still holds an answer of hers.

    Such a task is never served and never shares: an answer belongs to the one call that asked.
    """
    if configurable.get("__pregel_resuming"):
        return True
    scratchpad = configurable.get("__pregel_scratchpad")
    return scratchpad is not None and bool(getattr(scratchpad, "resume", None))


_numbers = itertools.count(1)
_lock = threading.Lock()
_runs: OrderedDict[int, tuple[Any, str]] = OrderedDict()


def _number_of(control: Any) -> str:
    """Number a run. The object takes no weak reference: it is held, so that its id is nobody else's meanwhile."""
    with _lock:
        found = _runs.get(id(control))
        if found is None:
            found = _runs[id(control)] = (control, str(next(_numbers)))
            if len(_runs) > _RUNS:
                _runs.popitem(last=False)
        else:
            _runs.move_to_end(id(control))
        return found[1]
