"""The guard: what was declared, composed once into the layers that every call passes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from ibidem import options, running
from ibidem.bound import Bound
from ibidem.core.asker import NOBODY, Given, UserOf, ambient, asker, resumes, running_config, user_of
from ibidem.core.call import Call, Key, Layer, Outcome, Tool, current
from ibidem.core.declarations import Declarations
from ibidem.core.durations import TTL, reject_unknown
from ibidem.core.effects import Effect, Pure
from ibidem.core.faults import Kind
from ibidem.core.flights import Flights
from ibidem.core.keys import NoExactKey, canonical, veiled
from ibidem.core.policies import Breaker, Retry
from ibidem.core.resources import read_cells
from ibidem.core.runtime import Runtime
from ibidem.core.sought import Sought
from ibidem.core.turns import Book, place_of
from ibidem.layers.batch import Batches
from ibidem.layers.breaker import Breakers
from ibidem.layers.chain import Chains
from ibidem.layers.checked import Checked, Lots, apart
from ibidem.layers.deadline import Deadline
from ibidem.layers.execute import Execute
from ibidem.layers.fallback import Fallback
from ibidem.layers.hazards import AfterUnknown, Hazards
from ibidem.layers.memo import Memo
from ibidem.layers.retry import Retries
from ibidem.layers.shadow import Shadow
from ibidem.layers.timeout import Timeout
from ibidem.options import OPTIONS, Errors
from ibidem.questions import Questions
from ibidem.report.events import Event
from ibidem.report.living import GUARDS
from ibidem.report.reporter import Reporter
from ibidem.report.summary import Turns
from ibidem.report.tables import overview
from ibidem.report.trials import Trials
from ibidem.running import Runner
from ibidem.stores.protocol import Store
from ibidem.toolbox import Toolbox


class Guard(Questions, Runner):
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
        timeout: How long a call of a declared tool may take in all, unless its effect says otherwise.
        retry: When calls of declared tools that can do no harm twice are made again.
        breaker: When tools are left alone; each declared tool has one of its own, unless the breaker has a name.
        errors: What a model reads of failures: "message" for all tools, "raise" for none, or a function from `Fault` to
            text for all; None: messages, of declared tools only.
        faults: What exceptions of your own mean: class to kind.
        outside: Layers around the memo: they see every call.
        inside: Layers around execution: they see the calls that run.
        after_unknown: What becomes of a write that comes, in one turn, after another write of the same things of which nobody
            knows whether it was carried out: "skip", or "run".
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
        timeout: TTL = None,
        retry: Retry | None = None,
        breaker: Breaker | None = None,
        errors: Errors = None,
        faults: Mapping[type[Exception], Kind] | None = None,
        outside: Sequence[Layer] = (),
        inside: Sequence[Layer] = (),
        after_unknown: AfterUnknown = "skip",
        on_event: Callable[[Event], object] | None = None,
        **unknown: Any,
    ) -> None:
        self._options = {name: value for name, value in locals().items() if name in OPTIONS}
        reject_unknown("Guard", unknown, OPTIONS)
        options.check(self._options)
        switch = options.switch()
        self.off = switch == "off"
        self.store: Store = options.store_of(self._options, switch)
        declarations = Declarations.of(effects, reads, writes, live, default)
        self.toolbox = Toolbox(declarations, options.defaults(self._options), trust_mcp=trust_mcp)
        self.errors, self.after_unknown = errors, after_unknown
        self._user = user
        self._reporter, self._turns = Reporter(on_event), Turns()
        self.trials = Trials("shadow" if mode else "check" if check else None)
        self._checked = check is not None
        self._memo = self._make_memo(mode, check)
        self._breakers = Breakers(self._reporter.switched)
        self.book = Book()
        hazards = Hazards(after_unknown, self._reporter.ordered, self._reporter.not_remembered)
        # Layers around execution must see each result, and a trial what each call answers by itself.
        batches = () if inside or mode is not None else (Batches(self._memo),)
        around = (*outside, Fallback(), Deadline(), hazards, self._memo, *batches)
        self.layers: tuple[Any, ...] = (
            *around,
            Retries(self._reporter.retried),
            self._breakers,
            Timeout(),
            *inside,
            Execute(),
        )
        self._chains = Chains(self.layers)
        self.sees_every_call = bool(outside)
        GUARDS.add(self)

    def _make_memo(self, mode: Literal["shadow"] | None, check: float | None) -> Memo:
        parts = self.store, Flights(), self._reporter.not_remembered
        if mode is not None:
            return Shadow(*parts, self.trials, self._reporter.tell)
        return Memo(*parts) if check is None else Checked(*parts, self.trials, self._reporter.tell, Lots(check))

    def __repr__(self) -> str:
        return f"<Guard {' -> '.join(repr(layer) for layer in self.layers)}>"

    def _repr_html_(self) -> str:
        return overview(self.layers, self.stats(), self.explain())

    def here(self) -> Bound:
        return Bound(self, NOBODY)

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

    def hit(self, sought: Sought, *, only: bool = False, number: int = 0) -> Outcome | None:
        """Give what is remembered without making a call; None: make one. Called by adapters, for speed.

        Args:
            sought: What is called.
            only: Whether no call can be made: a hit is then not sent the long way to be checked.
            number: Its place in its turn, where it is answered before it takes that.
        """
        tool, key = sought.tool, sought.key
        if key is None or self.sees_every_call or not tool.effect.remembered or self.store.marked(key.identity):
            return None
        place = place_of(tool)
        if place is not None and (place.behind or place.is_ordered):
            return None
        asking = () if isinstance(tool.effect, Pure) else sought.asker.looks_at(tool.effect.scope)
        if not self._checked:  # a hit that is drawn is looked for again, on its long way
            sought.looked = self._memo.flights.landings
        outcome = (self._memo.find if only else self._memo.glance)(key, asking)
        if outcome is not None:
            self._ended(tool, sought.asker.conversation[1], outcome, None, number)
        return outcome

    def prepare(
        self,
        sought: Sought,
        body: Callable[[], Any],
        runtime: Runtime,
        *,
        awaits: bool = False,
    ) -> Call:
        """Make a call of what is sought. Called by adapters.

        Args:
            sought: What is called, with what, and by whom.
            body: Runs the tool itself, with a copy of the arguments of its own.
            runtime: Of the caller.
            awaits: Whether the body is a coroutine function.
        """
        tool, arguments, who, key, reason = sought.tool, sought.arguments, sought.asker, sought.key, sought.reason
        effect, parent, place = tool.effect, current.get(), place_of(tool)
        if not effect.merge:
            return Call(tool, arguments, who, runtime, body, awaits, parent=parent, place=place)
        resources = effect.touched(arguments) if key is not None else ()
        if resources is None:
            key, reason, resources = None, "its declaration failed to name the resources", ()
        pure = isinstance(effect, Pure)
        behind = place is not None and place.behind
        cells, asking = ((), ()) if pure else (read_cells(resources), who.looks_at(effect.scope))
        return Call(
            tool,
            arguments,
            who,
            runtime,
            body,
            awaits,
            key,
            reason,
            cells,
            asking,
            behind,
            parent,
            sought.looked,
            place,
        )

    async def through(self, call: Call) -> Outcome:
        """Take a call through the layers. Called by adapters."""
        if self._checked and apart.get():
            return await self._chains.of(call.tool.policies)(call)  # made by a second run: nobody's call
        try:
            outcome = await self._chains.of(call.tool.policies)(call)
        except BaseException as flow:
            self._reporter.stopped(call, flow)
            raise
        self._ended(call.tool, call.asker.conversation[1], outcome, call.reason)
        return outcome

    def _ended(self, tool: Tool, conversation: str, outcome: Outcome, reason: str | None, number: int = 0) -> None:
        self._reporter.came(tool.name, conversation, outcome, reason)
        config = running_config()
        if config:
            place = place_of(tool)
            self._turns.add(tool.name, conversation, outcome, config, place.number if place is not None else number)
        running.note(tool, outcome)

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()
