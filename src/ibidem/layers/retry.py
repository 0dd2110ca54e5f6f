"""Retry: a call that failed in passing is made again below the model, which would have spent a turn on it.

Only what does no more when it runs twice is retried: reads, and writes that are declared idempotent. Any other write never
is, not even after an exception which says that nothing has left: it speaks of the tool's last request, and an earlier one
of the same tool may have changed something.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ibidem.core.budget import Budget
from ibidem.core.call import Call, Inner, Outcome
from ibidem.core.policies import Policies, Retry


@dataclass(frozen=True)
class Retries:
    """Makes calls again as the `Retry` of their tool says."""

    note: Callable[[Call, str], None] = field(repr=False)
    """Told of each retry, and why it was made."""
    draw: Callable[[], float] = field(default=random.random, repr=False)
    """Gives a random number from 0 to 1."""
    budgets: dict[str, Budget] = field(default_factory=dict, repr=False, compare=False)
    """By dependency, or tool."""

    @staticmethod
    def wanted(policies: Policies) -> bool:
        return policies.retried

    async def __call__(self, call: Call, inner: Inner, /) -> Outcome:
        policies = call.tool.policies
        retry = policies.retry
        assert retry is not None  # noqa: S101
        budget = self.budgets.get(policies.dependency) or self._budget(policies.dependency, retry, call.runtime.now())
        budget.earn()
        attempt = 1
        while True:
            outcome = await inner(call)
            fault = outcome.fault
            if fault is None:
                return outcome if attempt == 1 else replace(outcome, attempts=attempt)
            if attempt > retry.max_retries or call.work.single or not retry.wants(fault):
                break
            delay, left = retry.delay(attempt, fault, self.draw()), call.remaining()
            if delay is None or (left is not None and delay >= left) or not budget.take(call.runtime.now()):
                break
            self.note(call, fault.kind)
            await call.runtime.sleep(delay)
            attempt += 1
        return replace(outcome, fault=replace(fault, attempts=attempt), attempts=attempt)

    def _budget(self, name: str, retry: Retry, now: float) -> Budget:
        return self.budgets.setdefault(name, Budget(retry.budget, now))
