"""The magic `%ibidem` of IPython and Jupyter: `%load_ext ibidem`, then `%ibidem help`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import html
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class

from ibidem.bound import Bound
from ibidem.guard import Guard
from ibidem.report.living import GUARDS
from ibidem.report.words import counted
from ibidem.wrapping import guard_of

_NAMELESS = "a guard that no variable holds"


@dataclass(frozen=True, slots=True, repr=False)
class Answers:
    """What several guards answered, each under its name. In Jupyter they draw themselves."""

    of: tuple[tuple[str, Any], ...]
    """Names and answers."""

    def __repr__(self) -> str:
        return "\n\n".join(f"{name}\n{answer!r}" for name, answer in self.of)

    def _repr_html_(self) -> str:
        style = "margin:.8em 0 0;color:inherit"
        return "".join(
            f'<div style="{style}"><code>{html.escape(name)}</code></div>{answer._repr_html_()}'
            for name, answer in self.of
        )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong as IPython does, instead of ending the kernel."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; %ibidem help says more")


_PARSER = _Parser(
    "%ibidem",
    description="Ask the guards of this session.",
    epilog="""\
examples:
  %ibidem
  %ibidem stats guard
  %ibidem explain graph
  %ibidem forget guard --tool get_order
  found = %ibidem entries guard
""",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    add_help=False,
    allow_abbrev=False,
)
_PARSER.add_argument(
    "what",
    nargs="?",
    default="stats",
    choices=["stats", "entries", "explain", "forget", "help"],
    help="stats: calls, and where their results came from (the default); entries: what is remembered; explain: the "
    "effect of each tool, and where it was declared; forget: drop what is remembered; help: this text",
)
_PARSER.add_argument(
    "name",
    nargs="?",
    help="a variable: a guard, or something that passes one, such as a wrapped graph; without it: every guard",
)
_PARSER.add_argument("--conversation", help="forget only what this conversation read")
_PARSER.add_argument("--tool", help="forget only results of the tool of this name")
_HELP = _PARSER.format_help()


def _parsed(line: str) -> argparse.Namespace:
    try:
        return _PARSER.parse_args(
            shlex.split(line)
        )  # IPython's own splitting leaves the quotes of "two words" standing
    except ValueError as problem:
        raise UsageError(f"{problem}; %ibidem help says more") from None


@magics_class
class IbidemMagics(Magics):
    """The magics of ibidem."""

    @line_magic
    def ibidem(self, line: str) -> Any:
        """Ask the guards of this session; its help text is the parser's."""
        asked = _parsed(line)
        if asked.what == "help":
            print(_HELP)  # noqa: T201
            return None
        if asked.what != "forget" and (asked.conversation is not None or asked.tool is not None):
            raise UsageError(f"--conversation and --tool are for forgetting: %ibidem forget, not %ibidem {asked.what}")
        guards = self._all() if asked.name is None else [(asked.name, self._guard(asked.name))]
        if not guards:
            print("No guard is alive: make one with ibidem.Guard(...) or ibidem.wrap(..., reads=[...]).")  # noqa: T201
            return None
        if asked.what == "forget":
            for name, guard in guards:
                gone = guard.forget(conversation=asked.conversation, tool=asked.tool)
                print(f"{name}: {counted(gone, 'result')} forgotten")  # noqa: T201
            return None
        answers = tuple((name, self._answer(asked.what, asked.name, guard)) for name, guard in guards)
        return answers[0][1] if asked.name is not None else Answers(answers)

    def _answer(self, what: str, name: str | None, guard: Guard) -> Any:
        if what == "explain":
            target = self._variables[name] if name is not None else guard
            return guard.explain(None if isinstance(target, (Guard, Bound)) else target)
        return guard.stats() if what == "stats" else guard.entries()

    @property
    def _variables(self) -> Mapping[str, Any]:
        return self.shell.user_ns if self.shell is not None else {}

    def _guard(self, name: str) -> Guard:
        if name not in self._variables:
            raise UsageError(f"there is no variable {name!r}; {self._known()}")
        guard = _guard_behind(self._variables[name])
        if guard is None:
            raise UsageError(f"{name!r} is no guard and passes none; {self._known()}")
        return guard

    def _known(self) -> str:
        names = [name for name, _ in self._all()]
        return f"guards that are alive: {'; '.join(names)}" if names else "no guard is alive"

    def _all(self) -> list[tuple[str, Guard]]:
        gc.collect()  # a guard that a cell has replaced is part of a circle: without this it would still be listed
        named = list(self._named())
        found = []
        for guard in GUARDS:
            own = [name for name, thing, held in named if held is guard and isinstance(thing, (Guard, Bound))]
            behind = [name for name, _, held in named if held is guard]
            name = ", ".join(own) or (f"the guard of {', '.join(behind)}" if behind else _NAMELESS)
            found.append((name, guard))
        return found

    def _named(self) -> Iterator[tuple[str, Any, Guard]]:
        """Give the variables that are guards or pass one; those with an underscore are the shell's own."""
        for name, thing in list(self._variables.items()):
            guard = None if name.startswith("_") else _guard_behind(thing)
            if guard is not None:
                yield name, thing, guard


IbidemMagics.ibidem.__doc__ = _HELP  # what `%ibidem?` shows


def _guard_behind(thing: Any) -> Guard | None:
    if isinstance(thing, (Guard, Bound)):
        return thing.guard if isinstance(thing, Bound) else thing
    with contextlib.suppress(Exception):  # a variable may be anything, also something that answers no question
        return guard_of(thing)
    return None


def load(shell: InteractiveShell) -> None:
    """Register the magic."""
    shell.register_magics(IbidemMagics)


def unload(shell: InteractiveShell) -> None:
    """Take the magic away."""
    shell.magics_manager.magics["line"].pop("ibidem", None)
