"""Identity of a tool: a text that changes when what the tool would answer may have changed.

Covered: module, qualified name, schema, code, constants, defaults, exactly encodable partial arguments and closure
cells, and the functions of the user's project that it names, and those that they name. Not covered, and said in the
docs: other globals, installed packages, and what the tool talks to.

Where something cannot be named exactly (a bound `self`, a closure cell without an exact encoding, no Python code), the
identity is this very object: a number that no other object gets in this process. So it is where a cell holds what
changes. A list that is empty, or a number that is counted up, is there to be changed; a small dictionary of settings
is named by what it holds, and looked at each time: two tools that were alike must not answer for each other any more.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import itertools
import site
import sysconfig
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ibidem.core.keys import NoExactKey, exact

_Found = tuple[Callable[[], Any], Any, Any]
"""How a function was found, the function, and the code it had."""


_Held = tuple[Any, bytes]
"""Something that can change, and what it held."""

_SMALL = 1024
"""Bytes beyond which what a cell holds is not looked at again on every call."""


class _Unnamed(Exception):  # noqa: N818
    """Something that cannot be named exactly."""


_NOT_THE_PROJECT = tuple(
    {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        str(Path(__file__).parents[1]),  # ours too
        "<frozen",
    }
)

OBJECT = "object:"
"""How an identity begins that holds for one object of this process only."""

_numbers = itertools.count(1)
_lock = threading.Lock()
_known: dict[int, tuple[Any, str]] = {}


def of_object(thing: Any) -> str:
    """Give the identity of this very object: the same text each time it is asked for, and never another object's."""
    with _lock:
        found = _known.get(id(thing))
        if found is not None and found[0]() is thing:
            return found[1]
        text = f"{OBJECT}{next(_numbers)}"
        try:
            reference = weakref.ref(thing, functools.partial(_drop, id(thing)))
        except TypeError:  # it cannot be referred to: a new text each time shares nothing, and is never wrong
            return text
        _known[id(thing)] = (reference, text)
        return text


def _is_known(thing: Any) -> bool:
    """Whether something has been told apart as this very object before."""
    found = _known.get(id(thing))
    return found is not None and found[0]() is thing


def _drop(key: int, _: object) -> None:
    _known.pop(key, None)


class Identity:
    """The identity of one tool, kept until something that its functions name is redefined.

    Args:
        functions: What is called, first and foremost.
        facts: Whatever else belongs to the tool: its name, its schema. Answers something exactly encodable.
        owner: The object that stands for the tool where it cannot be named exactly; by default the first function.
    """

    def __init__(
        self, *functions: Callable[..., Any], facts: Callable[[], Any] = lambda: None, owner: Any = None
    ) -> None:
        self._functions = functions
        self._facts = facts
        self._owner = functions[0] if owner is None else owner
        self._kept: tuple[list[_Found], list[_Held], str] | None = None

    def __call__(self) -> str:
        """Give it as of now."""
        kept = self._kept  # both at once: another thread may be giving it anew
        if kept is not None:
            for look, was, code in kept[0]:
                found = look()
                if found is not was or getattr(found, "__code__", None) is not code:
                    break
            else:
                if kept[1] and not all(_holds_still(*held) for held in kept[1]):
                    self._kept = kept = [], [], self._of_this_very_object()
                return kept[2]
        kept = self._kept = self._compute()
        return kept[2]

    def _of_this_very_object(self) -> str:
        return _of_owner(self._owner)

    def _compute(self) -> tuple[list[_Found], list[_Held], str]:
        walk = _Walk()
        try:
            parts = [self._facts(), *(walk.callable(function) for function in self._functions)]
            text = f"sha256:{hashlib.sha256(exact(parts)).hexdigest()}"
        except (_Unnamed, NoExactKey, RecursionError):
            return [], [], self._of_this_very_object()
        if walk.held and _is_known(self._owner):  # what it holds has changed before
            return [], [], self._of_this_very_object()
        return walk.found, walk.held, text


def _of_owner(owner: Any) -> str:
    """Give the identity of an object; for a bound method that of what it is bound to, since it is made anew each time."""
    if isinstance(owner, types.MethodType):
        return f"{of_object(owner.__self__)}.{of_object(owner.__func__)}"
    return of_object(owner)


