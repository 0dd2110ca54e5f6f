"""The guard: what was declared, composed once into the layers that every call passes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ibidem import options
from ibidem.core.asker import NOBODY, Given, UserOf, ambient, asker, resumes, running_config, user_of
from ibidem.core.call import Asker, Call, Key, Layer, Outcome, Tool, current
from ibidem.core.declarations import Declarations
from ibidem.core.effects import Effect, Pure, reject_unknown
from ibidem.core.flights import Flights
from ibidem.core.keys import NoExactKey, canonical, veiled
from ibidem.core.resources import read_cells
from ibidem.core.runtime import Runtime
from ibidem.layers.checked import Checked, Lots, apart
from ibidem.layers.execute import Execute
from ibidem.layers.memo import Memo
from ibidem.layers.shadow import Shadow
from ibidem.options import OPTIONS
from ibidem.questions import Questions
from ibidem.report.events import Event, Kind, logger
from ibidem.report.living import GUARDS
from ibidem.report.statistics import Recorder
from ibidem.report.tables import overview
from ibidem.report.trials import Trials
from ibidem.stores.protocol import Store
from ibidem.toolbox import Toolbox

Chain = Callable[[Call], Awaitable[Outcome]]


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


class Guard(Questions):
    """Everything that stands between a model's tool calls and the tools.

    Args:
        effects: Tool name, or glob, to effect.
        reads: Names or globs of tools that only read: `Read()`.
        writes: Names or globs of tools that change something: `Write()`.
        live: Names or globs of tools that are harmless and different every time: `Live()`.
        default: The effect of tools that nothing else declares. None: undeclared, which is always safe.
        store: Where results are remembered: the name of a folder such as `".ibidem"`, a `Disk`, a `Memory`; None: in
            memory, nothing touches the disk.
        key: What a folder's entries are authenticated with; None: `IBIDEM_KEY`, else a file of the user's own.
        mode: None, or `"shadow"`: every call runs, and `report()` says what would have been served, and if rightly.
        check: The share of hits, such as 0.01, that are run again beside being served. A tool that answers otherwise
            than was remembered, although nothing it depends on changed, is remembered no more.
        user: `(config, context) -> user`: tells whose call it is, for `scope="user"`.
        trust_mcp: Whether to believe an MCP server that says a tool only reads. A hint is a claim of the server's.
        outside: Layers around the memo: they see every call.
        inside: Layers around execution: they see the calls that run.
        on_event: Told of everything that happens; what it raises is logged and goes no further.

    Raises:
        TypeError: An unknown option, or a value of the wrong kind.
        ValueError: Contradicting declarations, or a value that makes no sense.

    The environment variable `IBIDEM` overrides every guard: `off` lets calls pass untouched, `memory` keeps results in
    memory whatever `store` says.
    """

    def __init__(
        self,
        effects: Mapping[str, Effect] | None = None,
        *,
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
        live: Sequence[str] = (),
        default: Effect | None = None,
        store: Store | str | os.PathLike[str] | None = None,
        key: str | bytes | None = None,
        mode: Literal["shadow"] | None = None,
        check: float | None = None,
        user: UserOf | None = None,
        trust_mcp: bool = False,
        outside: Sequence[Layer] = (),
        inside: Sequence[Layer] = (),
        on_event: Callable[[Event], object] | None = None,
        **unknown: Any,
    ) -> None:
        self._options = {name: value for name, value in locals().items() if name in OPTIONS}
        reject_unknown("Guard", unknown, OPTIONS)
        options.check(self._options)
        switch = options.switch()
        self.off = switch == "off"
        self.store: Store = options.store_of(self._options, switch)
        self.toolbox = Toolbox(Declarations.of(effects, reads, writes, live, default), trust_mcp=trust_mcp)
        self.on_event = on_event
        self._user = user
        self.trials = Trials("shadow" if mode else "check" if check else None)
        self._checked = check is not None
        self._memo = self._make_memo(mode, check)
        self.layers: tuple[Any, ...] = (*outside, self._memo, *inside, Execute())
        self._chain: Chain = Execute()
        for layer in reversed(self.layers[:-1]):
            self._chain = _around(layer, self._chain)
        self.sees_every_call = bool(outside)
        self._recorder = Recorder()
        GUARDS.add(self)

    def _make_memo(self, mode: Literal["shadow"] | None, check: float | None) -> Memo:
        parts = self.store, Flights(), self._not_remembered
        if mode is not None:
            return Shadow(*parts, self.trials, self._tell)
        return Memo(*parts) if check is None else Checked(*parts, self.trials, self._tell, Lots(check))

    def __repr__(self) -> str:
        return f"<Guard {' -> '.join(repr(layer) for layer in self.layers)}>"

    def _repr_html_(self) -> str:
        return overview(self.layers, self.stats(), self.explain())

    # -- who asks -----------------------------------------------------------------------------------------------------

    def replace(self, **changes: Any) -> Guard:
        """Make a guard with some options changed; it shares this one's store, so that a write is seen by both."""
        reject_unknown("Guard", [name for name in changes if name not in OPTIONS], OPTIONS)
        return Guard(**{**self._options, "store": self.store, "key": None, **changes})

    def bind(self, *, conversation: Any = None, user: Any = None) -> Bound:
        """Fix who asks; the answer is accepted wherever a guard is.

        Args:
            conversation: Its name; one memo with the LangGraph thread of that `thread_id`.
            user: Whose it is.
        """
        return Bound(self, Given.of(conversation, user))

    @contextlib.contextmanager
    def conversation(self, conversation: Any, *, user: Any = None) -> Iterator[Bound]:
        """Say who asks for everything called inside the `with` block, outside LangGraph for example."""
        given = Given.of(conversation, user)
        token = ambient.set(given.over(ambient.get()))
        try:
            yield Bound(self, given)
        finally:
            ambient.reset(token)

    # -- running --------------------------------------------------------------------------------------------------

    def seek(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        *,
        given: Given = NOBODY,
        config: Mapping[str, Any] | None = None,
    ) -> Sought:
        """Find out who asks, and the key of what is asked. Called by adapters, once for a call.

        Args:
            tool: What is called.
            arguments: Validated, by name, without what the framework injects.
            given: What the guard was bound to.
            config: LangChain's configuration; None: whatever runs around us.
        """
        config = running_config() if config is None else config
        configurable = config.get("configurable") or {}
        who, effect = asker(given, configurable), tool.effect
        if not effect.merge:
            if effect.changes and who.user is None and self._user is not None:
                who = who._replace(user=user_of(self._user, config))
            return Sought(tool, arguments, who)
        reason = tool.reason
        if self._checked and reason is None:
            reason = self.trials.distrusted.get(tool.name)
        if reason is not None:
            return Sought(tool, arguments, who, reason=reason)
        if resumes(configurable):
            return Sought(tool, arguments, who, reason="it runs again after a person was asked")
        partition: tuple[str, ...] = who.conversation
        if effect.scope != "conversation":
            if who.user is None:
                who = who._replace(user=user_of(self._user, config))
            if effect.scope == "user" and who.user is None:
                reason = "nobody said whose call it is: give Guard(user=...) or bind(user=...)"
                return Sought(tool, arguments, who, reason=reason)
            partition = ("user", who.user or "") if effect.scope == "user" else ("shared",)
        try:
            told = veiled(arguments, effect.secret, self.store.pepper) if effect.secret else arguments
            return Sought(tool, arguments, who, Key(tool.identify(), partition, canonical(told)))
        except NoExactKey as problem:
            return Sought(tool, arguments, who, reason=str(problem))

    def hit(self, sought: Sought, *, only: bool = False) -> Outcome | None:
        """Give what is remembered without making a call; None: make one. Called by adapters, for speed.

        Args:
            sought: What is called.
            only: Whether no call can be made: a hit is then not sent the long way to be checked.
        """
        tool, key = sought.tool, sought.key
        if key is None or self.sees_every_call or not tool.effect.remembered or self.store.marked(key.identity):
            return None
        asking = () if isinstance(tool.effect, Pure) else sought.asker.looks_at(tool.effect.scope)
        if not self._checked:  # a hit that is drawn is looked for again, on its long way
            sought.looked = self._memo.flights.landings
        outcome = (self._memo.find if only else self._memo.glance)(key, asking)
        if outcome is not None:
            self._record(tool, sought.asker.conversation[1], outcome, None)
        return outcome

    def prepare(
        self,
        sought: Sought,
        body: Callable[[], Any],
        runtime: Runtime,
        *,
        awaits: bool = False,
        behind: bool = False,
    ) -> Call:
        """Make a call of what is sought. Called by adapters.

        Args:
            sought: What is called, with what, and by whom.
            body: Runs the tool itself, with a copy of the arguments of its own.
            runtime: Of the caller.
            awaits: Whether the body is a coroutine function.
            behind: Whether an earlier call of the same turn may change what this one reads.
        """
        tool, arguments, who, key, reason = sought.tool, sought.arguments, sought.asker, sought.key, sought.reason
        effect, parent = tool.effect, current.get()
        if not effect.merge:
            return Call(tool, arguments, who, runtime, body, awaits, parent=parent)
        resources = effect.touched(arguments) if key is not None else ()
        if resources is None:
            key, reason, resources = None, "its declaration failed to name the resources", ()
        pure = isinstance(effect, Pure)
        cells, asking = ((), ()) if pure else (read_cells(resources), who.looks_at(effect.scope))
        return Call(
            tool, arguments, who, runtime, body, awaits, key, reason, cells, asking, behind, parent, sought.looked
        )

    async def run(self, call: Call) -> Outcome:
        """Take a call through the layers."""
        if self._checked and apart.get():
            return await self._chain(call)  # made by a second run: nobody's call
        try:
            outcome = await self._chain(call)
        except BaseException as flow:
            self._recorder.stopped(call.tool.name)
            self._tell("interrupted", call.tool.name, call.asker.conversation[1], reason=type(flow).__name__)
            raise
        self._record(call.tool, call.asker.conversation[1], outcome, call.reason)
        return outcome

    def _record(self, tool: Tool, conversation: str, outcome: Outcome, reason: str | None) -> None:
        failed = outcome.fault is not None
        self._recorder.came(tool.name, outcome.how, outcome.elapsed, failed=failed, reason=reason)
        if self.on_event is not None:
            kind: Kind = "failed" if failed and outcome.how == "ran" else outcome.how
            self._tell(kind, tool.name, conversation, outcome.elapsed, outcome.age, reason or "")

    def _not_remembered(self, call: Call, reason: str) -> None:
        self._recorder.not_remembered(call.tool.name, reason)
        logger.debug("%s: a result was not remembered: %s", call.tool.name, reason)
        self._tell("not remembered", call.tool.name, call.asker.conversation[1], reason=reason)

    def _tell(
        self, kind: Kind, tool: str, conversation: str, elapsed: float = 0.0, age: float = 0.0, reason: str = ""
    ) -> None:
        if self.on_event is None:
            return
        try:
            self.on_event(Event(kind, tool, conversation, elapsed, age, reason))
        except Exception:
            logger.exception("on_event failed; the call goes on")

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()


class Bound:
    """A guard and who asks. Accepted wherever a guard is."""

    def __init__(self, guard: Guard, given: Given) -> None:
        self.guard = guard
        self.given = given

    def __repr__(self) -> str:
        said = {name: value for name, value in self.given._asdict().items() if value is not None}
        return f"<{self.guard!r} bound to {said}>"


def _around(layer: Layer, inner: Chain) -> Chain:
    def step(call: Call) -> Awaitable[Outcome]:
        return layer(call, inner)

    return step
