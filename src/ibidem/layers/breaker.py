"""Breaker: a tool whose dependency has failed too often of late is left alone, and the model told at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ibidem.core.call import Call, Inner, Outcome
from ibidem.core.circuit import Circuit, Refused
from ibidem.core.classify import fault_of
from ibidem.core.faults import CircuitOpen
from ibidem.core.policies import Breaker, Policies
from ibidem.report.tables import Circuits, CircuitView


@dataclass(frozen=True)
class Breakers:
    """Lets calls through, or not, as the `Breaker` of their tool says. While it is closed it makes nobody wait."""

    note: Callable[[Call, str], None] = field(repr=False)
    """Told when a circuit opens or closes."""
    circuits: dict[str, Circuit] = field(default_factory=dict, repr=False, compare=False)
    """By dependency, or tool."""

    @staticmethod
    def wanted(policies: Policies) -> bool:
        return policies.breaker is not None

    async def __call__(self, call: Call, inner: Inner, /) -> Outcome:
        policies, now = call.tool.policies, call.runtime.now
        breaker = policies.breaker
        assert breaker is not None  # noqa: S101
        circuit = self.circuits.get(policies.dependency) or self._circuit(policies.dependency, breaker)
        era = circuit.enter(now())
        if isinstance(era, Refused):
            return _refused(call, era)
        try:
            outcome = await inner(call)
        except BaseException:  # control flow tells nothing, and a probe that leaves so must not block the next
            circuit.said_nothing(era)
            raise
        fault = outcome.fault
        if fault is None:
            if circuit.succeeded(era, now()):
                self.note(call, "closed")
        elif breaker.counts(fault):
            if circuit.failed(era, now()):
                self.note(call, "opened")
        else:
            circuit.said_nothing(era)
        return outcome

    def states(self, now: float) -> Circuits:
        """Give the state of each circuit.

        Args:
            now: The second on the runtimes' clock.
        """
        views = [
            CircuitView(name, each.state, each.failures, each.opened, each.seconds_left(now))
            for name, each in sorted(self.circuits.items())
        ]
        return Circuits(tuple(views))

    def _circuit(self, name: str, breaker: Breaker) -> Circuit:
        return self.circuits.setdefault(name, Circuit(breaker))


def _refused(call: Call, refused: Refused) -> Outcome:
    problem = CircuitOpen(
        f"{call.tool.policies.dependency} has failed too often of late and is left alone for {refused.seconds:.0f} s."
    )
    fault = replace(fault_of(problem), retry_after=refused.seconds)
    return Outcome(fault=fault)
