"""Scratchpads: where LangGraph keeps what a task was answered, and counts what it asks. They are read by the names of their fields."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

PAD, RESUMING, SEND, TASK = "__pregel_scratchpad", "__pregel_resuming", "__pregel_send", "__pregel_task_id"
CHECKPOINTER, RESUME_MAP = "__pregel_checkpointer", "__pregel_resume_map"

NEVER = 1 << 60
"""A question number that no answer has."""


class AnotherAsks(Exception):  # noqa: N818
    """A step would ask a person while another plan of the same task does: the answers could not be told apart."""

    def __init__(self, *, inside: bool = False) -> None:
        super().__init__(_INSIDE if inside else _BESIDE)


_BESIDE = "another plan of this message asks a person: submit this one again by itself, when that is answered"
_INSIDE = "a plan that a call of a plan, or of a node of several calls, runs cannot ask a person: ask before, or run it by itself"


class Own(NamedTuple):
    """Counts the questions of one call, in the scratchpad that was made for it."""

    attempt: Any
    """The attempt in which the call is made."""
    unit: tuple[str, int]
    """The call."""
    counter: Callable[[], int]

    def __call__(self) -> int:
        return self.counter()


def asked(pad: Any) -> int:
    """Tell how many questions a task has asked. The counter tells only by counting on, so it is put back."""
    number: int = pad.interrupt_counter()
    object.__setattr__(pad, "interrupt_counter", itertools.count(number).__next__)
    return number


def is_pending(get_null_resume: Any) -> bool:
    """Tell whether the answer that a resumed graph was given is still to be had.

    Asking for it takes it, and looking gives it also when it has been taken: what knows is the closure of the function.
    """
    if get_null_resume(False) is None:
        return False
    held = _closure(get_null_resume)
    if not held.keys() >= {"null_resume_write", "parent_scratchpad", "pending_writes"}:
        return True  # another LangGraph: nobody knows, so it may be
    if held["null_resume_write"] is None:
        return is_pending(held["parent_scratchpad"].get_null_resume)
    return any(write is held["null_resume_write"] for write in held["pending_writes"])


class Given(NamedTuple):
    """The answer that a graph was given without saying to what."""

    value: Any
    is_old: bool
    """Whether it was given at an earlier resume: where a graph is run on without an answer, LangGraph gives it once more."""


def given(pad: Any, task: Any) -> Given | None:
    """Find the answer that is for whoever asks first, had or not."""
    function, own = pad.get_null_resume, True
    while (held := _closure(function)).get("null_resume_write", pad) is None and held.get("parent_scratchpad"):
        function, own = held["parent_scratchpad"].get_null_resume, False
    answer, writes = held.get("null_resume_write"), list(held.get("pending_writes") or ())
    if answer is None:
        return None
    before = next((number for number, write in enumerate(writes) if write is answer), len(writes))
    # A new one is the last of all; where they are read again, those of no task come first.
    is_old = any(write[1] == "__interrupt__" and (write[0] == task or not own) for write in writes[before + 1 :])
    return Given(answer[2], is_old)


def pending_writes(pad: Any) -> Sequence[tuple[Any, ...]]:
    """Give what is saved with the checkpoint that a task began from, of all its tasks: whose, the channel and the value."""
    return _closure(pad.get_null_resume).get("pending_writes") or ()


def asked_last(pad: Any, task: Any) -> Any:
    """Give the interrupts that a task had raised when it was last saved, and is answered now; None: that cannot be told.

    A run that is cancelled may have asked something else meanwhile, which nobody has seen.
    """
    found = [write[2] for write in pending_writes(pad) if write[0] == task and write[1] == "__interrupt__"]
    return found[-1] if found else None


def values_of(interrupts: Any) -> list[Any]:
    """Give what interrupts ask."""
    return [getattr(each, "value", each) for each in interrupts]


@contextlib.contextmanager
def running_with(config: Any) -> Iterator[None]:
    """Let what runs in this block have another configuration."""
    variable = sys.modules["langchain_core.runnables.config"].var_child_runnable_config
    token = variable.set(config)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # closed in another context, which keeps its own value
            variable.reset(token)


def _closure(function: Any) -> dict[str, Any]:
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    return dict(zip(code.co_freevars, (cell.cell_contents for cell in cells), strict=True)) if code and cells else {}