def _holds_still(value: Any, text: bytes) -> bool:
    try:
        return exact(value) == text
    except NoExactKey:
        return False


class _Walk:
    """Collects what a callable consists of, and what of it was looked up by name."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self.held: list[_Held] = []
        self._visited: dict[int, int] = {}

    def callable(self, function: Any) -> Any:
        if isinstance(function, functools.partial):
            bound = {name: self._lasting(value) for name, value in function.keywords.items()}
            return ["partial", self.callable(function.func), [self._lasting(value) for value in function.args], bound]
        if isinstance(function, (staticmethod, classmethod)):
            return self.callable(function.__func__)
        if not isinstance(function, types.FunctionType):
            raise _Unnamed
        if id(function) in self._visited:
            return ["again", self._visited[id(function)]]
        self._visited[id(function)] = len(self._visited)
        self._note(lambda: function, function)
        inner = getattr(function, "__wrapped__", None)
        return [
            function.__module__,
            function.__qualname__,
            self._code(function.__code__),
            [self._value(default) for default in function.__defaults__ or ()],
            {name: self._value(default) for name, default in (function.__kwdefaults__ or {}).items()},
            self._cells(function),
            [self.callable(named) for named in self._named(function)],
            self.callable(inner) if inspect.isfunction(inner) else None,
        ]

    def _value(self, value: Any) -> Any:
        if inspect.isfunction(value) or isinstance(value, functools.partial):
            return self.callable(value)
        exact(value)
        return ["value", value]

    def _lasting(self, value: Any) -> Any:
        """Name a value that no call shows in its key."""
        try:
            hash(value)
        except TypeError:
            text = exact(value)
            if len(text) > _SMALL or (isinstance(value, (list, dict, set, bytearray)) and not value):
                raise _Unnamed from None
            self.held.append((value, text))
        return self._value(value)

    def _cells(self, function: types.FunctionType) -> list[Any]:
        cells = function.__closure__ or ()
        if cells and not set(function.__code__.co_freevars).isdisjoint(_rebound(function.__code__)):
            raise _Unnamed
        try:
            return [self._lasting(cell.cell_contents) for cell in cells]
        except ValueError:  # a cell that is not filled yet
            raise _Unnamed from None

    def _code(self, code: types.CodeType) -> Any:
        constants = [self._code(c) if isinstance(c, types.CodeType) else _constant(c) for c in code.co_consts]
        names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
        counts = [code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
        return [code.co_code, code.co_exceptiontable, constants, names, counts]

    def _named(self, function: types.FunctionType) -> Iterator[Any]:
        """Give the functions of the user's project that a function names, and remember how they were found."""
        names = list(dict.fromkeys(_names(function.__code__)))
        namespaces, seen = [function.__globals__], set()
        while namespaces:
            namespace = namespaces.pop()
            seen.add(id(namespace))
            for name in names:
                found = namespace.get(name)
                if isinstance(found, types.ModuleType):
                    if id(vars(found)) not in seen:
                        namespaces.append(vars(found))
                    continue
                ours = _of_the_project(found)
                if ours is not None:
                    self._note(functools.partial(namespace.get, name), found)
                    yield ours

    def _note(self, look: Callable[[], Any], found: Any) -> None:
        self.found.append((look, found, getattr(found, "__code__", None)))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _constant(value: Any) -> Any:
    return ["...", repr(value)] if value is Ellipsis else value


def _rebound(code: types.CodeType) -> Iterator[str]:
    """Give the names of enclosing functions' variables that a function assigns to, as after `nonlocal`."""
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_DEREF", "DELETE_DEREF"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _rebound(constant)


def _of_the_project(thing: Any) -> types.FunctionType | None:
    """Give the function of the user's project that something is, or that it wraps: `functools.cache` hides one."""
    for _ in range(20):
        if isinstance(thing, types.FunctionType) and not thing.__code__.co_filename.startswith(_NOT_THE_PROJECT):
            return thing
        if not callable(thing) or isinstance(thing, type):
            return None
        thing = inspect.getattr_static(thing, "__wrapped__", None)
    return None


def is_async(function: Any) -> bool:
    """Whether a function, or an object that is called as one, is asynchronous; not so where it cannot be called at all."""
    called = getattr(type(function), "__call__", None)  # noqa: B004  # as it is written, not whether it is callable
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
