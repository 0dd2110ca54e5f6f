"""Plans by hand: steps over tools, and the options of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from ibidem.plan.references import IDENTIFIER, ITEM, Reference

if TYPE_CHECKING:
    from ibidem.bound import Bound
    from ibidem.guard import Guard
    from ibidem.plan.results import Result

Op = Literal["eq", "ne", "lt", "gt", "in", "exists"]
"""How a condition compares what a reference leads to with a value. There are no expressions."""

OPS: tuple[Op, ...] = get_args(Op)

Schedule = Literal["eager", "batches"]
OnFault = Literal["continue", "stop"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A step runs only if this holds."""

    reference: Reference
    op: Op
    value: Any


class Step(Reference):
    """One step of a plan; a reference to its whole result. Its methods are its options, and give the step back."""

    __slots__ = ("afters", "arguments", "conditions", "is_optional", "over", "tool", "tool_name")

    def __init__(self, owner: Plan, source: str, tool: Any, arguments: Mapping[str, Any]) -> None:
        super().__init__(owner, source)
        self.tool = tool
        """A tool, a function, or the name of one of the tools that the plan is given."""
        self.tool_name = tool if isinstance(tool, str) else name_of(tool)
        self.arguments = dict(arguments)
        self.afters: list[str] = []
        """Ids of steps that it waits for without their results."""
        self.conditions: list[Condition] = []
        self.is_optional = False
        self.over: Reference | None = None
        """The list for whose elements it is run once each."""

    @property
    def id(self) -> str:
        """What it is called: the name of its tool, with a number from the second on."""
        return self.source

    def after(self, *steps: Step) -> Step:
        """Wait for other steps, although their results are not needed."""
        for step in steps:
            if not isinstance(step, Step) or step.owner is not self.owner:
                raise TypeError(f"after(step) takes steps of this plan, not {step!r}")
            self.afters.append(step.id)
        return self

    def when(self, reference: Reference, op: Op = "exists", value: Any = True) -> Step:
        """Run only if a condition holds; several must all hold. Otherwise the step, and who needs its result, is skipped.

        Args:
            reference: What is compared.
            op: `eq`, `ne`, `lt`, `gt`, `in`, or `exists`.
            value: With what; for `in` a list, for `exists` whether it must exist.
        """
        check_condition(reference, op, value)
        self.conditions.append(Condition(reference, op, value))
        return self

    def optional(self) -> Step:
        """Let those who need the result run without it, with None, where the step fails or is skipped."""
        self.is_optional = True
        return self

    def map(self, *, over: Reference) -> Step:
        """Run once for each element of a list; `plan.item` stands for the element, the result is a list in its order."""
        if not isinstance(over, Reference):
            raise TypeError(f"map(over=reference) takes a reference to a list, such as found['results'], not {over!r}")
        self.over = over
        return self


def check_condition(reference: Any, op: Any, value: Any) -> None:
    """Refuse a condition that makes no sense.

    Raises:
        TypeError: It compares no reference, or with something of the wrong kind.
        ValueError: An unknown operator.
    """
    if not isinstance(reference, Reference):
        raise TypeError(f"when(reference, op, value) compares a reference, such as place['open'], not {reference!r}")
    if op not in OPS:
        raise ValueError(f"op={op!r} is unknown: it is one of {', '.join(OPS)}")
    if op == "exists" and not isinstance(value, bool):
        raise TypeError(f"exists is compared with true or false, not {value!r}")
    if op == "in" and not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(f"in is compared with a list, not {value!r}")
    if isinstance(value, Reference):
        raise TypeError(
            "a condition compares a reference with a value that is written down, not with another reference"
        )


