"""Fallback: where a result could not be had, something else stands for it, and says that it does."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ibidem.core.call import Call, Inner, Outcome
from ibidem.core.copies import NotCopied, private
from ibidem.core.faults import Fault
from ibidem.core.policies import Policies
from ibidem.report.events import logger


@dataclass(frozen=True)
class Fallback:
    """Gives the tool's `fallback=` for a failure that is not the caller's own doing. It is never remembered."""

    @staticmethod
    def wanted(policies: Policies) -> bool:
        return policies.fallback is not None

    async def __call__(self, call: Call, inner: Inner, /) -> Outcome:
        outcome, fallback = await inner(call), call.tool.policies.fallback
        if outcome.fault is None or not _stands_for(outcome.fault):
            return outcome
        try:
            value = fallback(call.arguments, outcome.fault) if callable(fallback) else private(fallback)
        except NotCopied:
            value = fallback
        except Exception:
            logger.exception("%s: fallback= failed; the call fails as it did", call.tool.name)
            return outcome
        return replace(outcome, value=value, how="fallback")


def _stands_for(fault: Fault) -> bool:
    """Whether something may stand for this failure: bad arguments and refusals the model must hear of."""
    return fault.tells_of_dependency or fault.kind == "circuit_open"
