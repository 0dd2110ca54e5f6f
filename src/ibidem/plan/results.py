"""Results: what came of each step of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ibidem.core.call import Outcome
from ibidem.core.faults import Fault, Kind
from ibidem.plan.references import Reference, follow
from ibidem.report.words import counted, duration

State = Literal["done", "failed", "skipped"]


class UpstreamFailed(Exception):  # noqa: N818  # as CircuitOpen
    """A step could not run because one that it needs has failed; the cause is what that one raised."""


class StepSkipped(LookupError):  # noqa: N818
    """A step has no result because its condition, or that of one it needs, did not hold."""


class Ended(NamedTuple):  # a frozen dataclass takes four times as long to make, and each step makes one
    """How one step of a plan ended."""

    id: str
    tool: str
    state: State
    outcome: Outcome
    """Of a skipped step: without a value."""
    began: float = 0.0
    """Seconds after the plan did."""
    ended: float = 0.0
    root: str = ""
    """The step that is the cause, where that is another one: the one that failed, or whose condition did not hold."""
    is_optional: bool = False
    calls: int = 1
    """Calls that it made: one, or one for each element; none if it never came to that."""

    @property
    def blocks(self) -> bool:
        """Whether those who need its result cannot run."""
        return self.state != "done" and not self.is_optional

    @property
    def value(self) -> Any:
        """What those who need the result are given."""
        return self.outcome.value if self.state == "done" or self.is_optional else None


@dataclass(frozen=True, slots=True)
class Result(Mapping[Any, Any]):
    """What came of a plan: `result[step]` is a value, `result.outcome(step)` an `Outcome`. In Jupyter it draws itself."""

    steps: Mapping[str, Ended]
    """By id, in the order of writing."""
    elapsed: float
    """Seconds that it took."""
    needs: Mapping[str, tuple[str, ...]]
    """What each step waited for, hazards included."""

    def __getitem__(self, step: Any) -> Any:
        """Give the value of a step, or the part of it that a reference means.

        Raises:
            Exception: What the step raised; `UpstreamFailed` if one that it needs has failed.
            StepSkipped: A condition did not hold.
            KeyError: There is no such step.
        """
        ended = self._ended(step)
        if ended.state == "skipped" and not ended.is_optional:
            where = f", because that of step {ended.root!r} did not" if ended.root else ""
            raise StepSkipped(f"step {ended.id!r} was skipped: its condition did not hold{where}")
        value = ended.value if ended.is_optional else ended.outcome.unwrap()
        return follow(value, step) if isinstance(step, Reference) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __contains__(self, step: object) -> bool:
        return (step.source if isinstance(step, Reference) else step) in self.steps

    def outcome(self, step: Any) -> Outcome:
        """Give the outcome of a step: a value or a fault, and how it came."""
        return self._ended(step).outcome

    def _ended(self, step: Any) -> Ended:
        """Find a step by its id or by a reference to it."""
        name = step.source if isinstance(step, Reference) else step
        try:
            return self.steps[name]
        except (KeyError, TypeError):  # a list, say, is no key at all
            raise KeyError(f"the plan has no step {name!r}: its steps are {', '.join(self.steps) or 'none'}") from None

    @property
    def failed(self) -> list[Ended]:
        """The steps that failed, those included that could not run because of it."""
        return [each for each in self.steps.values() if each.state == "failed"]

    @property
    def skipped(self) -> list[Ended]:
        """The steps that a condition kept from running."""
        return [each for each in self.steps.values() if each.state == "skipped"]

    def critical_path(self) -> list[str]:
        """Give the steps that the plan took as long as it did for, from the first to the last."""
        ran = {name: each for name, each in self.steps.items() if each.calls}
        at = max(ran.values(), key=lambda each: each.ended, default=None)
        path: list[str] = []
        while at is not None:
            path.append(at.id)
            above = [ran[name] for name in self.needs[at.id] if name in ran]
            at = max(above, key=lambda each: each.ended, default=None)
        return path[::-1]

    @property
    def headline(self) -> str:
        """Say in a sentence what came of the plan."""
        counts = [(len(self.failed), "failed"), (len(self.skipped), "skipped")]
        said = [f"{count} {word}" for count, word in counts if count]
        memo = sum(each.outcome.how == "memo" for each in self.steps.values())
        said += [f"{memo} from the memo"] if memo else []
        rest = f": {', '.join(said)}" if said else ""
        return f"{counted(len(self.steps), 'step')} in {duration(self.elapsed)}{rest}"

    def __repr__(self) -> str:
        return f"<{self.headline}>"

    def __str__(self) -> str:
        from ibidem.plan import drawing  # which needs this module

        return drawing.waterfall_text(self.headline, drawing.rows_of(self), self.elapsed)

    def __rich__(self) -> Any:
        from ibidem.plan import drawing

        return drawing.waterfall_rich(self.headline, drawing.rows_of(self), self.elapsed)

    def _repr_html_(self) -> str:
        from ibidem.plan import drawing

        return drawing.waterfall_html(self.headline, drawing.rows_of(self), self.elapsed)


def upstream_failed(step: str, root: Ended) -> Fault:
    """Make the fault of a step that needs one that has failed."""
    cause = root.outcome.fault
    why = f" ({cause.kind}: {cause.message})" if cause is not None else ""
    problem = UpstreamFailed(f"step {step!r} did not run: it needs step {root.id!r}, which failed{why}")
    problem.__cause__ = cause.exception if cause is not None else None
    return Fault(
        problem, "upstream_failed", f"Not run: it needs step {root.id!r}, which failed{why}.", may_have_run=False
    )


def own_fault(kind: Kind, message: str, problem: Exception | None = None, *, retryable: bool = False) -> Fault:
    """Make the fault of a call that was never made."""
    problem = RuntimeError(message) if problem is None else problem
    return Fault(problem, kind, message, retryable=retryable, may_have_run=False)


def together(outcomes: list[Outcome | None]) -> Outcome:
    """Make one outcome of those of a mapped step: the list of values, and the first fault."""
    known = [each for each in outcomes if each is not None]
    values = [each.value if each is not None and not each.failed else None for each in outcomes]
    failed = next((place for place, each in enumerate(outcomes) if each is not None and each.failed), None)
    fault = None
    if failed is not None:
        first = outcomes[failed]
        fault = first.fault if first is not None else None
    how = known[0].how if known and all(each.how == known[0].how for each in known) else "ran"
    return Outcome(
        values,
        fault,
        "ran" if fault is not None else how,
        elapsed=sum(each.elapsed for each in known),
        attempts=max((each.attempts for each in known), default=1),
    )