class Plan:
    """Calls that need each other's results. Nothing runs before `run`, `arun` or a tool that runs plans is asked.

    plan  = ibidem.Plan()
    place = plan.call(geocode, city="Paris")
    sky   = plan.call(weather, lat=place["lat"], lon=place["lon"])
    print((await plan.arun(guard))[sky])
    """

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        """By id, in the order of writing."""
        self.result: Result | None = None
        """That of the last run: what Jupyter draws after it."""
        self.tools: Any = None
        """What the names of tools mean, in a plan that was read from JSON."""
        self._taken: dict[str, int] = {}

    @property
    def item(self) -> Reference:
        """Stands, in the arguments of a mapped step, for the element that a call is for."""
        return Reference(self, ITEM)

    def call(self, tool: Any, /, **arguments: Any) -> Step:
        """Add a step.

        Args:
            tool: A LangChain tool, a function, or a wrapped one.
            **arguments: The tool's, every one of them; values may be or contain references to earlier steps.

        Raises:
            TypeError: It is nothing that can be called.
        """
        if isinstance(tool, (str, Reference)) or not (callable(tool) or hasattr(tool, "invoke")):
            raise TypeError(f"plan.call(tool, ...) takes a LangChain tool or a function, not {tool!r}")
        return self.add(self._free(name_of(tool)), tool, arguments)

    def add(self, name: str, tool: Any, arguments: Mapping[str, Any]) -> Step:
        """Add a step under an id of its own."""
        step = self.steps[name] = Step(self, name, tool, arguments)
        return step

    def _free(self, name: str) -> str:
        name = "".join(c if IDENTIFIER.fullmatch(f"a{c}") else "_" for c in name)[:50]
        if not name[:1].isalpha() or name == ITEM:
            name = f"step_{name}"
        free = name
        while free in self.steps:
            number = self._taken[name] = self._taken.get(name, 1) + 1
            free = f"{name}_{number}"
        return free

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def from_json(cls, document: Any, tools: Any = None, *, max_steps: int | None = None) -> Plan:
        """Read a plan that is data; `ibidem.plan.form.SCHEMA` is its schema.

        Args:
            document: JSON as text, or what it says as a dict.
            tools: Those that its steps name, a list or a dict; None: they are given when it is run.
            max_steps: Steps that it may have; 1,000 by default.

        Raises:
            PlanError: Mistakes, all of them. Whether tools and references exist is told when it is checked or run.
        """
        from ibidem.plan import form  # which needs this module

        plan = form.read(document, max_steps=form.MAX_STEPS if max_steps is None else max_steps)
        plan.tools = tools
        return plan

    def to_json(self) -> dict[str, Any]:
        """Write the plan as data, for `json.dumps`; tools are named.

        Raises:
            PlanError: An argument is nothing that JSON has.
        """
        from ibidem.plan import form

        return form.write(self)

    # -- running -------------------------------------------------------------------------------------------------

    def run(
        self,
        guard: Guard | Bound | None = None,
        *,
        schedule: Schedule = "eager",
        on_fault: OnFault = "continue",
        max_concurrency: int | None = None,
        timeout: float | None = None,
        tools: Any = None,
    ) -> Result:
        """Run the plan, and give what came of each step.

        Args:
            guard: What the calls pass; None: those of the tools that are wrapped already, and for the others none of their
                results is remembered unless a decorator says so.
            schedule: `eager`: a step starts when its own inputs are there; `batches`: when everything before it is done.
            on_fault: `continue`: what does not need a failed step goes on; `stop`: nothing more is begun.
            max_concurrency: Calls at once; None: as many as can run.
            timeout: Seconds for all of it; what is not done by then has failed.
            tools: Those that steps name, for a plan that was read from JSON.

        Raises:
            PlanError: Mistakes, all of them; nothing has run.
        """
        from ibidem.plan import drawing, running  # they need the guard, which is not needed to write a plan

        options = running.Options(schedule, on_fault, max_concurrency, timeout, observe=drawing.live(self))
        return running.run(self, running.prepare(self, guard, tools, awaits=False), options)

    async def arun(
        self,
        guard: Guard | Bound | None = None,
        *,
        schedule: Schedule = "eager",
        on_fault: OnFault = "continue",
        max_concurrency: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # it ends steps as faults, which asyncio.timeout does not
        tools: Any = None,
    ) -> Result:
        """Do the same on an event loop; synchronous functions run in threads."""
        from ibidem.plan import drawing, running

        options = running.Options(schedule, on_fault, max_concurrency, timeout, observe=drawing.live(self))
        return await running.arun(self, running.prepare(self, guard, tools, awaits=True), options)

    def batches(self, guard: Guard | Bound | None = None, *, tools: Any = None) -> list[list[str]]:
        """Give the ids of the steps in topological batches: each needs only those before it.

        Raises:
            PlanError: Mistakes, all of them.
        """
        from ibidem.plan import running

        prepared = running.prepare(self, guard, tools, awaits=True)
        names = list(self.steps)
        return [[names[index] for index in batch] for batch in prepared.order.batches]

    def check(self, guard: Guard | Bound | None = None, *, tools: Any = None) -> None:
        """Look for mistakes without running anything.

        Raises:
            PlanError: Mistakes, all of them.
        """
        from ibidem.plan import running

        running.prepare(self, guard, tools, awaits=True)

    # -- to look at ----------------------------------------------------------------------------------------------

    def to_mermaid(self, guard: Guard | Bound | None = None) -> str:
        """Write the plan as a Mermaid flowchart; a dotted arrow is an order without a result."""
        from ibidem.plan import drawing

        return drawing.to_mermaid(self, guard)

    def __str__(self) -> str:
        from ibidem.plan import drawing

        return drawing.outline_text(self) if self.result is None else str(self.result)

    def __repr__(self) -> str:
        return f"<Plan of {len(self)} step{'' if len(self) == 1 else 's'}>"

    def __rich__(self) -> Any:
        return str(self) if self.result is None else self.result.__rich__()

    def _repr_html_(self) -> str:
        from ibidem.plan import drawing

        return drawing.outline_html(self) if self.result is None else self.result._repr_html_()


def name_of(tool: Any) -> str:
    """Give the name of a tool or a function."""
    return str(getattr(tool, "name", None) or getattr(tool, "__name__", None) or type(tool).__name__)
